"""Profiles of small networks: their structure, and never a time."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from graphs import value, write_graph
from onnx import helper
from sharing import in_threads

import evodeploy
from evodeploy.engines.deploy_file import SCHEMA, DeployFile
from evodeploy.errors import InputError, UsageError
from evodeploy.graph.parts import KINDS, part_of
from evodeploy.onnx_files import read_onnx
from evodeploy.profiling.onnxruntime_recorder import OnnxRuntimeRecorder, origins_of, runs_of
from evodeploy.profiling.pipeline import node_times
from evodeploy.profiling.record import NodeTime, Profile
from evodeploy.profiling.recording import Origins, Step, serving
from evodeploy.profiling.tensorrt_recorder import nodes_in
from evodeploy.schema import read_json_file
from evodeploy.specs import EngineOptions

ONE_THREAD = EngineOptions(threads=1)


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def found(request, small_onnx):
    return evodeploy.profile(small_onnx, engine=request.param, options=ONE_THREAD, batch=2, runs=3)


def test_every_node_of_the_graph_is_accounted_for_once(found, small_onnx):
    nodes = [node.name for node in read_onnx(small_onnx).graph.node]
    said = [name for node in found.nodes for name in node.made_of]
    assert sorted({*said, *found.unnamed}) == sorted(nodes)
    assert not {*said} & {*found.unnamed}
    softmax = [name for name in said if name.endswith("attn/Softmax")]
    assert sorted(softmax) == [f"blocks.{index}.attn/Softmax" for index in range(6)]


def test_a_profile_says_what_was_run(found, small_onnx):
    assert (found.path, found.device, found.batch, found.runs, found.keep_ratios) == (small_onnx, "cpu", 2, 3, ())
    assert found.whole > 0
    assert found.traced > 0
    assert all(node.seconds >= 0 and node.calls >= 1 for node in found.nodes)


def test_blocks_and_kinds_share_all_of_the_time(found):
    for groups in (found.kinds, found.blocks):
        assert sum(group.share for group in groups) == pytest.approx(1)
        assert sum(group.calls for group in groups) == sum(node.calls for node in found.nodes)
    assert {group.name for group in found.kinds} <= set(KINDS)
    assert {group.name for group in found.kinds} >= {"attention", "MLP", "normalisation", "selection", "embedding"}
    blocks = [group.name for group in found.blocks if group.name.startswith("blocks")]
    assert blocks == [f"blocks.{index}" for index in range(6)]
    assert {group.name for group in found.blocks} - set(blocks) <= {"embedding", "selection", "head", "normalisation"}


def test_the_document_is_plain_json_of_the_same_figures(found):
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["schema"] == 1
    assert len(document["nodes"]) == len(found.nodes)
    assert math.fsum(node["share"] for node in document["nodes"]) == pytest.approx(1)
    assert document["nodes_ms"] == pytest.approx(sum(kind["ms"] for kind in document["kinds"]))


def test_the_picture_is_as_wide_as_a_phone_and_has_a_box_for_each_node(found, tmp_path):
    found.save(tmp_path / "p.svg")
    root = ET.fromstring((tmp_path / "p.svg").read_text(encoding="utf-8"))
    boxes = root.findall("{*}rect[@class='cut']")
    titles = " ".join(title.text for box in boxes for title in box.findall("{*}title"))
    assert all(f"{node.name}, {node.kind}: " in titles for node in found.nodes)
    assert all(float(box.get("x")) + float(box.get("width")) <= 400 for box in boxes)
    found.save(tmp_path / "p.html")
    assert "<svg " in (tmp_path / "p.html").read_text(encoding="utf-8")
    found.save(tmp_path / "p.svg", force=True)
    with pytest.raises(UsageError, match="already exists"):
        found.save(tmp_path / "p.html")
    with pytest.raises(UsageError, match=r"expected a name that ends with \.json"):
        found.save(tmp_path / "p.png")


def test_an_elastic_file_is_profiled_at_the_ratio_that_is_asked_for(small_elastic, small_onnx):
    low = evodeploy.profile(small_elastic, options=ONE_THREAD, keep_ratio=(0.25, 0.5), other_ratio=1.0, runs=1)
    assert (low.keep_ratios, low.engine) == ((0.25, 0.5), "onnxruntime")
    assert low.other is not None
    assert (low.other.keep_ratios, low.other.other) == ((1.0, 1.0), None)
    assert "keep ratio 0.25/0.5" in str(low)
    assert re.search(r"^kind +ms +share +calls +ms at 1 +ratio$", str(low), re.MULTILINE)
    assert low.to_dict()["other"] == low.other.to_dict()
    with pytest.raises(InputError, match="keep"):
        evodeploy.profile(small_elastic, keep_ratio=0.01, runs=1)
    with pytest.raises(InputError, match="fixed share"):
        evodeploy.profile(small_onnx, keep_ratio=0.5, runs=1)


def test_two_keep_ratios_take_turns(small_elastic, monkeypatch):
    """One after the other, what the machine does meanwhile would look like a difference between them."""
    order = []
    monkeypatch.setattr(OnnxRuntimeRecorder, "run", lambda self, images, keep: order.append(keep))
    monkeypatch.setattr(
        OnnxRuntimeRecorder, "finish", lambda self: ([[Step("a", "Add", keep[0])] for keep in order], Origins())
    )
    low = evodeploy.profile(small_elastic, options=ONE_THREAD, keep_ratio=0.25, other_ratio=1.0, runs=2)
    assert order == [(16, 16), (64, 64)] * 5
    assert (low.total, low.other.total) == (16, 64)


def test_a_second_ratio_that_does_not_fit_is_refused_before_anything_runs(small_onnx, small_elastic, logged):
    with pytest.raises(InputError, match="fixed share"):
        evodeploy.profile(small_onnx, other_ratio=0.5, runs=1)
    with pytest.raises(UsageError, match="runs is 501, expected 1 to 500 at each of two keep ratios"):
        evodeploy.profile(small_elastic, keep_ratio=0.25, other_ratio=1.0, runs=501)
    assert not any("profiling" in line for line in logged)


@pytest.fixture
def foreign(tmp_path):
    """A network of another exporter: nodes without names or with one name, and no metadata."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "/layers/0/mlp/MatMul"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["c"], "/layers/1/attention/MatMul"),
        helper.make_node("Sigmoid", ["c"], ["d"], "twice"),
        helper.make_node("Tanh", ["d"], ["y"], "twice"),
    ]
    shape, weights = ["batch", 3, 8, 8], {"w": np.ones((8, 8), np.float32)}
    return write_graph(tmp_path / "foreign.onnx", nodes, [value("x", shape)], [value("y", shape)], weights)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_any_onnx_file_is_profiled_and_left_as_it_is(foreign, engine):
    before = foreign.read_bytes()
    found = evodeploy.profile(foreign, engine=engine, options=ONE_THREAD, batch=2, runs=1)
    assert {group.name for group in found.blocks} >= {"layers.0", "layers.1"}
    assert {"MLP", "attention"} <= {group.name for group in found.kinds}
    assert foreign.read_bytes() == before
    assert list(foreign.parent.iterdir()) == [foreign]
    with pytest.raises(UsageError, match="leave the keep ratio out"):
        evodeploy.profile(foreign, engine=engine, keep_ratio=0.5, runs=1)
    with pytest.raises(UsageError, match="leave the images out"):
        evodeploy.profile(foreign, engine=engine, images=np.zeros((8, 8, 3), np.uint8), runs=1)


