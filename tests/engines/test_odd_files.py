"""ONNX files that are valid and no network of images: one sentence from every runtime, which no terminal acts on."""

from __future__ import annotations

import json
import os

import numpy as np
import onnx
import pytest
from graphs import sharded, value, write_graph
from onnx import TensorProto, helper

from evodeploy.engines.opener import open_engine
from evodeploy.errors import BadFileError, EvodeployError, RuntimeFailedError, UsageError
from evodeploy.onnx_files import input_spec, output_specs, read_onnx
from evodeploy.specs import METADATA_KEY

RUNTIMES = ["onnxruntime", "openvino"]


def same(source="x", target="y"):
    return [helper.make_node("Identity", [source], [target])]


ONES = {"w": np.ones(3, np.float32)}
ODD = {
    "of nothing": ([], [], []),
    "without inputs": (same("w"), [], [value("y", [3])], ONES),
    "of a scalar": (same(), [value("x", [])], [value("y", [])]),
    "of text": (same(), [value("x", kind=TensorProto.STRING)], [value("y", kind=TensorProto.STRING)]),
    "of two inputs": ([helper.make_node("Add", ["x", "z"], ["y"])], [value("x"), value("z")], [value("y")]),
    "of an unknown shape": (same(), [value("x", None)], [value("y", None)]),
    "of a sequence": (
        [helper.make_node("SequenceLength", ["x"], ["y"])],
        [helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, [None, 3])],
        [value("y", [], TensorProto.INT64)],
    ),
    "of a steered terminal": (
        [helper.make_node("Bad\x1b[2J\u202e", ["x"], ["y\x07"])], [value("x")], [value("y\x07")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("kind", ODD)
def test_a_file_that_maps_no_images_is_refused_in_one_clean_line(tmp_path, runtime, kind):
    path = write_graph(tmp_path / "x.onnx", *ODD[kind])
    with pytest.raises(BadFileError, match=r"x\.onnx") as raised:
        open_engine(path, runtime)
    assert str(raised.value).isprintable()


def test_a_tensor_s_name_that_no_record_takes_is_refused(tmp_path):
    name = "y" * 301
    path = write_graph(tmp_path / "x.onnx", [helper.make_node("Identity", ["x"], [name])], [value("x")], [value(name)])
    with pytest.raises(BadFileError, match=r"'y{39}…', has a name of 301 characters, expected 1 to 300"):
        output_specs(read_onnx(path))


@pytest.mark.parametrize("kind", ODD)
def test_what_reads_onnx_without_a_runtime_says_it_in_one_clean_line_too(tmp_path, kind):
    path = write_graph(tmp_path / "x.onnx", *ODD[kind])
    try:
        input_spec(read_onnx(path))
    except EvodeployError as error:
        assert str(error).isprintable()
    else:
        assert kind in ("of a scalar", "of text")  # one input it is: the runtimes refuse it


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_external_data_in_a_pipe_is_refused_without_waiting_for_it(tmp_path, runtime):
    path = write_graph(tmp_path / "x.onnx", same("w"), [value("x")], [value("y", [3])], ONES)
    model = onnx.load(path)
    weights = model.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="weights.bin")
    path.write_bytes(model.SerializeToString())
    os.mkfifo(tmp_path / "weights.bin")
    for opened in (lambda: open_engine(path, runtime), lambda: read_onnx(path)):
        with pytest.raises(BadFileError) as raised:
            opened()
        assert str(raised.value).isprintable()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_pipe_in_place_of_the_file_is_refused_without_waiting_for_it(tmp_path, runtime):
    os.mkfifo(tmp_path / "x.onnx")
    for opened in (lambda: open_engine(tmp_path / "x.onnx", runtime), lambda: read_onnx(tmp_path / "x.onnx")):
        with pytest.raises(UsageError, match=r"x\.onnx is a pipe, not a file"):
            opened()


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"image_size": 32},
            r"takes images float32 \(batch, 3, 64, 64\), but .* says images float32 \(batch, 3, 32, 32\)",
        ),
        ({"input_format": "uint8"}, r"takes .*, but evodeploy's metadata in it says images uint8 \(batch, 64, 64, 3\)"),
        ({"num_classes": 9}, "gives 10 classes, but evodeploy's metadata in it says 9: export the model again"),
        ({"top_k": 5}, "gives 10 classes, but evodeploy's metadata in it says 5"),
    ],
)
def test_metadata_of_another_network_is_refused_before_it_runs(tmp_path, small_onnx, runtime, changes, sentence):
    path = with_metadata(small_onnx, tmp_path / "x.onnx", **changes)
    with pytest.raises(BadFileError, match=rf"x\.onnx {sentence}"):
        open_engine(path, runtime)


def with_metadata(source, path, **changes):
    model = onnx.load(source)
    entry = next(each for each in model.metadata_props if each.key == METADATA_KEY)
    entry.value = json.dumps(json.loads(entry.value) | changes)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_wrong_metadata_is_refused_by_whatever_opens_the_file(tmp_path, small_onnx, runtime):
    path = with_metadata(small_onnx, tmp_path / "x.onnx", image_size="224")
    for opened in (lambda: open_engine(path, runtime), lambda: read_onnx(path)):
        with pytest.raises(
            BadFileError, match=r'x\.onnx: .* image_size is "224", expected a whole number from 1 to 4096'
        ):
            opened()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_file_whose_name_is_not_utf8_is_opened(tmp_path, small_onnx, small_images, runtime):
    path = tmp_path / os.fsdecode(b"latin-\xe9.onnx")
    path.write_bytes(small_onnx.read_bytes())
    with open_engine(path, runtime) as engine:
        assert engine.run(small_images)["logits"].shape == (3, 10)
    assert read_onnx(path).graph.node


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_node_that_fails_in_a_run_steers_no_terminal(tmp_path, capfd, runtime):
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"], name="n\x1b]0;PWN\x07")]
    path = write_graph(tmp_path / "x.onnx", nodes, [value("x")], [value("y", [None, 7])], {"s": np.int64([7, 7])})
    with open_engine(path, runtime) as engine, pytest.raises(RuntimeFailedError) as raised:
        engine.run(np.zeros((2, 3), np.float32))
    assert str(raised.value).isprintable()
    assert "\x1b" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("shape", [[], [1]])
def test_an_output_that_is_not_of_each_image_is_computed(tmp_path, runtime, shape):
    summed = helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0)
    nodes = [*same(), summed, helper.make_node("Reshape", ["sum", "s"], ["all"])]
    weights = {"s": np.array(shape, np.int64)}
    path = write_graph(tmp_path / "x.onnx", nodes, [value("x")], [value("y"), value("all", shape)], weights)
    with open_engine(path, runtime) as engine:
        for count in (2, 3):
            outputs = engine.run(np.ones((count, 3), np.float32))
            np.testing.assert_array_equal(outputs["y"], np.ones((count, 3)))
            np.testing.assert_array_equal(outputs["all"], np.full(shape, 3 * count))


def test_weights_beyond_what_protobuf_writes_are_refused_by_their_size(small_onnx, tmp_path, monkeypatch):
    """2 GiB, set to 1000 bytes here."""
    path, _ = sharded(small_onnx, tmp_path)
    monkeypatch.setattr("evodeploy.onnx_files.LARGEST", 1000)
    with pytest.raises(BadFileError, match=r"GB of weights, expected 0.00 GB at most: a larger graph can neither be"):
        read_onnx(path)
