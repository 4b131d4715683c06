"""What the run on Ray does around it. The run itself: test_batch.py."""

from __future__ import annotations

import os

import pytest

from evodeploy.batch.pipeline import without_line


@pytest.mark.parametrize("end", [None, KeyboardInterrupt])
def test_one_line_is_left_out_of_what_is_said_inside(capfd, end):
    try:
        with without_line(b"log level"):
            os.write(2, b"before\nSet the log level to 3\nafter\n")
            if end:
                raise end
    except KeyboardInterrupt:
        pass
    os.write(2, b"Set the log level again\n")
    assert capfd.readouterr().err == "before\nafter\nSet the log level again\n"
