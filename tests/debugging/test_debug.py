"""Faults that FP16 makes large are found at the node they begin at, and repaired; every figure is measured here."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from broken_networks import network, with_weight
from graphs import model_of, restated, value
from onnx import helper, numpy_helper
from versions import exact_layer_norm

import evodeploy
from evodeploy.engines.onnxruntime_engine import OnnxRuntimeEngine
from evodeploy.errors import InputError, UsageError
from evodeploy.graph.linear import linear_layers
from evodeploy.graph.nodes import node_name
from evodeploy.graph.precision import reduced_from_onnx
from evodeploy.graph.quantization import quantized_from_onnx
from evodeploy.onnx_files import info_of, read_onnx, write_onnx
from evodeploy.preprocess import as_input, random_pictures

# Each fault, the node it begins at, how large that node's own error is at least, and the nodes to keep.
FAULTS = {
    "outliers": (
        "blocks.1.mlp.fc1/MatMul", np.inf, {"blocks.1.mlp.fc1/MatMul", "blocks.1.mlp/Relu", "blocks.1.mlp.fc2/MatMul"},
    ),
    "epsilon": ("blocks.1.norm/LayerNormalization", 0.5, {"blocks.1.norm/LayerNormalization", "blocks.1/Add"}),
    "softmax": ("blocks.1.attn/Softmax", 0.2, {"blocks.1.attn/Softmax", "blocks.1.attn/Add"}),
}  # fmt: skip


def written(model, path):
    write_onnx(model, path)
    return path


def check_page(fault, report):
    """The row of docs/howto/debug.md on `fault` has the figures of `report`, which differ a little by processor."""
    page = (Path(__file__).parents[2] / "docs" / "howto" / "debug.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| {fault}: .+$", page, re.MULTILINE)[0].strip("| ").split(" | ")
    own = next(node.own for node in report.nodes if node.name == report.begins)
    assert row[1] == f"`{report.begins}`"
    figures = [np.inf if figure == "infinite" else float(figure) for figure in (row[2], row[3], row[5])]
    assert figures == pytest.approx([own, report.error, report.proposal.error], rel=0.3)
    assert row[4].startswith(f"{len(report.proposal.keep_fp32)} nodes")


@pytest.mark.parametrize("fault", ["outliers", pytest.param("epsilon", marks=exact_layer_norm), "softmax"])
def test_a_fault_is_found_and_repaired(fault, tmp_path):
    begins, own, kept = FAULTS[fault]
    full = written(network(fault), tmp_path / "full.onnx")
    report = evodeploy.debug(full, precision="fp16")
    assert not report.passed
    assert report.begins == begins
    nodes = {node.name: node for node in report.nodes}
    assert nodes[begins].own >= own
    assert all(node.own < 1e-3 for node in report.nodes if node.block == "blocks.0")
    assert set(report.proposal.keep_fp32) == kept
    assert report.proposal.minimal
    assert report.proposal.before == report.error
    check_page(fault, report)
    half = reduced_from_onnx(read_onnx(full), "fp16", report.proposal.keep_fp32).model
    again = evodeploy.debug(full, written(half, tmp_path / "half.onnx"))
    assert again.passed
    assert again.error == report.proposal.error < report.tolerance
    assert again.begins is again.proposal is None


def test_a_sound_network_passes_and_nothing_is_proposed(tmp_path):
    report = evodeploy.debug(written(network(), tmp_path / "full.onnx"), precision="fp16")
    assert report.passed
    assert report.begins is report.proposal is None
    assert report.only_in_reference == 0
    assert "no node adds more than the tolerance; most adds blocks." in str(report)
    assert [node.block for node in report.nodes] == ["blocks.0"] * 12 + ["blocks.1"] * 12 + ["head"]


def test_nodes_without_a_name_are_in_their_block(tmp_path):
    model = network()
    for node in model.graph.node:
        node.name = "" if node.op_type in ("Relu", "Add") else node.name
    report = evodeploy.debug(written(model, tmp_path / "full.onnx"), precision="fp16")
    assert [node.block for node in report.nodes] == ["blocks.0"] * 12 + ["blocks.1"] * 12 + ["head"]


def test_one_broken_weight_is_found_in_either_precision(tmp_path):
    full = written(network(), tmp_path / "full.onnx")
    broken = written(with_weight(network(), "blocks.1.fc1", 50), tmp_path / "broken.onnx")
    report = evodeploy.debug(full, broken)
    assert (report.begins, report.proposal) == ("blocks.1.mlp.fc1/MatMul", None)
    assert [node.name for node in report.nodes if node.own > 1e-6] == ["blocks.1.mlp.fc1/MatMul"]
    half = with_weight(reduced_from_onnx(network(), "fp16").model, "blocks.1.fc1_fp16", 50)
    report = evodeploy.debug(full, written(half, tmp_path / "half.onnx"))
    assert report.begins == "blocks.1.mlp.fc1/MatMul"
    assert report.proposal.keep_fp32 == ()  # the reference converts well: the file is what is wrong
    check_page("weight", report)
    assert "convert the reference to FP16 again: its error is 0.001" in str(report)


def test_a_weight_beyond_fp16_is_kept_with_its_node(tmp_path):
    full = network()
    for name, factor in (("blocks.1.fc1", 1e5), ("blocks.1.fc2", 1e-5)):
        tensor = next(each for each in full.graph.initializer if each.name == name)
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), name))
    report = evodeploy.debug(written(full, tmp_path / "full.onnx"), precision="fp16")
    assert report.proposal.keep_fp32[0] == "blocks.1.mlp.fc1/MatMul"
    assert report.proposal.error < report.tolerance


def test_onnx_runtime_hides_an_overflow_that_the_emulation_shows(tmp_path):
    """Otherwise FP16 could be compared as ONNX Runtime computes it."""
    nodes = [helper.make_node("MatMul", ["x", "a"], ["y"]), helper.make_node("MatMul", ["y", "b"], ["z"])]
    weights = {"a": np.float32([[300]]), "b": np.float32([[0.01]])}
    full = model_of(nodes, [value("x", ("batch", 1))], [value("z", ("batch", 1))], weights)
    half = written(reduced_from_onnx(full, "fp16").model, tmp_path / "half.onnx")
    with OnnxRuntimeEngine(half) as engine:
        assert engine.run(np.float32([[300]]))["z"] == pytest.approx(900, rel=1e-3)  # through 90000
    full.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float32([[60000]]), "a"))
    report = evodeploy.debug(written(full, tmp_path / "full.onnx"), precision="fp16", repair=False)
    assert report.begins == "y"
    assert report.error == np.inf


def test_a_selection_that_rounding_changes_is_counted_and_hides_nothing(tmp_path):
    """Two scores lie nearer to each other than FP16 resolves; what follows is compared with the same tokens."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["s"], "scores/MatMul"),
        helper.make_node("TopK", ["s", "k"], ["best", "chosen"], "TopK"),
        helper.make_node("GatherElements", ["x", "chosen"], ["kept"], "gather", axis=1),
        helper.make_node("Mul", ["kept", "two"], ["logits"], "last"),
    ]
    weight = np.eye(3, dtype=np.float32) + np.float32([[0, 0, 0], [0, 1e-4, 0], [0, 0, 0]])
    weights = {"w": weight, "k": np.array([1]), "two": np.float32([2])}
    full = model_of(nodes, [value("x", ("batch", 3))], [value("logits", ("batch", 1))], weights)
    swapped = onnx.ModelProto()
    swapped.CopyFrom(full)
    swapped.graph.initializer[0].CopyFrom(numpy_helper.from_array(-weight, "w"))
    report = evodeploy.debug(written(full, tmp_path / "a.onnx"), written(swapped, tmp_path / "b.onnx"), count=5)
    (flips,) = report.selections
    assert (flips.node, flips.kept, flips.flipped) == ("TopK", 1, (1, 1, 1, 1, 1))
    assert report.error == 0
    assert "selection TopK: 5 of 5 differ, on 5 of 5 images (0, 1, 2, 3, 4)" in str(report)


