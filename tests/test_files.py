"""Outputs: what is refused before any work, who owns them, and what failures leave."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from data_kinds import listing
from sharing import refused_in_thread

from evodeploy import locks
from evodeploy.distillation.state import State, write_state
from evodeploy.errors import BadFileError, UnavailableError, UsageError
from evodeploy.evaluation.journal import Answer, Journal
from evodeploy.files import (
    check_distinct,
    check_input,
    check_output,
    claimed,
    made_folder,
    open_regular,
    replacing,
    sha256,
)
from evodeploy.kinds import LOG, ONNX, REPORT
from evodeploy.locks import draft_of, locked, owned, scratch
from evodeploy.models.saving import save_checkpoint

OURS = b"[INFO] a build\n"


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


def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")

    def full(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    no_room = pytest.raises(UnavailableError, match=r"cannot write .*out\.bin: No space left on device")
    with no_room, replacing(path) as draft:
        monkeypatch.setattr(Path, "write_bytes", full)
        draft.write_bytes(b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("out.bin", b"old")]


@contextlib.contextmanager
def small_disk():
    """The kernel refuses to let a file grow beyond 1000 bytes: for the body alone, since pytest may write into one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_that_does_not_fit_is_one_sentence(small, tmp_path):
    with small_disk(), pytest.raises(UnavailableError, match=r"cannot write .*c\.pth: File too large"):
        save_checkpoint(small, tmp_path / "c.pth")
    assert listing(tmp_path) == []


def test_the_state_of_a_training_that_does_not_fit_is_one_sentence_and_leaves_the_earlier(tmp_path):
    path = tmp_path / "c.pth.part"
    write_state(State({}), path)
    before = path.read_bytes()
    large = State({}, tensors={"student": torch.zeros(10_000)})
    with small_disk(), pytest.raises(UnavailableError, match=r"cannot write .*c\.pth\.part: File too large"):
        write_state(large, path)
    assert path.read_bytes() == before


def test_an_evaluation_that_does_not_fit_is_one_sentence_and_keeps_its_answers(tmp_path):
    path, task = tmp_path / "r.part", {"artefacts": [["a", "b", "c"]], "images": "x"}
    answer = Answer(((1, 2, 3),), (0.5,))
    journal = Journal(path, task)
    with (
        small_disk(),
        pytest.raises(UnavailableError, match=r"cannot write .*r\.part: (File too large|No space left)"),
        journal.open(),
    ):
        for _ in range(1000):
            journal.append(answer)
    assert 10 < len(Journal(path, task).answers) < 100


def test_outputs_that_cannot_be_are_refused_beforehand(tmp_path):
    path = tmp_path / "there.log"
    path.write_bytes(OURS)
    with pytest.raises(UsageError, match="already exists: pass --force"):
        check_output(path, force=False, kind=LOG)
    check_output(path, force=True, kind=LOG)
    with pytest.raises(UsageError, match="is the input itself"):
        check_output(path, True, path, kind=LOG)
    with pytest.raises(UsageError, match="is a folder"):
        check_output(tmp_path, force=True, kind=LOG)
    with pytest.raises(UsageError, match="does not exist: create it"):
        check_output(tmp_path / "no" / "out.log", force=False, kind=LOG)
    with pytest.raises(UsageError, match="File name too long"):
        check_output(tmp_path / ("x" * 300), force=False, kind=LOG)


def test_an_unwritable_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # for root every folder is writable
    with pytest.raises(UsageError, match="not writable"):
        check_output(tmp_path / "out.log", force=False, kind=LOG)


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_links_to_an_input_are_the_input(tmp_path, link):
    (tmp_path / "m.onnx").write_bytes(b"\x08\x08")
    link(tmp_path / "m.onnx", tmp_path / "other.onnx")
    with pytest.raises(UsageError, match="is the input itself"):
        check_output(tmp_path / "other.onnx", True, tmp_path / "m.onnx", kind=ONNX)


