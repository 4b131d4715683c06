"""A deploy file: what it says is done, what is given explicitly comes first, and hostile ones are refused."""

from __future__ import annotations

import asyncio
import json
import shutil
from contextlib import closing

import numpy as np
import pytest
from PIL import Image
from versions import needs_bf16

import evodeploy
from evodeploy.artefacts import fingerprint
from evodeploy.benchmark import pipeline
from evodeploy.engines.deploy_file import DeployFile, artefact_of, read_deploy_file
from evodeploy.engines.onnxruntime_engine import OnnxRuntimeEngine
from evodeploy.errors import BadFileError, EvodeployError, InputError, UsageError
from evodeploy.files import sha256
from evodeploy.kinds import DEPLOY
from evodeploy.preprocess import as_input, random_pictures
from evodeploy.serving.backend import Asked
from evodeploy.serving.settings import Settings
from evodeploy.serving.worker import Worker, named, open_served
from evodeploy.specs import EngineOptions


@pytest.fixture
def deployed(small_onnx, tmp_path):
    """A deploy file with its artefact below its folder."""
    (tmp_path / "models").mkdir()
    onnx = tmp_path / "models" / "chosen.onnx"
    shutil.copy(small_onnx, onnx)
    measured = {"processor": 'a "fast"\x7f one', "images_per_second": 1e-7}
    stated = DeployFile(1, "models/chosen.onnx", sha256(onnx), "openvino", "bf16", measured=measured)
    path = tmp_path / "deploy.toml"
    path.write_text(stated.to_toml(), encoding="utf-8")
    return path


def test_a_deploy_file_is_read_as_it_was_written(deployed):
    stated = read_deploy_file(deployed)
    assert (stated.engine, stated.precision, stated.device, stated.tf32) == ("openvino", "bf16", None, None)
    assert stated.measured == {"processor": 'a "fast"\\x7f one', "images_per_second": 1e-7}
    assert DEPLOY.is_kind_of(deployed)
    assert artefact_of(deployed) == deployed.parent / "models" / "chosen.onnx"


@needs_bf16
def test_a_deploy_file_decides_what_the_caller_leaves_open(deployed, small_images):
    opened = []
    with evodeploy.load(str(deployed)) as predictor:
        assert predictor.engine.name == "openvino"
        opened.append(predictor.engine.run(small_images)["logits"])
    with evodeploy.open_engine(deployed, options=EngineOptions(precision="fp32")) as engine:
        opened.append(engine.run(small_images)["logits"])
    with evodeploy.open_engine(deployed.parent / "models/chosen.onnx", "openvino") as engine:
        assert np.array_equal(engine.run(small_images)["logits"], opened[1])
    assert not np.array_equal(*opened)  # BF16 rounds
    with pytest.raises(UsageError, match=r"deploy\.toml states precision, which the engine 'onnxruntime' has no"):
        evodeploy.open_engine(deployed, "onnxruntime")
    with pytest.raises(UsageError, match=r"deploy\.toml: the engine 'tensorrt' does not run .*chosen\.onnx"):
        evodeploy.open_engine(deployed, "tensorrt")


@pytest.fixture
def kept(small_elastic, tmp_path):
    """A function that writes a deploy file next to an elastic artefact, at a keep ratio."""
    shutil.copy(small_elastic, tmp_path / "elastic.onnx")

    def write(ratio, name="deploy.toml", engine="onnxruntime"):
        stated = DeployFile(1, "elastic.onnx", sha256(tmp_path / "elastic.onnx"), engine, keep_ratio=ratio)
        (tmp_path / name).write_text(stated.to_toml(), encoding="utf-8")
        assert read_deploy_file(tmp_path / name) == stated
        return tmp_path / name

    return write


