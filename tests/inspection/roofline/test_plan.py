"""The work of a real plan; figures are those of TensorRT for RTX 1.7 where they depend on its kernels."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from cases import SMALL
from levit_cases import small as small_levit

import evodeploy
from evodeploy.builder.pipeline import build
from evodeploy.engines.tensorrt.sidecar import read_sidecar, write_sidecar
from evodeploy.errors import BadFileError, UsageError
from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.files import sha256
from evodeploy.graph.flops import flops_of_onnx
from evodeploy.inspection.program import read_program
from evodeploy.inspection.roofline.bound import Network
from evodeploy.inspection.roofline.plan import PlanWork, plan_work
from evodeploy.inspection.roofline.work import Work
from evodeploy.models.cost import cost_of
from evodeploy.models.loaded import with_elastic
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import with_selection
from evodeploy.onnx_files import info_of, read_onnx, write_onnx

FOURTH_CHANNEL = 2 * SMALL.tokens * SMALL.width * SMALL.patch_size**2  # of zeros, which TensorRT adds to the images


def copied(plan, folder, content=None, **changes):
    other = folder / "other.engine"
    other.write_bytes(plan.read_bytes() if content is None else content)
    write_sidecar(dataclasses.replace(read_sidecar(plan), **{"plan_sha256": sha256(other)} | changes), other)
    return other


def test_operations_are_those_of_the_network(small_plan, small_onnx):
    work = plan_work(small_plan)
    assert [network.batch for network in work.networks] == [1, 8]
    for network in work.networks:
        counted = sum(kernel.operations for kernel in network.kernels) / network.batch
        assert counted - FOURTH_CHANNEL == pytest.approx(flops_of_onnx(read_onnx(small_onnx)), rel=1e-3)
        assert counted - FOURTH_CHANNEL == pytest.approx(2e9 * cost_of(SMALL).gflops, rel=1e-3)
        assert {kernel.rate for kernel in network.kernels if kernel.operations} == {"fp16"}


@pytest.mark.parametrize("ratios", [None, 1.0, (0.3, 0.9)])
def test_operations_of_an_elastic_engine_are_those_of_the_graph_at_that_ratio(elastic_plan, small_elastic, ratios):
    """Stages of different ratios too: the order of the products says which size of the plan is whose."""
    proto = read_onnx(small_elastic)
    work = plan_work(elastic_plan, ratios=ratios)
    keep = info_of(proto).keep_of(ratios)
    assert work.keep == keep and work.missing == {}
    assert [network.batch for network in work.networks] == [1, 8]
    for network in work.networks:
        counted = sum(kernel.operations for kernel in network.kernels) / network.batch
        assert counted - FOURTH_CHANNEL == pytest.approx(flops_of_onnx(proto, keep), rel=1e-3)
    selections = 64 * 4 + min(keep) * (8 + 8 + 4)  # positions in INT64 and scores in FP32
    outside = work.networks[0].outside - work.weights
    assert outside == 3 * 64 * 64 * 4 + 10 * 4 + len(keep) * 8 + selections


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "batch", "extra"),
    [
        (SMALL, 2, 1e-3),
        (with_selection(SMALL, None, "layer"), None, 1e-3),
        (small_levit(), None, 0.1),  # keys are padded to the width of values
        (with_selection(small_levit(), None, "layer"), None, 0.1),
    ],
    ids=["one batch", "deit by layer", "levit", "levit by layer"],
)
def test_sizes_of_every_kind_of_elastic_engine_are_known_by_their_order(config, batch, extra, tmp_path):
    """With a wrong one, sizes would not fit each other, and products would be missing."""
    proto = onnx_from_model(with_elastic(random_model(config), (0.1, 1.0)), batch=batch)
    write_onnx(proto, tmp_path / "elastic.onnx")
    built = build(tmp_path / "elastic.onnx", runtime="tensorrt-rtx", targets="sm89", precision="fp16")
    info = info_of(proto)
    ratios = [0.6 - 0.3 * (index % 2) for index in range(len(info.elastic))]
    work = plan_work(built.path, (2,), ratios)
    counted = sum(kernel.operations for kernel in work.networks[0].kernels) / 2
    assert work.missing == {}
    assert counted == pytest.approx(flops_of_onnx(proto, info.keep_of(ratios)) + FOURTH_CHANNEL, rel=extra)


def test_an_elastic_engine_whose_sizes_are_not_understood_is_refused(elastic_plan, tmp_path):
    """Here the plan has one size more that is given."""
    named = rb'(input=\{"[^"\n]+_shapeInput\.1" )'
    strange = re.sub(named, rb'\1"another" "yet another" ', elastic_plan.read_bytes())
    with pytest.raises(UsageError, match="other.engine is elastic, and its plan does not show how the sizes of its"):
        plan_work(copied(elastic_plan, tmp_path, strange))


def test_the_command_takes_a_keep_ratio_within_the_bounds(elastic_plan, small_plan, cli):
    code, out, _ = cli("inspect", elastic_plan, "--gpu", "l4", "--keep-ratio", "0.3,0.9")
    assert code == 0 and "elastic.engine: fp16, 19/57 tokens kept. Bounds" in out
    code, out, _ = cli("inspect", elastic_plan, "--gpu", "l4", "--keep-ratio", "0.5", "--json")
    assert json.loads(out)["keep"] == [32, 32]
    code, _, err = cli("inspect", elastic_plan, "--gpu", "l4", "--keep-ratio", "0.05")
    assert code == 2 and "stage 0 cannot keep 3 of its 64 tokens" in err
    code, _, err = cli("inspect", small_plan, "--gpu", "l4", "--keep-ratio", "0.5")
    assert code == 2 and "keeps a fixed share of tokens" in err


def test_every_kernel_is_counted(small_plan):
    work = plan_work(small_plan, (3,))
    assert work.missing == {}
    assert len(work.networks[0].kernels) == read_program(small_plan).total
    assert all(kernel.moved > 0 for kernel in work.networks[0].kernels)


def test_weights_are_those_of_the_record(small_plan):
    work = plan_work(small_plan)
    assert work.weights == pytest.approx(work.record.weights_bytes, rel=0.01)
    one, eight = (network.outside - work.weights for network in work.networks)
    image, logits = 3 * 64 * 64 * 4, 10 * 4
    selections = len(SMALL.stages) * (32 * 8 + 64 * 4)  # positions in INT64 and scores in FP32
    assert one == image + logits + selections and eight == 8 * one


def test_activations_grow_with_the_batch_and_weights_do_not(small_plan):
    moved = [sum(each.moved for each in network.kernels) for network in plan_work(small_plan, (2, 4, 8)).networks]
    assert moved[2] - moved[1] == 2 * (moved[1] - moved[0]) > 0


def test_of_several_profiles_the_one_that_takes_the_batch_is_read(small_plan, tmp_path):
    """The record is the only place that says how many profiles a plan has: here, two copies of one."""
    record = read_sidecar(small_plan)
    one = record.profiles[0]
    two = dataclasses.replace(one, min=9, opt=16, max=64)
    other = copied(small_plan, tmp_path, small_plan.read_bytes() * 2, profiles=(one, two))
    assert [network.batch for network in plan_work(other).networks] == [1, 8, 64]
    assert len(plan_work(other, (64,)).networks[0].kernels) == len(plan_work(small_plan, (8,)).networks[0].kernels)


def test_the_narrowest_profile_that_takes_the_batch_is_read_as_an_engine_runs_it(small_plan, tmp_path):
    one = read_sidecar(small_plan).profiles[0]
    narrow = dataclasses.replace(one, min=4, opt=4, max=4)
    renamed = small_plan.read_bytes().replace(b'name="blocks.', b'name="blecks.')
    other = copied(small_plan, tmp_path, small_plan.read_bytes() + renamed, profiles=(one, narrow))
    wide, fitting = ({kernel.name[:7] for kernel in net.kernels} for net in plan_work(other, (3, 4)).networks)
    assert "blocks." in wide and "blecks." not in wide
    assert "blecks." in fitting and "blocks." not in fitting


def test_a_batch_that_the_engine_does_not_take_is_refused(small_plan):
    with pytest.raises(UsageError, match="--batch is 9, but the engine takes 1 to 8"):
        plan_work(small_plan, (9,))


def test_an_engine_of_one_batch_says_which(small_plan, tmp_path):
    profile = dataclasses.replace(read_sidecar(small_plan).profiles[0], min=4, opt=4, max=4)
    with pytest.raises(UsageError, match="--batch is 1, but the engine takes 4$"):
        plan_work(copied(small_plan, tmp_path, profiles=(profile,)), (1,))


def test_an_engine_of_none_of_the_usual_batches_is_taken_at_its_best(small_plan, tmp_path):
    profile = dataclasses.replace(read_sidecar(small_plan).profiles[0], min=3, opt=5, max=6)
    assert [each.batch for each in plan_work(copied(small_plan, tmp_path, profiles=(profile,))).networks] == [5]


def test_a_plan_of_tensorrt_is_refused(small_plan, tmp_path):
    other = copied(small_plan, tmp_path, runtime="tensorrt", runtime_version="10.13.2")
    with pytest.raises(UsageError, match=r"built by tensorrt 10.13.2.*build-engine small.onnx --runtime tensorrt-rtx"):
        plan_work(other)


@pytest.mark.parametrize("content", [b"a plan of another TensorRT for RTX", b"\nmain {\n label bb1: \n\n}\n"])
def test_a_plan_of_another_format_is_refused(small_plan, tmp_path, content):
    other = copied(small_plan, tmp_path, content)
    with pytest.raises(UsageError, match=r"other.engine shows no kernels, though tensorrt-rtx"):
        plan_work(other)


def test_programs_that_cannot_be_divided_among_profiles_are_not_read(small_plan, tmp_path):
    profile = read_sidecar(small_plan).profiles[0]
    other = copied(small_plan, tmp_path, small_plan.read_bytes() * 3, profiles=(profile, profile))
    with pytest.raises(UsageError, match="other.engine shows no kernels"):
        plan_work(other)


def test_what_is_missing_in_any_profile_is_named():
    """Each profile has kernels of its own."""
    whole = Work("a", "gemm", 1, "fp16", 1, 1)
    networks = [Network(1, (whole,), 0), Network(9, (whole, dataclasses.replace(whole, name="b", missing="bytes")), 0)]
    assert PlanWork(None, None, 0, tuple(networks)).missing == {"b": "bytes"}


def test_an_altered_engine_is_refused(small_plan, tmp_path):
    other = copied(small_plan, tmp_path)
    other.write_bytes(other.read_bytes()[:-1])
    with pytest.raises(BadFileError, match="other.engine differs from its record"):
        plan_work(other)


@pytest.mark.parametrize(
    ("name", "what", "onnx"), [("a.onnx", "an ONNX file", "a.onnx"), ("a.pth", "a checkpoint", "FILE.onnx")]
)
def test_another_file_is_refused(tmp_path, name, what, onnx):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UsageError, match=f"{name} is {what}; .*build-engine .*{onnx} --runtime"):
        plan_work(tmp_path / name)


def test_the_command_shows_a_table_for_each_card(small_plan, cli):
    code, out, err = cli("inspect", small_plan, "--gpu", "l4,h100", "--batch", "1,8")
    assert code == 0 and max(map(len, out.splitlines()[1:])) <= 80  # the first has a path
    first, second = out.split("\n\n")[1:3]
    assert first.startswith("l4: NVIDIA L4, sm89, 300 GB/s, FP16 121 TFLOP/s, L2 48 MiB")
    assert second.startswith("h100: NVIDIA H100 SXM, sm90, 3350 GB/s")
    rows = {line[:20].strip(): line[20:].split() for line in first.splitlines()[1:]}
    assert rows["batch"] == ["1", "8"]
    assert rows["limited by"] == ["arithmetic", "arithmetic"]
    assert rows["at least, µs"] == [f"{22_547_200 * batch / 121e6:.1f}" for batch in (1, 8)]
    assert "not predictions" in out and "2.5 µs a kernel assumed" in out
    assert "the engine is built for sm89, but h100 is sm90: TensorRT may choose other kernels there" in err
    assert "but l4 is" not in err


def test_the_function_prints_what_the_command_shows(small_plan, cli, logged):
    found = evodeploy.roofline(str(small_plan), ["l4", "h100"], batches=(1, 8), kernels=True)
    arguments = ("inspect", small_plan, "--gpu", "l4,h100", "--batch", "1,8", "--kernels")
    assert (cli(*arguments)[1], json.loads(cli(*arguments, "--json")[1])) == (f"{found}\n", found.to_dict())
    assert logged[0].startswith("the engine is built for sm89, but h100 is sm90")
    (l4,) = evodeploy.roofline(small_plan, "l4", batches=(1, 8), kernels=True).cards
    assert l4 == found.cards[0] and [each.batch for each in l4.bounds] == [1, 8]
    with pytest.raises(UsageError, match="there are no GPUs"):
        evodeploy.roofline(small_plan, [])


def test_the_command_answers_in_json(small_plan, cli):
    code, out, _ = cli("inspect", small_plan, "--gpu", "4090", "--json")
    document = json.loads(out)
    card = document["cards"][0]
    assert code == 0
    assert document["built_for"] == ["sm89"] and document["not_counted"] == {} and card["built_for_it"]
    assert card["source"].startswith("NVIDIA Ada") and "kernels" not in card
    for row in card["batches"]:
        assert row["arithmetic_ms"] == pytest.approx(row["gflop"] / 330.3)
        assert row["images_per_second_at_most"] == pytest.approx(1e3 * row["batch"] / row["least_ms"])
        assert row["uncached_ms"] >= row["least_ms"] and 0 <= row["uncached_memory_share"] <= 1
        assert row["launching_ms"] == pytest.approx(row["launched"] * document["launch_us"] / 1e3)
    assert card["peaks_used"] == {"fp16": 330.3}


def test_the_command_shows_each_kernel(small_plan, cli):
    code, out, _ = cli("inspect", small_plan, "--gpu", "a10", "--kernels", "--json")
    document = json.loads(out)
    rows, whole = document["cards"][0]["kernels"], document["cards"][0]["batches"][-1]
    assert code == 0
    times = [row["uncached_us"] * row["times"] for row in rows]
    assert times == sorted(times, reverse=True)
    assert sum(times) == pytest.approx(1e3 * whole["uncached_ms"])
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert sum(row["times"] for row in rows) == whole["launched"]
    assert sum(row["gflop"] * row["times"] for row in rows) == pytest.approx(whole["gflop"])
    code, out, _ = cli("inspect", small_plan, "--gpu", "a10", "--kernels")
    shown = out.split("heaviest kernels at batch 8, without caches\n")[1].split("\n\n")[0].splitlines()
    assert code == 0 and len(shown) == 1 + 10
    assert [line.split()[1] for line in shown[1:]] == [str(row["times"]) for row in rows[:10]]


def test_the_command_names_the_peaks_that_bound_the_products(small_plan, tmp_path, cli, monkeypatch):
    """FP32 products round to TF32 where they may, and INT8 ones are no floating point."""
    works = [Work("a", "gemm", 2, "int8", 1, 1), Work("b", "gemm", 1, "fp32", 1, 1), Work("c", "fused", 0, "", 1, 1)]
    found = PlanWork(small_plan, read_sidecar(small_plan), 0, (Network(1, works, 0),))
    monkeypatch.setattr("evodeploy.inspection.roofline.pipeline.plan_work", lambda *_: found)
    code, out, _ = cli("inspect", small_plan, "--gpu", "l4,t4")
    assert code == 0
    assert "l4: NVIDIA L4, sm89, 300 GB/s, INT8 242 TOP/s, TF32 60 TFLOP/s, L2 48 MiB" in out
    assert "t4: NVIDIA T4, sm75, 320 GB/s, INT8 130 TOP/s, FP32 8.1 TFLOP/s, L2 4 MiB" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--gpu", "gtx970"), "no card is called 'gtx970'; known are t4"),
        (("--gpu", "l4,,a10"), "--gpu is 'l4,,a10'"),
        (("--gpu", "l4", "--batch", "1,x"), "--batch is '1,x'"),
        (("--batch", "1"), "--batch needs --gpu"),
        (("--keep-ratio", "0.5"), "--keep-ratio needs --gpu"),
        (("--kernels",), "--kernels needs --gpu"),
    ],
)
def test_the_command_refuses_what_it_cannot_do(small_plan, cli, options, message):
    code, out, err = cli("inspect", small_plan, *options)
    assert (code, out) == (2, "")
    assert message in err