@exact_layer_norm
def test_parts_of_any_size_give_the_same_report(tmp_path):
    full = written(network("epsilon"), tmp_path / "full.onnx")
    whole, single = (evodeploy.debug(full, precision="bf16", budget=size, repair=False) for size in (1 << 30, 1))
    assert whole == single


def test_a_checkpoint_is_compared_with_what_was_exported_of_it(small_checkpoint, small_onnx, tmp_path, logged):
    half = written(reduced_from_onnx(read_onnx(small_onnx), "fp16").model, tmp_path / "half.onnx")
    report = evodeploy.debug(small_checkpoint, half, count=3)
    assert report.passed
    assert report.only_in_reference == 0
    assert [output.name for output in report.outputs] == ["logits"]
    assert {f"blocks.{index}" for index in range(6)} < {node.block for node in report.nodes}
    assert [(selection.node, selection.kept) for selection in report.selections] == [("TopK", 32), ("TopK_2", 32)]
    report.save(tmp_path / "errors.svg")
    assert (tmp_path / "errors.svg").read_text().count("<circle") == len(report.nodes) + 2


def test_eight_bits_are_compared_across_what_was_smoothed(small_onnx, tmp_path):
    full = read_onnx(small_onnx)
    images = as_input(random_pictures(info_of(full), 8), info_of(full))
    eighths = written(quantized_from_onnx(full, images).model, tmp_path / "int8.onnx")
    report = evodeploy.debug(small_onnx, eighths, repair=False)
    assert report.passed
    assert report.only_in_reference == 13  # the norms, whose outliers are in the weights behind them
    assert max(node.own for node in report.nodes) < 0.1