def test_force_replaces_files_of_its_own_kind_alone(tmp_path):
    for name, content in {"m.onnx": b"no network", "r.json": b'{"name": "theirs"}'}.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match="is not an ONNX file of evodeploy, and --force replaces nothing else"):
        check_output(tmp_path / "m.onnx", True, kind=ONNX)
    with pytest.raises(UsageError, match="is not a JSON report of evodeploy"):
        check_output(tmp_path / "r.json", True, kind=REPORT)
    with pytest.raises(UsageError, match=r"would be an ONNX file, expected a name that ends with \.onnx"):
        check_output(tmp_path / "new.bin", False, kind=ONNX)  # the first time too


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fifo", "a device, a pipe or a socket"),
        ("socket", "a device, a pipe or a socket"),
        ("/dev/null", "a device, a pipe or a socket"),
        ("link", "is a symbolic link"),
        ("dangling", "is a symbolic link"),
    ],
)
def test_only_regular_files_are_replaced(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "aim").write_bytes(OURS)
    (tmp_path / "link").symlink_to(tmp_path / "aim")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
    with pytest.raises(UsageError, match=message):
        check_output(tmp_path / name, True, kind=LOG)
    with pytest.raises(UsageError, match=message), replacing(tmp_path / name):
        raise AssertionError("nothing is written")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "aim").read_bytes() == OURS