def test_what_has_no_profiler_here_is_refused(small_onnx, small_checkpoint):
    with pytest.raises(UsageError, match="profiles of the engine 'torch' are not supported"):
        evodeploy.profile(small_checkpoint)
    with pytest.raises(UsageError, match="profiles of the engine 'onnxruntime-cuda' are not supported"):
        evodeploy.profile(small_onnx, engine="onnxruntime-cuda")
    with pytest.raises(UsageError, match="no option precision"):
        evodeploy.profile(small_onnx, engine="onnxruntime", options=EngineOptions(precision="fp16"))
    with pytest.raises(UsageError, match="runs is 0, expected 1 to 1000"):
        evodeploy.profile(small_onnx, runs=0)
    with pytest.raises(UsageError, match="batch is -1, expected 1 or more"):
        evodeploy.profile(small_onnx, batch=-1)


def test_of_a_deploy_file_the_artefact_is_named(tmp_path):
    written = DeployFile(SCHEMA, "chosen.onnx", "0" * 64, "openvino")
    (tmp_path / "deploy.toml").write_text(written.to_toml())
    with pytest.raises(UsageError, match=r"deploy\.toml is a deploy file, expected .*: profile .*chosen\.onnx"):
        evodeploy.profile(tmp_path / "deploy.toml")


def test_threads_profile_at_the_same_time_and_get_their_own(small_onnx, foreign):
    paths, found = (small_onnx, foreign), {}

    def work(number):
        found[paths[number]] = evodeploy.profile(paths[number], options=ONE_THREAD, runs=2)

    in_threads(work, 2)
    assert {path: profile.path for path, profile in found.items()} == {small_onnx: small_onnx, foreign: foreign}
    assert len(found[foreign].nodes) < 6 < len(found[small_onnx].nodes)


def test_the_command_prints_and_writes(cli, small_onnx, tmp_path):
    files = tmp_path / "p.json", tmp_path / "p.svg"
    command = ("profile", small_onnx, "--threads", 1, "--runs", 1, "-o", files[0], "--picture", files[1])
    code, out, err = cli(*command)
    assert code == 0, err
    assert re.search(r"^attention +[\d.]+ +[\d.]+% +\d+$", out, re.MULTILINE)
    assert re.search(r"^blocks\.5 ", out, re.MULTILINE)
    assert json.loads(files[0].read_text())["engine"] == "onnxruntime"
    assert cli(*command)[0] == 2
    code, out, err = cli(*command, "--force", "--json")
    assert code == 0, err
    assert json.loads(out).keys() == json.loads(files[0].read_text()).keys()
    for option in ("--cuda-graph", "--no-tf32"):  # which none of its runtimes takes
        error = cli(*command, option)[2]
        assert "No such option" in error and option in error