@pytest.mark.parametrize(("ratio", "tokens"), [(0.3, (19, 19)), ((1.0, 0.2), (64, 12))])
def test_a_run_keeps_what_it_states_and_what_it_is_asked_for(cli, kept, small_elastic, small_images, ratio, tokens):
    path = kept(ratio)
    ratios = ratio if isinstance(ratio, tuple) else (ratio, ratio)
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with evodeploy.load(path) as predictor, evodeploy.open_engine(small_elastic, "onnxruntime") as engine:
        expected = engine.run(small_images, tokens)
        got = predictor.engine.run(small_images)
        assert got["selected_0"].shape == (3, tokens[0])
        assert np.array_equal(got["logits"], expected["logits"])
        assert np.array_equal(predictor.predict_logits(small_images), expected["logits"])
        assert predictor.info.keep_ratios == predictor.predict(picture).keep_ratios == ratios
        assert predictor.submit(picture).result().keep_ratios == ratios
        assert predictor.predict(picture, keep_ratio=0.5).keep_ratios == (0.5, 0.5)
    Image.fromarray(picture).save(path.parent / "a.png")
    for asked, answered in (((), list(ratios)), (("--keep-ratio", 0.5), [0.5, 0.5])):
        code, out, err = cli("predict", path, path.parent / "a.png", "--json", *asked)
        assert (code, err.count("Error")) == (0, 0), err
        assert json.loads(out)[0]["keep_ratios"] == answered


def test_a_fixed_keep_ratio_comes_before_the_one_it_states(kept, small_elastic, small_images):
    options = EngineOptions(fixed_keep=(0.5, 0.4))
    with (
        evodeploy.open_engine(kept(0.3, engine="openvino"), options=options) as engine,
        evodeploy.open_engine(small_elastic, "openvino", options) as expected,
    ):
        assert (engine.info.keep_ratios, engine.info.elastic) == ((0.5, 0.4), ())
        assert np.array_equal(engine.run(small_images)["logits"], expected.run(small_images)["logits"])


def test_a_service_keeps_what_it_states(kept):
    with open_served(Settings(kept((1.0, 0.2)))) as engine:
        settings = named(Settings(kept((1.0, 0.2))), engine)
        with closing(Worker(engine, settings, lambda *_: None)) as worker:
            images = as_input(random_pictures(engine.info, 2), engine.info)
            assert asyncio.run(worker.run(images, Asked())).keep_ratios == (1.0, 0.2)


def test_an_evaluation_is_at_what_it_states_or_at_what_is_asked_for(kept, small_images, monkeypatch):
    path, seen = kept(0.3), []
    for index in range(10):
        (path.parent / "data" / f"c{index}").mkdir(parents=True)
    Image.new("RGB", (70, 60), "teal").save(path.parent / "data" / "c0" / "0.png")
    run = OnnxRuntimeEngine._run
    monkeypatch.setattr(
        OnnxRuntimeEngine, "_run", lambda self, images, keep: seen.append(keep) or run(self, images, keep)
    )
    for ratio in (None, 0.5, (1.0, 0.2)):
        evodeploy.evaluate(path, path.parent / "data", keep_ratio=ratio, output=path.parent / "r.json", force=True)
    assert [*dict.fromkeys(seen)] == [(19, 19), (32, 32), (64, 12)]
    with pytest.raises(InputError, match="stage 0 cannot keep 3 of its 64 tokens"):
        evodeploy.evaluate(path, path.parent / "data", keep_ratio=0.05)


def test_a_bench_is_at_what_it_states_and_at_all_tokens(kept, monkeypatch):
    asked = []

    def row_specs_of(subject, *others):
        asked.append([str(each) for each in subject.keeps])
        raise UsageError("that is all to be seen")

    monkeypatch.setattr(pipeline, "row_specs_of", row_specs_of)
    paths = [kept(0.3), kept((1.0, 0.2), "other.toml")]
    for some, options in ((paths[:1], {}), (paths[1:], {}), (paths[:1], {"keeps": [0.5]})):
        with pytest.raises(UsageError, match="that is all"):
            evodeploy.bench(some, device="cpu", engines=["onnxruntime"], **options)
    assert asked == [["keep 0.3", "keep 1"], ["keep 1/0.2", "keep 1"], ["keep 0.5"]]


