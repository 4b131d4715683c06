from __future__ import annotations

import importlib.util
import sys

import pytest
from data_kinds import DIGITS, KINDS


@pytest.fixture
def digits() -> list[bytes]:
    return DIGITS


@pytest.fixture
def hugging_face(monkeypatch):
    """The library where it is installed, else what tests/hugging_face.py reads of its files."""
    found = importlib.util.find_spec("datasets")
    if found is None or found.origin is None:  # the folder of these tests has its name too
        from hugging_face import MODULE

        monkeypatch.setitem(sys.modules, "datasets", MODULE)


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A function that writes the digits as one of the kinds in the working folder."""
    monkeypatch.chdir(tmp_path)
    return lambda kind: KINDS[kind](DIGITS)