def test_the_command_prints_options_that_repair(tmp_path, cli):
    full = written(network("outliers"), tmp_path / "full.onnx")
    report = tmp_path / "report.json"
    code, out, err = cli("debug", full, "--precision", "fp16", "-o", report, "--picture", tmp_path / "errors.svg")
    assert (code, "is beyond the tolerance" in err) == (1, True)
    assert f"wrote {report}\nwrote {tmp_path / 'errors.svg'}\n" in err
    assert "it begins at blocks.1.mlp.fc1/MatMul" in out
    document = json.loads(report.read_text())
    assert document["error"] is None  # infinite
    assert document["proposal"]["error"] < 0.01
    options = shlex.split(out.splitlines()[-1])
    assert options == ["--fp16", *shlex.split(document["proposal"]["options"])]
    code, out, _ = cli("debug", full, "--precision", "fp16", *options[1:])
    assert (code, "within the tolerance" in out) == (0, True)
    code, _, err = cli("debug", full, "--precision", "fp16", "-o", report)
    assert (code, "already exists" in err) == (2, True)


def test_a_full_disk_does_not_lose_the_report(tmp_path, cli, monkeypatch):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    network_ = written(network(), tmp_path / "full.onnx")
    monkeypatch.setattr(Path, "touch", full)  # of every draft
    report, picture = tmp_path / "report.json", tmp_path / "errors.svg"
    code, out, err = cli("debug", network_, "--precision", "fp16", "-o", report, "--picture", picture, "--json")
    assert (code, json.loads(out)["passed"]) == (3, True)
    assert "cannot write" in err
    assert [path.name for path in tmp_path.iterdir()] == ["full.onnx"]


@pytest.mark.slow  # a quick one is test_the_command_prints_options_that_repair, in memory
def test_what_debug_proposes_meets_the_tolerance_in_the_exported_file(small_checkpoint, tmp_path):
    """The values of one attention are beyond FP16, and its projection takes that back: in FP32 nothing changes."""
    weights = torch.load(small_checkpoint, weights_only=False)
    for name, factor in (("vs.5.v.weight", 3e5), ("vs.5.v.bias", 3e5), ("projs.5.weight", 1 / 3e5)):
        weights["model"][name] *= factor
    checkpoint, asked = tmp_path / "wide.pth", {"count": 2}
    torch.save(weights, checkpoint)
    full = evodeploy.export(checkpoint, tmp_path / "full.onnx", verify=False).path
    report = evodeploy.debug(full, precision="fp16", **asked)
    assert report.error == np.inf
    kept = evodeploy.export(
        checkpoint, tmp_path / "kept.onnx", precision="fp16", keep_fp32=report.proposal.keep_fp32, verify=False
    )
    again = evodeploy.debug(full, kept.path, **asked)
    assert again.passed
    assert again.error == report.proposal.error


@pytest.mark.parametrize("tolerance", [0.03, 0])
def test_a_file_of_eight_bits_is_repaired_by_linear_layers(tolerance, tmp_path, logged):
    full, images = network(), np.random.default_rng(1).standard_normal((8, 8, 16)).astype(np.float32)
    eighths = written(quantized_from_onnx(full, images).model, tmp_path / "int8.onnx")
    report = evodeploy.debug(written(full, tmp_path / "full.onnx"), eighths, tolerance=tolerance)
    assert not report.passed
    if tolerance == 0:  # which no file meets that has a layer of 8 bits
        assert report.proposal is None
        assert any("nothing is proposed: " in line for line in logged)
        return
    assert report.proposal.error <= tolerance
    layers = {node_name(layer.node) for layer in linear_layers(full.graph)}
    assert 0 < len(report.proposal.keep_fp32) < len(layers)
    assert set(report.proposal.keep_fp32) < layers
    assert str(report).splitlines()[-1].startswith("  --int8 --keep-fp32 blocks.")