@pytest.mark.parametrize(
    ("ratio", "message"), [(0.05, "stage 0 cannot keep 3 of its 64"), ((0.5,) * 3, "3 keep ratios given, expected one")]
)
def test_a_keep_ratio_that_the_artefact_does_not_have_is_refused(kept, ratio, message):
    for opened in (evodeploy.load, evodeploy.open_engine):
        with pytest.raises(BadFileError, match=rf"deploy\.toml states a keep ratio that elastic\.onnx .*{message}"):
            opened(kept(ratio))
    with pytest.raises(EvodeployError, match=message):
        evodeploy.bench(kept(ratio), device="cpu")


def test_a_keep_ratio_of_a_static_artefact_is_refused(deployed):
    text = deployed.read_text().replace("bf16", "fp32")
    deployed.write_text(text.replace("[measured]", "keep_ratio = 0.5\n[measured]"))
    with pytest.raises(BadFileError, match=r"does not have: this artefact keeps a fixed share of tokens"):
        evodeploy.open_engine(deployed)
    with pytest.raises(InputError, match="this artefact keeps a fixed share of tokens"):
        evodeploy.bench(deployed, device="cpu")


@needs_bf16
def test_verify_judges_it_by_the_precision_that_it_states(deployed, small_onnx):
    for pair in ((small_onnx, deployed), (deployed, small_onnx)):
        assert evodeploy.verify(*pair, count=2).tolerance.reason.startswith("BF16")


def test_a_bench_compares_what_it_states_with_pytorch(deployed, monkeypatch):
    asked = []

    def row_specs_of(subject, engines, precisions, *others):
        asked.append((subject.onnx[0].name, engines, precisions))
        raise UsageError("that is all to be seen")

    monkeypatch.setattr(pipeline, "row_specs_of", row_specs_of)
    for options in ({}, {"engines": ["onnxruntime"], "precisions": ["fp32"]}):
        with pytest.raises(UsageError, match="that is all"):
            evodeploy.bench(deployed, device="cpu", **options)
    assert asked == [
        ("chosen.onnx", ("torch", "torch-compile", "openvino"), ("fp32", "bf16")),
        ("chosen.onnx", ["onnxruntime"], ["fp32"]),
    ]


def stating(deployed, name, line):
    """The deploy file under another name, with one more line."""
    path = deployed.with_name(name)
    path.write_text(deployed.read_text().replace("[measured]", f"{line}\n[measured]"))
    return path


def test_a_bench_runs_where_and_as_closely_as_it_states(deployed, monkeypatch):
    asked = []

    def row_specs_of(subject, engines, precisions, threads, builds, tf32, device):
        asked.append((builds.tf32, tf32, device))
        raise UsageError("that is all to be seen")

    monkeypatch.setattr(pipeline, "row_specs_of", row_specs_of)
    exact = stating(deployed, "exact.toml", 'tf32 = false\ndevice = "cpu"')
    for paths, options in (([deployed], {}), ([deployed, exact], {}), (exact, {"tf32": True, "device": "cuda:1"})):
        with pytest.raises(UsageError, match="that is all"):
            evodeploy.bench(paths, **options)
    assert asked == [(True, True, None), (False, False, "cpu"), (True, True, "cuda:1")]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("tf32 = false", "tf32 = true"), "state tf32 False and True, expected the same .*: choose it with --tf32"),
        (('device = "cpu"', 'device = "cuda:1"'), "state device cpu and cuda:1, expected the same .* with --device"),
    ],
)
def test_a_bench_of_files_that_state_different_things_is_refused(deployed, lines, message):
    paths = [stating(deployed, f"{index}.toml", line) for index, line in enumerate(lines)]
    with pytest.raises(UsageError, match=message):
        evodeploy.bench(paths)


def test_a_service_knows_its_artefact_by_its_checksum_too(deployed):
    names = [name for name, digest in fingerprint(deployed) if digest]
    assert names == ["deploy.toml", "models/chosen.onnx"]


