"""Careless and hostile command lines: the exit code, the sentence and the JSON document that each gets."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import shlex
import signal
import sys
import threading
from typing import get_args

import pytest
import typer
from PIL import Image

from evodeploy.cli import app
from evodeploy.errors import UsageError
from evodeploy.files import replacing
from evodeploy.inference import loading
from evodeploy.inspection import describe
from evodeploy.specs import EngineOptions

# Exit code, command line, and a part of the sentence. garbage.* are no models, ckpt.* is one, i.png is a picture.
BAD = [
    # Nothing that can be read as a command
    (2, "frobnicate", "No such command 'frobnicate'"),
    (2, "export", "Missing argument"),
    (2, "export ckpt.pth --fast", "No such option"),
    (2, "inspect a.onnx b.onnx", "unexpected extra argument"),
    (2, "export ckpt.pth --input int4", "--input"),
    (2, "package ckpt.onnx --triton t --device tpu", "--device"),
    # Empty values: an empty path would be the working folder
    (2, "predict ckpt.onnx ''", "an argument is empty"),
    (2, "eval ckpt.onnx --data ''", "--data is empty"),
    (2, "build-engine ckpt.onnx --target=", "--target is empty"),
    # Numbers
    (2, "verify a b --threads 100000", "--threads is '100000', expected a whole number from 1 to"),
    (2, "predict ckpt.onnx i.png --batch ²", "--batch is '²', expected a whole number from 1 to 16384"),
    (2, "verify a b --random 999999999", "--random is '999999999', expected a whole number from 1 to 4096"),
    (2, "init evo_deit_tiny_patch16_224 --seed -1", "--seed is '-1', expected a whole number from 0 to 4294967295"),
    (2, "export ckpt.pth --image-size 100000", "--image-size is '100000', expected a whole number from 1 to 2048"),
    (2, "export ckpt.pth -o x.onnx --image-size 65", "multiple of"),
    (2, "export ckpt.pth --opset 5", "--opset is '5', expected a whole number from 18 to 23"),
    (2, "export ckpt.pth --batch 1e20", "--batch is '1e20', expected 'dynamic' or a batch size"),
    (2, "export ckpt.pth --batch 0", "--batch is '0'"),
    (2, "build-engine ckpt.onnx --workspace 99999999G", "--workspace is '99999999G', expected a size such as 512M"),
    (2, "build-engine ckpt.onnx --workspace ²G", "--workspace is '²G'"),
    (2, "build-engine ckpt.onnx --optimization-level 6", "--optimization-level is '6'"),
    (2, "build-engine ckpt.onnx --profile 1:²:3", "--profile is '1:²:3', expected MIN:OPT:MAX"),
    (2, "build-engine ckpt.onnx --min-batch 9 --max-batch 3", "out of order"),
    (2, "verify a b --rtol nan", "--rtol is 'nan', expected a number from 0 up"),
    (2, "verify a b --rtol inf", "--rtol is 'inf'"),
    (2, "verify a b --rtol 1e999", "--rtol is '1e999'"),
    (2, "verify a b --atol -0.1", "--atol is '-0.1'"),
    (2, "verify a b --score-tol -inf", "--score-tol is '-inf'"),
    (2, "serve ckpt.onnx --port 65536", "--port is '65536', expected a whole number from 0 to 65535"),
    (2, "serve ckpt.onnx --gpus nan", "--gpus is 'nan', expected a number from 0 to 64"),
    # Lists
    (2, "build-engine ckpt.onnx --target sm89,", "--target is 'sm89,', expected names with commas"),
    (2, "build-engine ckpt.onnx --target sm89,SM89", "--target is 'sm89,sm89', expected names with"),
    (2, "build-engine ckpt.onnx --target sm42", "unknown target sm42"),
    (2, "bench ckpt.onnx --batch 1,,8", "--batch is '1,,8'"),
    (2, "bench ckpt.onnx --batch 8,8", "each once"),
    (2, "bench ckpt.onnx --batch 0", "--batch is '0'"),
    (2, "bench ckpt.onnx --engines onnxruntime,", "--engines is 'onnxruntime,'"),
    (2, "bench ckpt.onnx --engines abacus", "no engine is called 'abacus'"),
    (2, "sweep ckpt.pth -o out --keep 0.5,0.5", "--keep is '0.5,0.5'"),
    (2, "sweep ckpt.pth -o out --keep 1.1", "--keep is '1.1', expected ratios above 0 and up to 1"),
    (2, "sweep ckpt.pth -o out --keep 0.5//0.5", "--keep is '0.5//0.5'"),
    (2, "export ckpt.pth --keep-ratio 2", "--keep-ratio is '2', expected a number above 0 and up to 1"),
    (2, "export ckpt.pth --keep-ratio nan", "--keep-ratio is 'nan'"),
    (2, "export ckpt.pth --keep-ratio 0.5,", "--keep-ratio is '0.5,'"),
    (2, "export ckpt.pth --stages 1,1", "--stages is '1,1'"),
    # Names
    (2, "export ckpt.pth -o x.onnx --model resnet50", "no model is called 'resnet50'"),
    (2, "bench ckpt.onnx --model nope", "no model is called 'nope'"),
    (2, "init evo_deit", "no model is called 'evo_deit'"),
    (2, "build-engine ckpt.onnx --runtime tensorflow", "no runtime is called 'tensorflow'"),
    (2, "predict ckpt.txt none.png", "cannot infer what ckpt.txt is"),
    # What excludes or needs something else
    (2, "export ckpt.pth -o x.onnx --int8 --fp16", "exclude each other"),
    (2, "export ckpt.pth -o x.onnx --int8", "--int8 is calibrated on images like those it will see"),
    (2, "export ckpt.pth -o x.onnx --fp8", "--fp8 is calibrated on images like those it will see"),
    (2, "export ckpt.pth -o x.onnx --int8 --images none", "none does not exist (expected a folder, a glob"),
    (2, "export ckpt.pth -o x.onnx --ema", "no EMA weights"),
    (2, "build-engine ckpt.onnx --fp16 --bf16", "--fp16 and --bf16 exclude each other"),
    # Files
    (2, "export none.pth", "none.pth does not exist"),
    (2, "export no/such/none.pth", "no/such/none.pth does not exist (expected a checkpoint"),
    (2, "build-engine no/such/none.onnx", "no/such/none.onnx does not exist (expected an ONNX model"),
    (2, "export ckpt.pth -o no/such/folder.onnx", "folder no/such does not exist"),
    (2, "export ckpt.pth -o ckpt.pth --force", "is the input itself"),
    (2, "predict ckpt.pth none.png", "none.png does not exist"),
    (4, "predict ckpt.pth garbage.pth", "not a readable image"),
    (4, "export garbage.pth -o x.onnx", "garbage.pth is damaged"),
    (4, "build-engine garbage.onnx --fp16", "garbage.onnx is damaged"),
    (4, "build-engine empty.onnx --fp16", "empty.onnx is empty"),
    (4, "inspect garbage.onnx", "damaged"),
    (2, "predict ckpt.onnx i.png --top 11", "top is 11, but evo_deit_test has 10 classes"),
    (2, "predict ckpt.onnx i.png --output o.xlsx", "cannot infer the format of o.xlsx"),
    (2, "predict ckpt.onnx i.png --engine torch", "the engine 'torch' does not run ckpt.onnx"),
    (2, "predict ckpt.onnx empty", "empty holds no images"),
    (2, "eval ckpt.onnx --data empty", "empty holds no images"),
    (2, "margins ckpt.onnx --images empty", "empty holds no images"),
    # Data sets
    (2, "eval ckpt.onnx --data d-{0..1}.tar", "d-0.tar does not exist (expected an image, a Parquet file or a tar)"),
    (2, "eval ckpt.onnx --data few.tgz", "few.tgz is compressed, so its images cannot be read one by one"),
    (2, "eval ckpt.onnx --data i.png", "i.png has 1 images, none with a label"),
    (4, "eval ckpt.onnx --data bad.tar", "bad.tar is not a readable tar"),
    (4, "verify ckpt.pth ckpt.onnx --images bad.tar", "bad.tar is not a readable tar"),
    (4, "margins ckpt.onnx --images bad.parquet", "bad.parquet is not a readable Parquet file"),
    (4, "eval ckpt.onnx --data i.png --labels few.txt", "few.txt is not a file of labels"),
    (2, "eval ckpt.onnx --data i.png --labels ones.txt", "ones.txt holds the devkit's class numbers"),
    (4, "eval ckpt.onnx --data classes --class-map deep.json", "deep.json is not a mapping of classes"),
    (2, "eval ckpt.onnx --data i.png --real-labels deep.json", "for ImageNet's 1000 classes, and evo_deit_test has"),
    (2, "eval ckpt.onnx --data i.png --real-labels a --labels b", "--real-labels gives the labels already"),
    (2, "sweep ckpt.pth -o out --class-map deep.json", "--class-map and --limit are for the labelled images"),
    (2, "distill ckpt.pth --images empty -o x.pth --class-map m", "--class-map matches labels with a classifier's"),
    (2, "verify ckpt.pth ckpt.onnx --images empty", "empty holds no images"),
    (2, "export ckpt.pth -o x.engine", "expected a name that ends with .onnx"),
    (2, "export ckpt.pth -o x.onnx --class-names few.txt", "few.txt lists 2 class names"),
    (2, "export ckpt.pth -o x.onnx --mean 0,0", "--mean is '0,0'"),
    (2, "export ckpt.pth -o x.onnx --crop-pct 1e-9", "--crop-pct is '1e-9', expected a number from 0.25 to 1"),
    (2, "init evo_deit_tiny_patch16_224 -o /dev/null --force", "/dev/null is a device, a pipe or a socket"),
    (2, "build-engine ckpt.onnx -o i.png --force", "expected a name that ends with .engine"),
    (2, "build-engine ckpt.onnx --fp16 --log ckpt.onnx --force", "is the input itself"),
    (2, "package ckpt.onnx --triton i.png", "cannot make the folder"),
    (2, "package ckpt.onnx --triton t --name ../../x", "the name is '../../x'"),
    (2, "bench --compare few.txt", "--compare takes two JSON documents"),
    (4, "bench --compare deep.json deep.json", "nested more than 32 deep"),
    (2, "batch ckpt.onnx none.png --output o", "none.png does not exist"),
    (2, "batch ckpt.onnx empty --output o", "empty holds no images"),
    (4, "batch ckpt.onnx nul.txt --output o", "nul.txt is not a list of paths: line 2 holds a NUL"),
    (4, "batch ckpt.onnx bad.parquet --output o", "bad.parquet is not a readable Parquet file"),
    (2, "batch ckpt.onnx empty/../i.png --output .", "is inside the output folder"),
    # What is no regular file, at every door
    (2, "inspect fifo.onnx", "fifo.onnx is a pipe, not a file"),
    (2, "inspect folder.onnx", "folder.onnx is a folder, not a file"),
    (2, "inspect loop.onnx", "Too many levels of symbolic links"),
    (2, "export ckpt.pth -o fifo.onnx --force", "fifo.onnx is a device, a pipe or a socket"),
    (2, "export ckpt.pth -o loop.onnx --force", "loop.onnx is a symbolic link"),
    (2, "export ckpt.pth -o x.onnx --class-names /dev/zero", "/dev/zero is a device, not a file"),
    (2, "eval ckpt.onnx --data fifo.onnx", "cannot recognise fifo.onnx"),
    (2, "bench --compare fifo.onnx deep.json", "fifo.onnx is a pipe, not a file"),
    (2, "package ckpt.onnx --triton fifo.onnx", "cannot make the folder"),
    (4, "predict ckpt.onnx fifo.onnx", "fifo.onnx is a pipe, not a file"),
    # Engines without their record, or with one that is none
    (4, "predict p.engine i.png", "p.engine.json is missing"),
    (4, "verify ckpt.pth p.engine", "p.engine.json is missing"),
    (4, "refit p.engine ckpt.onnx -o y.engine", "p.engine.json is missing"),
    (4, "inspect q.engine", "runtime is 3, expected the name of a runtime"),
    (4, "package q.engine --triton t", "runtime is 3"),
    (4, "bench ckpt.onnx q.engine", "runtime is 3"),
    (4, "serve q.engine", "runtime is 3"),
]  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch, small_checkpoint, small_onnx):
    for name, content in {
        "ckpt.pth": small_checkpoint.read_bytes(),
        "ckpt.onnx": small_onnx.read_bytes(),
        "garbage.pth": b"garbage" * 9,
        "garbage.onnx": b"garbage" * 9,
        "empty.onnx": b"",
        "few.txt": b"ant\nbee\n",
        "nul.txt": b"i.png\na\0b.png\n",
        "bad.parquet": b"PAR1 and no more",
        "deep.json": b"[" * 100_000,
        "bad.tar": b"garbage" * 99,
        "few.tgz": b"garbage",
        "ones.txt": b"1\n2\n",
        "p.engine": b"a plan",
        "q.engine": b"a plan",
        "q.engine.json": b'{"runtime": 3}',
    }.items():
        (tmp_path / name).write_bytes(content)
    Image.new("RGB", (64, 64)).save(tmp_path / "i.png")
    os.mkfifo(tmp_path / "fifo.onnx")
    (tmp_path / "loop.onnx").symlink_to("loop.onnx")
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "classes" / "ant").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(tmp_path / "classes" / "ant" / "i.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("expected", "line", "part"), BAD, ids=[line for _, line, _ in BAD])
def test_bad_input_gets_its_exit_code_one_sentence_and_one_document(cli, place, expected, line, part):
    before = sorted(place.iterdir())
    code, out, err = cli(*shlex.split(line), "--json")
    last = err.splitlines()[-1]
    assert (code, part in last) == (expected, True), err
    assert last.startswith("Error: ")
    assert "Traceback" not in err
    assert json.loads(out) == {"error": {"code": expected, "message": last.removeprefix("Error: ")}}
    assert sorted(place.iterdir()) == before


COMMANDS = typer.main.get_command(app).commands
NUMBERS = [
    (command.name, *get_args(parameter.annotation)[1:])
    for command in app.registered_commands
    for parameter in inspect.signature(command.callback, eval_str=True).parameters.values()
    if get_args(parameter.annotation)[:1] in [(int,), (int | None,), (float,), (float | None,)]
]  # each with the option as Typer has it of an annotation, where its name is the default


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_json_and_answers_in_it_where_it_cannot_be_read(cli, command):
    assert any("--json" in parameter.opts for parameter in COMMANDS[command].params)
    for line in (
        (command, "--json", "--fast"),
        (command, "--json", ""),
        ("-v", command, "--json", "a", "b", "--thread"),
    ):
        code, out, err = cli(*line)
        assert code == 2
        assert json.loads(out) == {"error": {"code": 2, "message": err.splitlines()[-1].removeprefix("Error: ")}}


@pytest.mark.parametrize(("command", "number"), NUMBERS, ids=[f"{name} {number.default}" for name, number in NUMBERS])
def test_no_number_takes_what_is_none_or_beyond_its_range(cli, command, number):
    option = number.default
    for value in ("²", "9" * 5000, "-1", "nan", "inf", "1_0", *(["1e20"] if number.max else [])):
        code, out, err = cli(command, f"{option}={value}")
        assert (code, out) == (2, ""), (value, err)
        assert err.startswith(f"Error: {option} is '{value[:50]}")
        assert "expected a" in err
        assert len(err) < 200


@pytest.mark.parametrize("values", [{"threads": 100_000}, {"threads": 0}, {"threads": True}, {"threads": 1.5}])
def test_engine_options_have_the_same_range(values):
    with pytest.raises(UsageError, match="threads is .*, expected a whole number from 1 to"):
        EngineOptions(**values)


def test_engine_options_know_precisions():
    with pytest.raises(UsageError, match="precision is 'fp17', expected one of fp32"):
        EngineOptions(precision="fp17")


def raising(error):
    def fails(*arguments):
        raise error

    return fails


UNFORESEEN = [
    (3, OSError(5, "Input/output error", "x.onnx"), "x.onnx: Input/output error"),
    (3, MemoryError("Unable to allocate 9 TiB"), "not enough memory for this (Unable to allocate 9 TiB)"),
    (4, RecursionError("too deep"), "RecursionError: too deep"),
    (4, UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), "UnicodeDecodeError"),
    (4, KeyError("weights\x1b[31m\nError: no"), r"KeyError: 'weights\x1b[31m\nError: no'"),
    (4, AssertionError(), "(AssertionError)"),
    (130, KeyboardInterrupt(), "interrupted"),
]


@pytest.mark.parametrize(("expected", "error", "part"), UNFORESEEN, ids=[type(each[1]).__name__ for each in UNFORESEEN])
def test_what_nobody_foresaw_is_one_sentence_too(cli, monkeypatch, expected, error, part):
    monkeypatch.setattr(describe, "describe", raising(error))
    code, out, err = cli("inspect", "x.onnx", "--json")
    assert (code, err.count("\n")) == (expected, 1)
    assert part in err
    assert json.loads(out)["error"] == {"code": expected, "message": err.strip().removeprefix("Error: ")}
    assert cli("inspect", "x.onnx")[:2] == (expected, "")


def test_verbose_shows_the_traceback_before_and_after_the_command(cli, monkeypatch):
    monkeypatch.setattr(describe, "describe", raising(KeyError("weights")))
    for line in (("-v", "inspect", "x"), ("inspect", "--verbose", "x"), ("inspect", "x", "-v")):
        code, _, err = cli(*line)
        assert code == 4
        assert "in fails" in err
        assert err.splitlines()[-1].startswith("Error: ")


def test_text_from_outside_is_escaped_on_the_terminal_and_whole_in_json(cli, monkeypatch):
    facts = {"name": "red \x1b[31m", "path": "folder \udcff", "class": "Käse 🐈 \u202e", "count": 1}
    monkeypatch.setattr(describe, "describe", lambda path: facts)
    _, out, _ = cli("inspect", "x")
    assert r"red \x1b[31m" in out
    assert r"folder \udcff" in out
    assert r"Käse 🐈 \u202e" in out
    _, out, _ = cli("inspect", "x", "--json")
    assert out.isascii()
    assert json.loads(out) == facts | {"path": r"folder \udcff"}


def test_a_table_shows_what_it_is_given(capsys):
    from rich.table import Table

    from evodeploy.cli.console import show

    table = Table("[bold]class[/]")
    table.add_row("[/b] :smile: \x1b[31m")
    show(table)
    out = capsys.readouterr().out
    assert "[bold]class[/]" in out
    assert r"[/b] :smile: \x1b[31m" in out


def test_not_a_number_is_no_json(cli, monkeypatch):
    monkeypatch.setattr(describe, "describe", lambda path: {"error": float("nan")})
    code, out, _ = cli("inspect", "x", "--json")
    assert code == 4
    assert json.loads(out)["error"]["code"] == 4


@pytest.mark.parametrize("options", [(), ("--json",)], ids=str)
def test_stdout_may_be_ascii(monkeypatch, options):
    monkeypatch.setattr(describe, "describe", lambda path: {"size": "224×224", "names": ["Käse", "🐈"]})
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    with pytest.raises(SystemExit) as ended:
        app(["inspect", "x", *options])
    assert not ended.value.code
    shown = stdout.buffer.getvalue().decode("ascii")
    assert (r"\u00d7" if options else r"224\xd7224") in shown


def code_with(monkeypatch, name, descriptor, line):
    """The exit code of the command line `line` where the stream called `name` writes to `descriptor`."""
    with os.fdopen(descriptor, "w") as stream:
        monkeypatch.setattr(sys, name, stream)
        with pytest.raises(SystemExit) as ended:
            app(line)
        monkeypatch.undo()
    return ended.value.code


@pytest.mark.parametrize("line", [("inspect", "x"), ("inspect", "x", "--json"), ("--help",)], ids=" ".join)
def test_a_reader_that_has_seen_enough_is_no_failure(monkeypatch, capfd, line):
    monkeypatch.setattr(describe, "describe", lambda path: {"count": 1})
    reader, writer = os.pipe()
    os.close(reader)
    assert code_with(monkeypatch, "stdout", writer, line) == 141
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_predictions_end_once_their_reader_has_gone(monkeypatch, tmp_path, options):
    """Also while the next one is computed."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    reader, writer = os.pipe()

    class Fake:
        def write(self, images, out, **options):
            os.close(reader)
            threading.Event().wait(60)
            raise AssertionError("computed to the end")

    monkeypatch.setattr(loading, "load", lambda *given, **named: contextlib.nullcontext(Fake()))
    assert code_with(monkeypatch, "stdout", writer, ["predict", "x.onnx", str(tmp_path / "a.png"), *options]) == 141
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN


