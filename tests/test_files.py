from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from evodeploy.errors import BadFileError, UsageError
from evodeploy.files import check_input, check_output, open_regular, replacing, sha256


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


@pytest.fixture
def odd(tmp_path):
    """Names that are no regular file, each with what is said of it."""
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        yield {
            tmp_path / "pipe": "pipe is a pipe, not a file",
            tmp_path / "socket": "socket is a socket, not a file",
            Path("/dev/zero"): "/dev/zero is a device, not a file",
            tmp_path: "is a folder, not a file",
            tmp_path / "none": "none does not exist",
            tmp_path / ("x" * 256): "cannot read .*: File name too long",
            tmp_path / "a\0b": r"cannot read .*a\\x00b: .*null byte",
            tmp_path / "a\nb": r"a\\nb does not exist",
            tmp_path / "none" / "below": "below does not exist",
            "": "the name of a file is empty",
        }


def test_only_regular_files_are_opened_and_nothing_is_waited_for(odd):
    for path, sentence in odd.items():
        for door in (open_regular, check_input):
            with pytest.raises(UsageError, match=sentence) as raised:
                door(path, "a thing")
            assert "\n" not in str(raised.value)


def test_a_link_to_a_pipe_is_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    with pytest.raises(UsageError, match="link is a pipe"):
        open_regular(tmp_path / "link", "a thing")


def test_a_file_is_read_up_to_its_limit(tmp_path):
    (tmp_path / "five").write_bytes(b"12345")
    with open_regular(tmp_path / "five", "a thing", 5) as file:
        assert file.read() == b"12345"
    with pytest.raises(BadFileError, match=r"five has 5 bytes, expected at most 4 .a thing"):
        open_regular(tmp_path / "five", "a thing", 4)
