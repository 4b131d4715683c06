"""Graphs that take uint8 images or rank their classes: the same network with less data to transfer."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import evodeploy
from evodeploy.builder.engine import build_engine
from evodeploy.builder.request import BuildRequest
from evodeploy.engines.opener import open_engine
from evodeploy.errors import UsageError
from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.graph.precision import reduced_from_onnx
from evodeploy.models.loaded import with_interface
from evodeploy.onnx_files import read_onnx, write_onnx
from evodeploy.preprocess import as_input, random_pictures

FORMATS = ("float32", "uint8", "uint8-nchw")


@pytest.fixture(scope="module")
def files(small, tmp_path_factory):
    """The small model exported with each input format, and once with uint8 input and the three best classes."""
    folder = tmp_path_factory.mktemp("interface")
    paths = {name: folder / f"{name}.onnx" for name in (*FORMATS, "ranked")}
    for name, path in paths.items():
        model = with_interface(small, "uint8" if name == "ranked" else name, 3 if name == "ranked" else None)
        write_onnx(onnx_from_model(model, tokens=True), path)
    return paths


@pytest.fixture(scope="module")
def pictures(small):
    return random_pictures(small.info, 5)


def outputs(path, pictures, runtime):
    with open_engine(path, runtime) as engine:
        return engine.run(as_input(pictures, engine.info))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_bytes_and_floats_give_the_same_outputs(files, pictures, runtime):
    floats, *others = (outputs(files[name], pictures, runtime) for name in FORMATS)
    for bytes_in in others:
        np.testing.assert_allclose(bytes_in["logits"], floats["logits"], atol=2e-6)
        for name in ("selected_0", "selected_1"):
            np.testing.assert_array_equal(np.sort(bytes_in[name]), np.sort(floats[name]))


def test_inputs_describe_their_format(files):
    shapes = {}
    for name in FORMATS:
        with open_engine(files[name], "onnxruntime") as engine:
            shapes[name] = str(engine.inputs[0])
    assert shapes == {
        "float32": "images float32 (batch, 3, 64, 64)",
        "uint8": "images uint8 (batch, 64, 64, 3)",
        "uint8-nchw": "images uint8 (batch, 3, 64, 64)",
    }


def test_ranked_classes_are_the_most_probable_ones(files, pictures):
    logits = outputs(files["float32"], pictures, "onnxruntime")["logits"].astype(np.float64)
    ranked = outputs(files["ranked"], pictures, "onnxruntime")
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_array_equal(ranked["classes"], np.argsort(-probabilities, axis=1)[:, :3])
    np.testing.assert_allclose(ranked["probabilities"], -np.sort(-probabilities, axis=1)[:, :3], atol=1e-6)
    assert ranked["classes"].dtype == np.int64
    assert list(ranked) == ["probabilities", "classes", "selected_0", "selected_1", "scores_0", "scores_1"]


def test_a_predictor_sees_no_difference(files):
    generator = np.random.default_rng(1)
    images = [Image.fromarray(generator.integers(0, 256, (80, 70, 3), np.uint8)) for _ in range(4)]
    with evodeploy.load(files["float32"]) as floats, evodeploy.load(files["ranked"]) as ranked:
        for plain, other in zip(floats.predict(images, top=3), ranked.predict(images, top=3), strict=True):
            assert [label.index for label in plain.labels] == [label.index for label in other.labels]
            assert [label.probability for label in other.labels] == pytest.approx(
                [label.probability for label in plain.labels], abs=1e-6
            )
            assert [set(kept) for kept in plain.kept] == [set(kept) for kept in other.kept]


def test_fp16_begins_after_the_normalisation(files, pictures):
    reduced = reduced_from_onnx(read_onnx(files["uint8"]), "fp16")
    normalising = [name for name, reason in reduced.kept.items() if reason.endswith("normalises the images")]
    assert len(normalising) == 4
    path = files["uint8"].with_name("half.onnx")
    write_onnx(reduced.model, path)
    expected = outputs(files["float32"], pictures, "onnxruntime")["logits"]
    got = outputs(path, pictures, "onnxruntime")["logits"]
    assert np.abs(got - expected).max() < 1e-2 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["uint8", "uint8-nchw", "ranked"])
def test_engines_build(files, name, tmp_path):
    request = BuildRequest(files[name], tmp_path / "x.engine", "fp16", runtime="tensorrt-rtx", targets=("sm89",))
    record = build_engine(request)
    assert record.inputs[0].dtype == "uint8"
    assert record.model.input_format == ("uint8" if name == "ranked" else name)
    assert record.outputs[0].name == ("probabilities" if name == "ranked" else "logits")


@pytest.mark.parametrize("count", [0, 11, -1])
def test_a_number_of_classes_that_a_model_does_not_have_is_refused(small, count):
    with pytest.raises(UsageError, match=f"the top {count} of 10 classes cannot be given: expected 1 to 10"):
        with_interface(small, "float32", count)


def test_from_the_command_line_to_agreement(cli, small_checkpoint, tmp_path):
    path = tmp_path / "m.onnx"
    options = ["--input", "uint8", "--top-k", 3, "--tokens"]
    code, out, err = cli("export", small_checkpoint, "-o", path, *options)
    assert code == 0, err
    assert "classes, the same classes" in err
    code, out, err = cli("inspect", path, "--json")
    assert (json.loads(out)["input"], json.loads(out)["top_k"]) == ("uint8", 3)
    code, out, err = cli("export", small_checkpoint, "-o", tmp_path / "h.onnx", *options, "--fp16")
    assert code == 0, err
    code, out, err = cli("verify", small_checkpoint, tmp_path / "h.onnx", "--json")
    assert code == 0, out + err
    code, out, err = cli("verify", path, tmp_path / "h.onnx")
    assert code == 0, out + err
    assert cli("export", small_checkpoint, "-o", tmp_path / "plain.onnx", "--tokens")[0] == 0
    code, out, err = cli("verify", tmp_path / "plain.onnx", path)
    assert code == 2
    assert "are different models: top k None and 3" in err