def test_another_artefact_in_its_place_is_refused(deployed):
    onnx = artefact_of(deployed)
    onnx.write_bytes(onnx.read_bytes() + b"\x00")
    with pytest.raises(BadFileError, match=r"chosen\.onnx is not the file that .*deploy\.toml was written for"):
        evodeploy.open_engine(deployed)
    onnx.unlink()
    with pytest.raises(UsageError, match=r"chosen\.onnx does not exist"):
        evodeploy.open_engine(deployed)


FACTS = {"schema": 1, "artefact": "a.onnx", "sha256": "0" * 64, "engine": "openvino"}


def toml(**changes):
    facts = {**FACTS, **changes}
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in facts.items() if value is not None).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "codec can't decode"),
        (b"schema", "Expected '='"),
        (b"a = " + b"[" * 50_000, "recursion"),
        (b"a = " + b"1" * 50_000, "digit"),
        (b" " * 70_000, "expected at most 65536"),
        (b"schema = 1\n", "artefact is missing"),
        (toml(schema=2), "schema is 2"),
        (toml(artefact="/etc/passwd"), "expected a relative path below the file's folder"),
        (toml(artefact="../a.onnx"), "expected a relative path"),
        (toml(artefact="models/../../a.onnx"), "expected a relative path"),
        (toml(artefact="deploy.toml"), "cannot infer what deploy.toml is"),
        (toml(artefact=3), "artefact is 3"),
        (toml(sha256="0"), "expected a SHA-256"),
        (toml(engine=""), "expected text of 1 to 100"),
        (toml(precision="int8"), "expected fp32 or fp16 or bf16"),
        (toml(keep_ratio=0), "keep_ratio is 0, expected a number above 0, up to 1"),
        (toml(keep_ratio=1.5), "expected a number above 0, up to 1"),
        (toml(keep_ratio=True), "expected a number above 0, up to 1"),
        (toml(keep_ratio="0.5"), "expected a number above 0, up to 1"),
        (toml(keep_ratio=[]), "keep_ratio is a list of 0, expected a list of 1 to 64"),
        (toml(keep_ratio=[0.5] * 65), "expected a list of 1 to 64"),
        (toml(keep_ratio=[0.5, [0.5]]), "keep_ratio[1] is a list of 1, expected a number above 0"),
        (b"keep_ratio = nan\n" + toml(), "keep_ratio is nan"),
        (b"keep_ratio = [0.5, -inf]\n" + toml(), "keep_ratio[1] is -inf"),
        (b"keep_ratio = " + b"[" * 50_000, "recursion"),
        (toml(engin="openvino"), "this version does not know it"),
        (b"measured = nan\n" + toml(), "measured is nan"),
        (b"cuda_graph = 1979-05-27\n" + toml(), "cuda_graph is 1979-05-27"),
    ],
)
def test_a_hostile_file_is_refused(tmp_path, content, message):
    path = tmp_path / "deploy.toml"
    path.write_bytes(content)
    with pytest.raises(BadFileError, match="deploy.toml") as raised:
        evodeploy.open_engine(path)
    assert message.lower() in str(raised.value).lower()


def test_false_and_zero_are_written_and_read(tmp_path):
    stated = DeployFile(1, "a.onnx", "0" * 64, "onnxruntime-cuda", tf32=False, measured={"top1": 0.0})
    path = tmp_path / "deploy.toml"
    path.write_text(stated.to_toml(), encoding="utf-8")
    assert read_deploy_file(path) == stated


def test_inspect_says_how_a_deploy_file_runs_its_artefact(deployed, cli):
    code, out, _ = cli("inspect", deployed)
    assert code == 0 and "engine           openvino" in out and "intact           True" in out
    (deployed.parent / read_deploy_file(deployed).artefact).write_bytes(b"another")
    code, out, _ = cli("inspect", deployed)
    assert code == 0 and "is not the one that the deploy file was written for" in out