def test_outputs_are_distinct(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_distinct(Path("a"), Path("b"))
    with pytest.raises(UsageError, match="two outputs would be written"):
        check_distinct(Path("a"), Path("b"), tmp_path / "a")
    with pytest.raises(UsageError, match="two outputs"), claimed([(Path("a"), LOG), (Path("./a"), LOG)], False):
        raise AssertionError("not reached")


def test_the_second_of_two_writers_is_refused(tmp_path):
    path = tmp_path / "out.log"

    def second():
        with replacing(path) as draft:
            draft.write_bytes(b"second")

    with replacing(path) as draft:
        draft.write_bytes(b"first")
        assert (
            refused_in_thread(second) == f"another run is writing {path}: wait until it ends, or choose another output"
        )
        assert draft.read_bytes() == b"first"
    assert path.read_bytes() == b"first"
    assert refused_in_thread(second) is None
    assert listing(tmp_path) == ["out.log"]


def test_a_claimed_output_is_owned_from_its_check_to_the_end(tmp_path):
    path = tmp_path / "out.log"

    def claim():
        with claimed([(path, LOG)], False):
            raise AssertionError("not reached")

    with claimed([(path, LOG)], False):
        assert "another run is writing" in refused_in_thread(claim)
        with replacing(path) as draft:  # the owner itself may
            draft.write_bytes(OURS)
        assert "already exists" in refused_in_thread(claim)
    assert listing(tmp_path) == ["out.log"]


def test_an_output_that_another_run_finishes_meanwhile_is_not_replaced(tmp_path, monkeypatch):
    path = tmp_path / "out.log"

    def late(output):
        path.write_bytes(OURS)
        return owned(output)

    monkeypatch.setattr("evodeploy.files.owned", late)
    with pytest.raises(UsageError, match="already exists"), claimed([(path, LOG)], False):
        raise AssertionError("not reached")
    assert listing(tmp_path) == ["out.log"]


KILLED = """
import os, signal, sys
from pathlib import Path
from evodeploy.files import replacing
from evodeploy.locks import scratch
with scratch() as folder, replacing(Path(sys.argv[1])) as draft:
    (folder / "large").write_bytes(b"x")
    draft.write_bytes(b"half")
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_left_is_cleared_at_the_next_write(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp" / "evodeploy-scratch-of-mine").mkdir(parents=True)
    path = tmp_path / "out.log"
    done = subprocess.run([sys.executable, "-c", KILLED, path], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = Path(done.stdout.strip())
    assert (left / "large").exists()
    assert listing(tmp_path) == [".out.log.evodeploy-draft", ".out.log.evodeploy-lock", "tmp"]
    with replacing(path) as draft:
        draft.write_bytes(b"whole")
    assert listing(tmp_path) == ["out.log", "tmp"]
    with scratch() as mine, scratch() as other:
        assert mine.is_dir()  # and is not taken for one that was left
        assert listing(tmp_path / "tmp") == sorted([mine.name, other.name, "evodeploy-scratch-of-mine"])
    assert listing(tmp_path / "tmp") == ["evodeploy-scratch-of-mine"]


def test_a_user_s_hidden_files_are_no_drafts(tmp_path):
    for name in (".x.part", ".out.log.part", ".out.log.draft"):
        (tmp_path / name).write_bytes(b"theirs")
    with replacing(tmp_path / "out.log") as draft:
        draft.write_bytes(b"x")
    assert listing(tmp_path) == [".out.log.draft", ".out.log.part", ".x.part", "out.log"]


def test_a_long_name_has_a_draft(tmp_path):
    path = tmp_path / ("ß" * 120 + ".log")
    with replacing(path) as draft:
        draft.write_bytes(b"x")
    assert listing(tmp_path) == [path.name]


def test_a_folder_in_the_draft_s_place_is_one_sentence(tmp_path):
    draft_of(tmp_path / "out.log").mkdir()
    with pytest.raises(UsageError, match=r"cannot write .*out\.log"), replacing(tmp_path / "out.log"):
        raise AssertionError("not reached")


def test_a_lock_is_waited_for(tmp_path):
    order = []

    def wait():
        with locked(tmp_path / "lock", wait=True):
            order.append("second")

    thread = threading.Thread(target=wait)
    with locked(tmp_path / "lock"):
        thread.start()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert listing(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF])
def test_outputs_are_written_where_locks_are_not_offered(tmp_path, monkeypatch, number):
    def refuse(descriptor, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    monkeypatch.setattr(locks.tempfile, "tempdir", str(tmp_path))
    with scratch() as mine, scratch() as other, replacing(tmp_path / "out.log") as draft:
        assert mine.is_dir()  # though the other run could not see that it is in use
        assert other.is_dir()
        draft.write_bytes(b"x")
    assert listing(tmp_path) == ["out.log"]


def test_a_lock_that_fails_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    def fail(descriptor, how):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(locks.fcntl, "flock", fail)
    monkeypatch.setattr(locks.tempfile, "tempdir", str(tmp_path))
    with pytest.raises(UnavailableError, match=r"cannot write .*out\.log: Input/output"), owned(tmp_path / "out.log"):
        raise AssertionError("not reached")
    with pytest.raises(OSError, match="Input/output"), scratch():
        raise AssertionError("not reached")
    assert listing(tmp_path) == []


def test_a_lock_file_of_another_user_is_taken_over_or_named(tmp_path, monkeypatch):
    lock = tmp_path / ".out.log.evodeploy-lock"
    lock.touch()
    opened, denied = os.open, {os.O_RDWR}

    def refuse(path, flags, *mode):
        if Path(path) == lock and flags & os.O_ACCMODE in denied:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return opened(path, flags, *mode)

    monkeypatch.setattr(locks.os, "open", refuse)
    with replacing(tmp_path / "out.log") as draft:
        draft.write_bytes(b"x")
    assert listing(tmp_path) == ["out.log"]
    lock.touch()
    denied.add(os.O_RDONLY)
    with pytest.raises(UsageError, match=r"lock file .*\.out\.log\.evodeploy-lock: Permission denied"):
        owned(tmp_path / "out.log").__enter__()
    assert listing(tmp_path) == [lock.name, "out.log"]


def test_a_new_folder_that_stays_empty_is_removed(tmp_path):
    with made_folder(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not (tmp_path / "a" / "b").exists()
    with made_folder(tmp_path / "a"):
        pass
    assert (tmp_path / "a").is_dir()  # it was there before
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot make the folder"), made_folder(tmp_path / "file" / "c"):
        raise AssertionError("not reached")


def test_missing_inputs_folders_and_empty_files_are_refused(tmp_path):
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
            tmp_path / "a\0b": r"cannot read .*a\\x00b: .*null (byte|character)",
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
