from __future__ import annotations

import json
import os

import pytest

from evodeploy.errors import BadFileError, UsageError
from evodeploy.evaluation.journal import Answer, Journal

TASK = {"artefacts": [["0", "fake", "fp32"], ["1", "fake", "fp32"]], "images": "x"}
ANSWERS = [Answer(((1, 2), (2, 1)), (0.5, 0.25)), Answer(error="no image")]


@pytest.fixture
def path(tmp_path):
    """A journal of two answers."""
    journal = Journal(tmp_path / "x.part", TASK)
    with journal.open():
        for answer in ANSWERS:
            journal.append(answer)
    return tmp_path / "x.part"


def test_answers_are_read_as_they_were_written(path):
    assert Journal(path, TASK).answers == ANSWERS


@pytest.mark.parametrize("tail", [b"[[[1", b"[[[1, 2], [2, 1]], [0.5, 0.25], ", b"\xff\n", b"[" * 100_000 + b"\n"])
def test_a_line_that_was_cut_is_left_out_and_written_over(path, tail):
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    journal = Journal(path, TASK)
    assert journal.answers == ANSWERS
    with journal.open():
        pass
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (3, "an answer is 3, expected a list of 3"),
        ([[], []], "an answer is a list of 2, expected a list of 3"),
        ([3, [], ""], "classes is 3, expected a list"),
        ([[[1], []], [1, 1], ""], r"classes\[1\] is a list of 0, expected a list of 1"),
        ([[[1], [-1]], [1, 1], ""], r"classes\[1\]\[0\] is -1, expected a whole number"),
        ([[[1], ["1"]], [1, 1], ""], r'classes\[1\]\[0\] is "1", expected a whole number'),
        ([[[1], [1]], [1, -1], ""], r"seconds\[1\] is -1, expected a number"),
        ([[[1], [1]], [1, 1], None], "error is null, expected text"),
        ([[[1]], [1], ""], "classes is a list of 1, expected a list of 2, one for each artefact"),
        ([[[1], [1]], [1], ""], "seconds is a list of 1, expected a list of 2, one for each artefact"),
        ([[[1], [1]], [1, 1], "no image"], "classes is a list of 2, expected a list of 0"),
    ],
)
def test_an_answer_that_is_none_is_refused_with_file_line_got_and_expected(path, line, sentence):
    path.write_bytes(path.read_bytes() + json.dumps(line).encode() + b"\n")
    with pytest.raises(BadFileError, match=rf"x\.part, line 4: {sentence}"):
        Journal(path, TASK)


def test_a_pipe_in_its_place_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "x.part")
    with pytest.raises(UsageError, match=r"x\.part is a pipe"):
        Journal(tmp_path / "x.part", TASK)
