"""The commands as they are typed, with their exit codes and what they leave in the folder."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from data_kinds import listing
from PIL import Image

from evodeploy.cli import batch, build, console


@pytest.fixture
def folder(tmp_path, monkeypatch, small_checkpoint):
    (tmp_path / "ckpt.pth").write_bytes(small_checkpoint.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def with_onnx(folder, small_onnx):
    (folder / "ckpt.onnx").write_bytes(small_onnx.read_bytes())
    return folder


def test_the_sequence_of_the_mission_typed_in_one_folder(cli, folder):
    code, out, err = cli("export", "ckpt.pth")
    assert code == 0
    assert out.splitlines()[0].startswith("ckpt.onnx  ")
    assert "all 3 checks passed" in out
    assert "next: evodeploy build-engine ckpt.onnx --fp16" in out
    assert err.count("  ok   batch") == 3
    code, out, err = cli("build-engine", "--fp16")
    assert code == 0
    assert "using ckpt.onnx, the newest ONNX file in this folder" in err
    assert "building for every target" in err
    assert "fp16 for sm75, sm80, sm86, sm89, sm120, sm121, batch 1 to 128 (best at 32)" in out
    code, out, err = cli("bench", "--engines", "torch,onnxruntime,tensorrt", "--precisions", "fp32", "--batch", "2",
                         "--seconds", "0", "--rounds", "6")  # fmt: skip
    assert code == 0
    assert "using ckpt.pth, ckpt.onnx, ckpt.engine, the newest export in this folder" in err
    rows = [tuple(line.split()[:4]) for line in out.splitlines() if line.strip().startswith("2 ")]
    assert rows == [
        ("2", "torch", "fp32", "evo"), ("2", "onnxruntime", "fp32", "evo"), ("2", "tensorrt-rtx", "fp16", "evo"),
        ("2", "torch", "fp32", "dense"), ("2", "onnxruntime", "fp32", "dense"),
    ]  # fmt: skip
    assert "– tensorrt-rtx fp16 (evo): ckpt.engine is a tensorrt-rtx engine and runs on an NVIDIA GPU only" in out
    assert listing(folder) == ["ckpt.engine", "ckpt.engine.json", "ckpt.onnx", "ckpt.pth"]


def test_the_list_of_commands_has_a_whole_sentence_for_each(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = cli("--help")
    listed = out.partition("Commands:\n")[2].splitlines()
    assert len(listed) > 20
    assert [line for line in listed if line.endswith("...") or not line.endswith(".")] == []


def test_nothing_to_build_is_a_usage_error_with_the_command_that_helps(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("build-engine", "--fp16")
    assert (code, out) == (2, "")
    assert err == "Error: there is no ONNX file in this folder: `evodeploy export ckpt.pth` makes one\n"


@pytest.mark.slow
def test_with_nothing_there_bench_takes_random_weights(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ("--engines", "torch", "--batch", "1", "--seconds", "0", "--rounds", "6", "--json")
    code, out, err = cli("bench", "--model", "evo_deit_tiny_patch16_224", *options)
    assert code == 0
    assert "evo_deit_tiny_patch16_224 with random weights" in err
    document = json.loads(out)
    assert {(row["model"], row["precision"]) for row in document["results"]} >= {("evo", "fp32"), ("dense", "fp32")}
    assert listing(tmp_path) == []


def test_an_existing_output_is_kept_without_force(cli, with_onnx):
    before = (with_onnx / "ckpt.onnx").read_bytes()
    code, _, err = cli("export", "ckpt.pth")
    assert code == 2
    assert "ckpt.onnx already exists: pass --force" in err
    assert (with_onnx / "ckpt.onnx").read_bytes() == before
    code, _, _ = cli("export", "ckpt.pth", "--force", "--no-verify")
    assert code == 0
    assert (with_onnx / "ckpt.onnx").read_bytes() != before


def test_a_failed_verification_ends_with_1_and_leaves_nothing(cli, folder, monkeypatch):
    from evodeploy.compare import export as verify
    from evodeploy.compare.parity import Check

    wrong = Check("logits", 1, 0.5, 1e-4, "largest difference 5.0e-01")
    monkeypatch.setattr(verify, "verify_export", lambda model, path: iter([wrong]))
    code, out, err = cli("export", "ckpt.pth")
    assert (code, out) == (1, "")
    assert "FAIL batch 1: logits" in err
    assert "nothing was written" in err
    assert listing(folder) == ["ckpt.pth"]


def test_export_options_reach_the_file(cli, folder):
    code, out, _ = cli("export", "ckpt.pth", "-o", "other.onnx", "--keep-ratio", "0.75,0.25", "--selection", "layer",
                       "--tokens", "--batch", "2", "--json")  # fmt: skip
    assert code == 0
    document = json.loads(out)
    assert document["keep_ratios"] == [0.75, 0.25]
    assert {check["batch"] for check in document["checks"]} == {2}
    code, out, _ = cli("inspect", "other.onnx", "--json")
    facts = json.loads(out)
    assert facts["selection"] == "layer"
    kinds = [f"{kind}_{i}" for kind in ("selected", "scores") for i in range(4)]
    assert facts["outputs"] == ["logits", *kinds]


def test_export_in_reduced_precision(cli, folder):
    code, out, err = cli("export", "ckpt.pth", "--fp16", "--tokens")
    assert code == 0
    assert "converted to FP16" in err
    assert "next: evodeploy build-engine ckpt.fp16.onnx\n" in out
    assert json.loads(cli("inspect", "ckpt.fp16.onnx", "--json")[1])["precision"] == "fp16"
    assert cli("verify", "ckpt.pth", "ckpt.fp16.onnx")[0] == 0
    code, _, _ = cli("export", "ckpt.pth", "--bf16", "--opset", "23")
    assert code == 0
    assert json.loads(cli("inspect", "ckpt.bf16.onnx", "--json")[1])["precision"] == "bf16"
    code, _, err = cli("profile", "ckpt.bf16.onnx", "--runs", "1")
    assert (code, "cannot load ckpt.bf16.onnx: " in err, "The engine 'openvino' may run it" in err) == (4, True, True)
    assert cli("profile", "ckpt.bf16.onnx", "--runs", "1", "--engine", "openvino")[0] == 0
    assert listing(folder) == ["ckpt.bf16.onnx", "ckpt.fp16.onnx", "ckpt.pth"]


def test_activations_beyond_fp16_are_reported_not_saturated(cli, folder):
    content = torch.load("ckpt.pth", weights_only=False)
    content["model"]["blocks.1.mlp.fc2.bias"][3] = 6e4
    content["model"]["blocks.2.mlp.fc2.bias"][3] = 6e4
    torch.save(content, "large.pth")
    code, _, err = cli("export", "large.pth", "--fp16")
    assert code == 1
    assert "beyond FP16's 65504: use BF16 or FP32" in err
    assert listing(folder) == ["ckpt.pth", "large.pth"]


def test_activations_are_measured_on_the_images_given(cli, folder):
    Path("images").mkdir()
    for i in range(3):
        Image.new("RGB", (80, 70), (80 * i, 0, 200)).save(f"images/{i}.png")
    code, _, err = cli("export", "ckpt.pth", "--fp16", "--images", "images")
    assert code == 0
    assert re.search(r"largest activation: '\w+' reaches [\d.]+ on 3 images; FP16 holds 65504", err)
    code, _, err = cli("export", "ckpt.pth", "-o", "x.onnx", "--images", "images")
    assert code == 2
    assert "--images is for --int8, --fp8 and the range check of --fp16" in err


def test_int8_is_calibrated_on_the_images_given_and_goes_through_every_command(cli, folder):
    Path("images").mkdir()
    generator = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(generator.integers(0, 256, (70, 80, 3), np.uint8)).save(f"images/{i}.png")
    code, out, err = cli("export", "ckpt.pth", "--int8", "--tokens", "--images", "images", "--json")
    assert code == 0
    assert json.loads(out)["precision"] == "int8"
    assert "25 linear layers quantized to INT8, calibrated on 12 images; " in err
    assert json.loads(cli("inspect", "ckpt.int8.onnx", "--json")[1])["precision"] == "int8"
    assert cli("verify", "ckpt.pth", "ckpt.int8.onnx")[0] == 0
    code, out, _ = cli("build-engine", "ckpt.int8.onnx", "--target", "sm89")
    assert code == 0
    assert "int8 for sm89" in out
    engine = json.loads(cli("inspect", "ckpt.int8.engine", "--json")[1])
    assert engine["precision"] == "int8"
    parameters = json.loads(cli("inspect", "ckpt.pth", "--json")[1])["parameters"]
    assert engine["weights_bytes"] < 2 * parameters
    code, out, _ = cli("bench", "ckpt.pth", "ckpt.int8.onnx", "--engines", "torch,onnxruntime,openvino",
                       "--precisions", "fp32", "--batch", "2", "--seconds", "0", "--rounds", "6")  # fmt: skip
    assert code == 0
    assert re.search(r"onnxruntime +int8 +evo", out)
    assert re.search(r"openvino +int8 +evo", out)
    code, out, err = cli("build-engine", "ckpt.int8.onnx", "--fp16", "--target", "sm89", "--force")
    assert code == 0, err
    assert "int8, fp16 elsewhere, for sm89" in out
    engine = json.loads(cli("inspect", "ckpt.int8.engine", "--json")[1])
    assert (engine["precision"], engine["rest"]) == ("int8", "fp16")
    assert engine["attention_fused"] == "6 of 6"


def test_predict_names_classes(cli, with_onnx):
    rng = np.random.default_rng(0)
    for i in range(2):
        Image.fromarray(rng.integers(0, 256, (70, 80, 3), dtype=np.uint8)).save(f"{i}.png")
    code, out, _ = cli("predict", "ckpt.onnx", "0.png", "1.png", "--top", "3", "--json")
    assert code == 0
    predictions = json.loads(out)
    assert [p["image"] for p in predictions] == ["0.png", "1.png"]
    assert all(len(p["labels"]) == 3 for p in predictions)
    code, out, _ = cli("predict", "ckpt.pth", "0.png", "1.png", "--top", "3")
    assert code == 0
    for line, prediction in zip(out.splitlines(), predictions, strict=True):
        assert line.startswith(f"{prediction['image']}  {prediction['labels'][0]['name']} ")


@pytest.mark.parametrize("out", ["p.jsonl", "p.csv", "p.parquet"])
def test_predict_into_a_file_answers_with_one_document(cli, with_onnx, out):
    Path("\udcff").mkdir()  # a name that is not UTF-8
    Image.new("RGB", (70, 80)).save("\udcff/0.png")
    Path("broken.png").write_bytes(b"no picture")
    code, output, _ = cli("predict", "ckpt.onnx", "\udcff", "broken.png", "--output", out, "--json")
    assert code == 0
    answer = json.loads(output)
    assert (answer["output"], answer["images"], answer["predictions"]) == (out, 2, 1)
    assert len(answer["failures"]) == 1
    assert b"udcff" in Path(out).read_bytes()


def test_predict_from_a_plan_without_a_gpu_is_refused_with_3(cli, with_onnx):
    assert cli("build-engine", "--fp16", "--target", "sm89")[0] == 0
    Image.new("RGB", (64, 64)).save("i.png")
    code, _, err = cli("predict", "ckpt.engine", "i.png")
    assert code == 3
    assert err.count("\n") == 1
    assert "runs on an NVIDIA GPU only" in err


def test_inspect_says_what_files_are(cli, with_onnx):
    assert cli("build-engine", "--fp16", "--target", "sm86,sm89")[0] == 0
    facts = {name: json.loads(cli("inspect", name, "--json")[1]) for name in ("ckpt.pth", "ckpt.onnx", "ckpt.engine")}
    assert {f["model"] for f in facts.values()} == {"evo_deit_test"}
    assert facts["ckpt.pth"]["parameters"] > 200_000
    assert facts["ckpt.onnx"]["operators"]["TopK"] == 2
    assert facts["ckpt.engine"]["targets"] == ["sm86", "sm89"]
    assert facts["ckpt.engine"]["intact"] is True
    with (with_onnx / "ckpt.engine").open("ab") as file:
        file.write(b"x")
    code, out, _ = cli("inspect", "ckpt.engine")
    assert code == 0
    assert "differs from its record" in out


def test_init_writes_the_published_format_by_its_seed(cli, folder):
    code, out, _ = cli("init", "evo_deit_tiny_patch16_224", "-o", "a.pth", "--seed", "1")
    assert code == 0
    assert "next: evodeploy export a.pth" in out
    assert cli("init", "evo_deit_tiny_patch16_224", "-o", "b.pth", "--seed", "1")[0] == 0
    first, second = (torch.load(name, weights_only=False) for name in ("a.pth", "b.pth"))
    assert first["args"].model == "evo_deit_tiny_patch16_224"
    assert all(torch.equal(tensor, second["model"][name]) for name, tensor in first["model"].items())
    assert "qks.11.qk.weight" in first["model"]


def test_models_lists_the_zoo(cli):
    code, out, _ = cli("models", "--json")
    assert code == 0
    rows = {row["name"]: row for row in json.loads(out)}
    assert len(rows) == 15
    small = rows["evo_deit_small_patch16_224"]
    assert small["gflops"] < 0.7 * small["dense_gflops"]
    assert small["tokens_per_block"] == [196] * 4 + [98] * 8
    code, out, _ = cli("models")
    assert "4×196 8×98" in out


def test_doctor_shows_what_works(cli, monkeypatch):
    for name in ("pycuda", "tensorrt"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    code, out, _ = cli("doctor", "--json")
    assert code == 0
    found = {finding["name"]: finding for finding in json.loads(out)}
    assert found["onnxruntime"]["works"]
    assert "sm89" in found["tensorrt-rtx"]["detail"]
    assert not found["pycuda"]["works"] and 'pip install "evodeploy[cuda]"' in found["pycuda"]["detail"]
    assert not found["tensorrt"]["works"]
    assert 'pip install "evodeploy[tensorrt]"' in found["tensorrt"]["detail"]


@pytest.mark.parametrize(
    ("line", "extra"),
    [
        ("export ckpt.pth -o x.onnx", "evodeploy[export]"),
        ("init evo_deit_tiny_patch16_224 -o x.pth", "evodeploy[export]"),
        ("predict ckpt.onnx x.png", "evodeploy[cpu]"),
        ("build-engine ckpt.onnx --fp16", "evodeploy[tensorrt-rtx]"),
    ],
)
def test_a_missing_extra_is_named_with_its_install_line(with_onnx, line, extra):
    hide = "import sys; sys.modules.update(dict.fromkeys(['torch', 'onnxruntime', 'openvino', 'tensorrt_rtx']))\n"
    code = f"{hide}from evodeploy.cli import app\napp({line.split()})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 3
    assert run.stderr.count("\n") == 1, run.stderr
    assert f'pip install "{extra}"' in run.stderr


def test_an_interrupt_leaves_nothing_behind(monkeypatch, cli, folder):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("evodeploy.exporter.to_onnx.onnx_from_model", interrupted)
    assert cli("export", "ckpt.pth")[0] == 130
    assert listing(folder) == ["ckpt.pth"]


def test_the_package_runs_as_a_module():
    run = subprocess.run([sys.executable, "-m", "evodeploy", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("evodeploy 0.2.0")


def test_the_log_is_shown_once_although_the_root_logger_has_a_handler(capsys):
    root, handler = logging.getLogger(), logging.StreamHandler(sys.stderr)
    root.addHandler(handler)
    try:
        with console.logged():
            logging.getLogger("evodeploy.cli").warning("a default")
    finally:
        root.removeHandler(handler)
    assert capsys.readouterr().err == "warning: a default\n"
    assert logging.getLogger("evodeploy").propagate


@pytest.mark.parametrize("command", [batch, build])
@pytest.mark.parametrize(("level", "shown"), [(logging.INFO, True), (logging.WARNING, False)])
def test_a_terminal_gets_a_bar_unless_the_command_is_quiet(command, level, shown, monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr", terminal)
    with console.logged():
        console.set_level(level)
        with command._progress():
            pass
    assert bool(terminal.getvalue()) == shown