def test_a_full_disk_under_stdout_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(describe, "describe", lambda path: {"count": 1})
    full = os.open("/dev/full", os.O_WRONLY)
    assert code_with(monkeypatch, "stdout", full, ["inspect", "x", "--json"]) == 3
    assert capsys.readouterr().err == "Error: cannot write to stdout: No space left on device\n"


def test_a_full_disk_under_stderr_leaves_the_document_on_stdout(monkeypatch, capsys):
    full = os.open("/dev/full", os.O_WRONLY)
    assert code_with(monkeypatch, "stderr", full, ["inspect", "nope.onnx", "--json"]) == 2
    assert "nope.onnx does not exist" in json.loads(capsys.readouterr().out)["error"]["message"]


SIGNALS = [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]


@pytest.mark.parametrize(("number", "code", "word"), SIGNALS)
def test_a_signal_ends_the_command_after_its_draft_is_removed(cli, tmp_path, monkeypatch, number, code, word):
    def stopped(path):
        with replacing(tmp_path / "x.json") as draft:
            draft.write_text("half")
            signal.raise_signal(number)

    before = signal.getsignal(number)
    monkeypatch.setattr(describe, "describe", stopped)
    assert cli("inspect", "x") == (code, "", f"Error: {word}\n")
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) is before


def test_a_signal_is_the_reason_whatever_it_was_turned_into(cli, monkeypatch):
    def translated(path):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:  # as native code and imports do
            raise UsageError("this needs torch") from error

    monkeypatch.setattr(describe, "describe", translated)
    assert cli("inspect", "x") == (130, "", "Error: interrupted\n")
