from __future__ import annotations

import os

import pytest

from evodeploy.errors import BadFileError, UsageError
from evodeploy.files import check_input, check_output, replacing, sha256


def test_a_failure_while_writing_leaves_the_old_file_and_no_draft(tmp_path):
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as draft:
        draft.write_bytes(b"half of the new")
        raise ZeroDivisionError
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("out.bin", b"old")]


def test_success_replaces_it(tmp_path):
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    with replacing(path) as draft:
        assert draft.parent == tmp_path
        draft.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("out.bin", b"new")]


def test_outputs_that_cannot_be_are_refused_beforehand(tmp_path):
    path = tmp_path / "there.bin"
    path.write_bytes(b"x")
    with pytest.raises(UsageError, match="already exists: pass --force"):
        check_output(path, force=False)
    check_output(path, force=True)
    with pytest.raises(UsageError, match="is the input itself"):
        check_output(path, True, path)
    with pytest.raises(UsageError, match="is a folder"):
        check_output(tmp_path, force=True)
    with pytest.raises(UsageError, match="does not exist: create it"):
        check_output(tmp_path / "no" / "out.bin", force=False)


def test_an_unwritable_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # for root every folder is writable
    with pytest.raises(UsageError, match="not writable"):
        check_output(tmp_path / "out.bin", force=False)


def test_inputs_that_are_none(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(UsageError, match="does not exist"):
        check_input(tmp_path / "none", "a thing")
    with pytest.raises(UsageError, match="is a folder"):
        check_input(tmp_path, "a thing")
    with pytest.raises(BadFileError, match="is empty"):
        check_input(tmp_path / "empty", "a thing")


def test_sha256_of_a_known_text(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc").startswith("ba7816bf8f01cfea")