def test_nodes_of_a_reduced_reference_have_their_names(small_onnx, tmp_path, logged):
    half = written(reduced_from_onnx(read_onnx(small_onnx), "fp16").model, tmp_path / "half.onnx")
    forth, back = evodeploy.debug(small_onnx, half), evodeploy.debug(half, small_onnx)
    inside = [[node.name for node in report.nodes if node.block.startswith("blocks.")] for report in (forth, back)]
    assert inside[0] == inside[1]
    assert back.passed  # by FP16's tolerance, as in the other order
    assert back.tolerance == forth.tolerance == 0.01
    assert any("the reference is in FP16" in line for line in logged)


def test_values_of_one_name_that_other_nodes_make_are_not_compared(tmp_path):
    full, other = network(), network()
    (first,) = (node for node in other.graph.node if node.name == "blocks.1.attn.q/MatMul")
    (second,) = (node for node in other.graph.node if node.name == "blocks.1.attn.k/MatMul")
    first.name, second.name = second.name, first.name
    report = evodeploy.debug(written(full, tmp_path / "a.onnx"), written(other, tmp_path / "b.onnx"))
    assert report.only_in_reference == 2
    assert not {first.name, second.name} & {node.name for node in report.nodes}


def test_networks_that_treat_tokens_differently_are_not_compared(small_onnx, tmp_path):
    """Their values have other shapes behind the first selection."""
    merging = restated(small_onnx, tmp_path / "merging.onnx", fast_path="merge")
    with pytest.raises(UsageError, match="the fast path of the reference is rest and of the other merge"):
        evodeploy.debug(small_onnx, merging)


def test_batches_that_differ_are_refused_and_one_fixed_is_taken_by_both(small_onnx, tmp_path):
    fixed = {}
    for size in (2, 3):
        model = read_onnx(small_onnx)
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
        fixed[size] = written(model, tmp_path / f"{size}.onnx")
    assert evodeploy.debug(small_onnx, fixed[2], count=3).passed
    with pytest.raises(UsageError, match="the reference takes batches of 2 and the other of 3"):
        evodeploy.debug(fixed[2], fixed[3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give either an ONNX file to compare, or --precision"),
        ({"other": "b.onnx", "precision": "fp16"}, "give either an ONNX file"),
        ({"other": "b.onnx", "keep_fp32": ["Softmax"]}, "--keep-fp32 is for the conversion"),
        ({"precision": "fp16", "images": "pictures"}, "metadata: .*; leave the images out"),
        ({"precision": "fp16", "keep_ratio": 0.5}, "neither model is elastic"),
        ({"precision": "fp16", "keep_fp32": ["Conv"]}, "no node of the ONNX has the name or operator type 'Conv'"),
        ({"other": "c.onnx"}, "the reference takes x and the other images"),
        ({"other": "full.engine"}, "is not an ONNX file"),
        ({"reference": "half.onnx", "precision": "fp16"}, "holds FP16 weights already: give the FP32 file"),
    ],
)
def test_what_cannot_be_compared_is_refused(arguments, message, tmp_path, monkeypatch, small_onnx):
    monkeypatch.chdir(tmp_path)
    write_onnx(network(), tmp_path / "full.onnx")
    if arguments.get("reference") == "half.onnx":
        write_onnx(reduced_from_onnx(network(), "fp16").model, tmp_path / "half.onnx")
    if arguments.get("other") == "c.onnx":
        write_onnx(read_onnx(small_onnx), tmp_path / "c.onnx")
    with pytest.raises(UsageError, match=message):
        evodeploy.debug(**{"reference": "full.onnx", **arguments})


def test_what_fills_up_a_fixed_batch_does_not_count(small_onnx, tmp_path):
    fixed = read_onnx(small_onnx)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    report = evodeploy.debug(written(fixed, tmp_path / "fixed.onnx"), precision="fp16", count=6)
    assert (report.images, len(report.outputs[0].images)) == (6, 6)
    assert [len(selection.flipped) for selection in report.selections] == [6, 6]


def test_an_elastic_file_is_compared_at_a_ratio(small_elastic):
    report = evodeploy.debug(small_elastic, precision="fp16", keep_ratio=0.25, count=2)
    assert report.passed
    assert report.selections[0].kept == 16
    with pytest.raises(InputError):
        evodeploy.debug(small_elastic, precision="fp16", keep_ratio=0.01)
