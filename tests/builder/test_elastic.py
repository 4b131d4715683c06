"""Engines whose numbers of kept tokens each run chooses, built for real with TensorRT for RTX."""

from __future__ import annotations

import pytest
from cuda_shim.plans import write_elastic
from onnx import TensorProto, helper

from evodeploy.builder.pipeline import build
from evodeploy.elastic import ElasticStage
from evodeploy.engines.tensorrt.sidecar import read_sidecar
from evodeploy.errors import BadFileError
from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.inspection.describe import describe
from evodeploy.inspection.program import read_program
from evodeploy.models.loaded import with_elastic
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import ZOO
from evodeploy.onnx_files import read_onnx, write_onnx

SM89 = {"runtime": "tensorrt-rtx", "targets": "sm89"}
BOUNDS = "6 to 64 (best at 32), 6 to 64 (best at 16)"


@pytest.fixture
def elastic_onnx(tmp_path):
    return write_elastic(tmp_path / "elastic.onnx")


def changed(path, change):
    """The network `path`, changed in place."""
    model = read_onnx(path)
    change(model.graph)
    write_onnx(model, path)
    return path


def test_an_elastic_engine_has_its_bounds_in_every_profile_and_in_its_record(elastic_onnx, logged):
    """The builder refuses a profile without them: no error says that each has them."""
    built = build(elastic_onnx, profiles=((1, 1, 1), (2, 4, 8)), **SM89)
    record = read_sidecar(built.path)
    assert [str(spec) for spec in record.inputs] == ["images float32 (batch, 3, 64, 64)", "keep int64 (2)"]
    assert [str(spec) for spec in record.outputs] == ["logits float32 (batch, 2)", "selected_0 int64 (batch, kept)"]
    assert record.model.elastic == (ElasticStage(64, 6, 64), ElasticStage(64, 6, 64))
    facts = describe(built.path)
    assert facts["elastic"] == [{"tokens": 64, "low": 6, "high": 64}] * 2
    assert facts["inputs"][1] == "keep int64 (2)"
    assert not [line for line in logged if "Int64 binding" in line]


def test_a_dry_run_says_how_many_tokens_may_be_kept(elastic_onnx):
    planned = build(elastic_onnx, dry_run=True, **SM89)
    assert f"\n  elastic: {BOUNDS} tokens kept\n" in str(planned)
    assert planned.to_dict()["keep"] == {"min": (6, 6), "opt": (32, 16), "max": (64, 64)}
    assert not planned.path.exists()


def test_a_number_that_decides_no_size_is_refused(elastic_onnx):
    def computed(graph):
        """`keep` is a number to compute with: what the stages keep is written into the graph."""
        for name in ("k_0", "k_1"):
            graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [1], [8]))
        kept = [node for node in graph.node if node.op_type != "Gather"]
        del graph.node[:]
        graph.node.extend(kept)
        concat = next(node for node in graph.node if node.op_type == "Concat")
        concat.output[0] = "sums"
        graph.node.append(helper.make_node("Cast", ["keep"], ["number"], to=TensorProto.FLOAT))
        graph.node.append(helper.make_node("Add", ["sums", "number"], ["logits"]))

    with pytest.raises(BadFileError, match=r"cannot build elastic.onnx: its input 'keep' does not determine"):
        build(changed(elastic_onnx, computed), **SM89)


def test_an_output_that_is_longer_than_the_tokens_is_refused(elastic_onnx):
    def squared(graph):
        """An output of K by K."""
        graph.node.append(helper.make_node("Unsqueeze", ["values_0", "axis"], ["row"]))
        graph.node.append(helper.make_node("MatMul", ["column", "row"], ["products"]))
        graph.initializer.append(helper.make_tensor("last", TensorProto.INT64, [1], [2]))
        graph.node.insert(len(graph.node) - 1, helper.make_node("Unsqueeze", ["values_0", "last"], ["column"]))
        graph.output.append(helper.make_tensor_value_info("products", TensorProto.FLOAT, ["batch", "kept", "kept"]))

    with pytest.raises(BadFileError, match=r"the length of output 'products' \(batch, \?, \?\) is not known"):
        build(changed(elastic_onnx, squared), **SM89)


def check_same_kernels(static, elastic, folder):
    """The elastic engine launches as many kernels of each kind, in as much memory but for that of all tokens."""
    records, programs = [], []
    for onnx in (static, elastic):
        output = folder / f"{onnx.stem}.engine"
        built = build(onnx, output, precision="fp16", min_batch=1, opt_batch=32, max_batch=64, **SM89)
        records.append(built.record)
        programs.append(read_program(built.path))
    static_program, elastic_program = programs
    assert elastic_program.kernels == static_program.kernels
    assert elastic_program.attentions == records[1].attentions == records[0].attentions
    assert elastic_program.attentions == static_program.attentions
    assert records[1].activation_bytes <= 1.05 * records[0].activation_bytes


def test_an_elastic_engine_costs_no_kernel(small_onnx, small_elastic, tmp_path):
    check_same_kernels(small_onnx, small_elastic, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["evo_deit_small_patch16_224", "EvoLeViT_128S"])
def test_an_elastic_engine_of_a_whole_model_costs_no_kernel(name, tmp_path):
    """Evo-DeiT-S: 109 kernels, 12 attentions. Evo-LeViT-128S: 118 and 11, see tests/exporter/test_engine_graph.py."""
    model = random_model(ZOO[name])
    paths = tmp_path / "static.onnx", tmp_path / "elastic.onnx"
    for path, each in zip(paths, (model, with_elastic(model, (0.1, 1.0))), strict=True):
        write_onnx(onnx_from_model(each), path)
    check_same_kernels(*paths, tmp_path)