def test_the_median_of_the_runs_counts_and_calls_of_one_name_count_together():
    runs = [[Step("a/Loop", "Loop", second), Step("a/Loop", "Loop", second)] for second in (1.0, 2.0, 30.0)]
    (node,) = node_times(runs, Origins(), None)
    assert (node.seconds, node.calls) == (4.0, 2)


def test_a_step_of_the_runtimes_own_belongs_to_what_it_serves():
    origins = Origins({"fc": ("blocks.0.mlp.fc1/MatMul",)}, {"reorder": "fc", "helper": "fc"})
    steps = [Step("reorder", "Reorder", 1.0), Step("helper", "Helper", 1.0), Step("fc", "FullyConnected", 1.0)]
    nodes = node_times(
        [[*steps, Step("lost", "Reorder", 1.0)]],
        origins,
        {name: part_of(name) for name in ("blocks.0.mlp.fc1/MatMul",)},
    )
    assert [(node.block, node.kind) for node in nodes] == [
        ("blocks.0", "data movement"), ("blocks.0", "MLP"), ("blocks.0", "MLP"), ("", "data movement"),
    ]  # fmt: skip
    assert serving({"a": ["b"], "b": ["c", "a"], "c": ["d"], "d": []}, ["c"]) == {"a": "c", "b": "c", "d": "c"}


def test_a_fused_node_computes_what_lies_between_what_it_reads_and_gives():
    def graph(*nodes):
        return helper.make_graph([helper.make_node(o, i, [out], name) for name, o, i, out in nodes], "g", [], [])

    original = graph(("m", "MatMul", ["x", "w"], "a"), ("p", "Add", ["a", "b"], "c"), ("g", "Gelu", ["c"], "y"))
    computed = graph(
        ("m", "MatMul", ["x", "w"], "a"), ("BiasGelu", "BiasGelu", ["a", "b"], "z"), ("r", "Out", ["z"], "y")
    )
    assert origins_of(original, computed) == Origins({"m": ("m",), "r": ("p", "g")}, {"BiasGelu": "r"})


def test_events_belong_to_the_run_that_they_lie_in():
    def event(name, cat, ts, dur=5):
        return {"name": name, "cat": cat, "ts": ts, "dur": dur, "args": {"op_name": "Add"}}

    events = [event("model_run", "Session", 100, 50), event("a_kernel_time", "Node", 120), event("x", "Session", 0)]
    events += [event("a_kernel_time", "Node", 220), event("model_run", "Session", 200, 50)]
    assert [[(step.name, step.operator, step.seconds) for step in run] for run in runs_of(events)] == [
        [("a", "Add", 5e-6)], [("a", "Add", 5e-6)],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "layer, nodes",
    [
        ("blocks.0/Add", ("blocks.0/Add",)),
        ("a/MatMul + a/Add", ("a/MatMul", "a/Add")),
        ("PWN(a/Mul, a/Sigmoid)", ("a/Mul", "a/Sigmoid")),
        ("{ForeignNode[a/MatMul...b/Softmax]}", ("a/MatMul", "b/Softmax")),
        ("Reformatting CopyNode for Input Tensor 0 to a/Conv", ("a/Conv",)),
    ],
)
def test_the_name_of_a_tensorrt_layer_holds_nodes(layer, nodes):
    assert nodes_in(layer) == nodes


@pytest.mark.parametrize("seconds", [0.000_001, 0.09, 1234.5])
def test_times_in_the_picture_end_before_its_edge(tmp_path, seconds):
    node = NodeTime("n", "Add", "", "", "other", (), seconds, 1)
    Profile(tmp_path / "x.onnx", "onnxruntime", "cpu", 1, (), 1, 0.0, 0.0, (node,)).save(tmp_path / "x.svg")
    labels = re.findall(r'<text x="([\d.]+)"[^>]*>([\d.]+ ms)</text>', (tmp_path / "x.svg").read_text(encoding="utf-8"))
    assert [float(x) + 7 * len(label) <= 400 for x, label in labels] == [True]


def test_a_profile_without_time_has_no_shares(tmp_path):
    node = NodeTime("n", "Add", "", "", "other", (), 0.0, 1)
    empty = Profile(tmp_path / "x.onnx", "onnxruntime", "cpu", 1, (), 1, 0.0, 0.0, (node,))
    assert [group.share for group in empty.kinds] == [0.0]
    empty.save(tmp_path / "x.svg")
    assert "other" in str(empty)


def test_a_file_whose_name_is_not_utf8_is_saved_as_an_escape(tmp_path):
    node = NodeTime("n", "Add", "", "", "other", (), 0.0, 1)
    profile = Profile(tmp_path / "\udcff.onnx", "onnxruntime", "cpu", 1, (), 1, 0.0, 0.0, (node,))
    for name in ("p.json", "p.svg", "p.html"):
        profile.save(tmp_path / name)
    assert read_json_file(tmp_path / "p.json", "a profile")["file"].endswith(r"\udcff.onnx")
