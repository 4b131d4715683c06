"""An elastic ONNX file at any keep ratio equals, in each runtime, the network that is configured with that ratio."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import onnx
import pytest
from cases import SMALL
from levit_cases import small as small_levit
from PIL import Image
from sharing import batches_of, in_threads, same
from versions import needs_bf16

import evodeploy
from evodeploy.compare.export import configured, verify_export
from evodeploy.compare.keeps import elastic_keeps
from evodeploy.compare.tolerance import TOLERANCES
from evodeploy.engines.onnxruntime_engine import OnnxRuntimeEngine
from evodeploy.engines.opener import open_engine
from evodeploy.engines.torch_network import torch_engine
from evodeploy.errors import BadFileError, InputError, UsageError
from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.models.checkpoint import load_checkpoint
from evodeploy.models.loaded import reconfigured, with_elastic
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import dense_twin, with_selection
from evodeploy.onnx_files import info_of, read_onnx, set_info, write_onnx
from evodeploy.specs import EngineOptions

PARITY = 1e-5  # of the largest magnitude
RUNTIMES = ["onnxruntime", "openvino"]


def check_at_all_ratios(path, model, images, runtime):
    """Check every output at several ratios, and compare the highest, which keeps all tokens, with the dense network."""
    with open_engine(path, runtime) as engine:
        assert [str(spec) for spec in engine.inputs[1:]] == [f"keep int64 ({len(model.info.elastic)})"]
        for keep in (model.info.keep_of(), *elastic_keeps(model.info)):
            with torch_engine(configured(model, keep), tokens=True) as static:
                expected = static.run(images)
            got = engine.run(images, keep)
            for name, value in expected.items():
                if name.startswith("selected"):
                    np.testing.assert_array_equal(np.sort(got[name]), np.sort(value), err_msg=f"{name} at {keep}")
                else:
                    close(got[name], value)
        everything = [stage.tokens for stage in model.info.elastic]
        with torch_engine(reconfigured(model, dense_twin(model.config))) as dense:
            close(engine.run(images, everything)["logits"], dense.run(images)["logits"])
        same(engine.run(images), engine.run(images, model.info.keep_of()))


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=0, atol=PARITY * np.abs(expected).max())


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_one_file_is_the_static_network_at_every_ratio_and_the_dense_one_at_the_highest(
    small, small_elastic, small_images, runtime
):
    check_at_all_ratios(small_elastic, with_elastic(small, (0.1, 1.0)), small_images, runtime)


@pytest.mark.slow
@pytest.mark.parametrize("selection", ["stage", "layer"])
@pytest.mark.parametrize(
    "config", [SMALL, dataclasses.replace(SMALL, fast_path="merge"), small_levit()], ids=["deit", "merged", "levit"]
)
def test_both_families_in_both_modes(config, selection, tmp_path):
    model = with_elastic(random_model(with_selection(config, None, selection), seed=3), (0.1, 1.0))
    path = tmp_path / "elastic.onnx"
    write_onnx(onnx_from_model(model, tokens=True), path)
    side = config.image_size
    images = np.random.default_rng(5).standard_normal((3, 3, side, side), dtype=np.float32)
    for runtime in RUNTIMES:
        check_at_all_ratios(path, model, images, runtime)
    checks = list(verify_export(model, path))
    assert all(check.passed for check in checks), [check for check in checks if not check.passed]
    assert {check.detail.rsplit("; ", 1)[-1] for check in checks} >= {
        f"{'/'.join(map(str, keep))} tokens kept" for keep in elastic_keeps(model.info)
    }


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_threads_run_one_engine_at_ratios_of_their_own(small_elastic, runtime):
    keeps = [(6, 6), (20, 33), (64, 64), (33, 20)]
    with open_engine(small_elastic, runtime) as engine:
        batches = batches_of(engine)[:4]
        expected = {(keep, i): engine.run(batch, keep) for keep in keeps for i, batch in enumerate(batches)}

        def work(number):
            for turn in range(20):
                keep, index = keeps[(number + turn) % 4], (number * 3 + turn) % len(batches)
                same(engine.run(batches[index], keep), expected[keep, index])

        in_threads(work)
        with pytest.raises(InputError, match="stage 1 cannot keep 65 of its 64 tokens: this artefact keeps 6 to 64"):
            engine.run(batches[0], (6, 65))
        same(engine.run(batches[0], keeps[0]), expected[keeps[0], 0])


@needs_bf16  # in FP32 there never were two layouts
def test_openvino_lays_tokens_out_in_one_way_in_an_elastic_evo_levit(tmp_path):
    path = tmp_path / "elastic.onnx"
    write_onnx(onnx_from_model(with_elastic(random_model(small_levit()), (0.1, 1.0))), path)
    with open_engine(path, "openvino", EngineOptions(precision="bf16")) as engine:
        engine.run(np.zeros((1, 3, *[engine.info.image_size] * 2), np.float32))
        nodes = [node.get_rt_info() for node in engine.compiled_graph().get_ops()]
    copies = [str(each["outputLayouts"].value) for each in nodes if each["layerType"].value == "Reorder"]
    assert copies and copies.count("acb") <= 2  # for the means that became representative tokens


@pytest.mark.parametrize("ratios", [0.3, (1.0, 0.2)])
def test_openvino_opens_an_elastic_file_at_one_keep_ratio(small_elastic, small_images, ratios):
    """It is then a static artefact with that ratio: its sizes are known, and runs accept no other ratio."""
    with (
        open_engine(small_elastic, "openvino") as elastic,
        open_engine(small_elastic, "openvino", EngineOptions(fixed_keep=ratios)) as fixed,
    ):
        expected = elastic.run(small_images, elastic.info.keep_of(ratios))
        got = fixed.run(small_images)
        for name, value in expected.items():
            if not name.startswith("selected"):
                close(got[name], value)
        assert fixed.info.keep_ratios == elastic.info.ratios_of(ratios) and fixed.info.elastic == ()
        assert fixed.inputs == elastic.inputs[:1]
        assert [spec.shape[1] for spec in fixed.outputs if spec.name.startswith("selected")] == list(
            elastic.info.keep_of(ratios)
        )
        with pytest.raises(InputError, match="this artefact keeps a fixed share of tokens"):
            fixed.run(small_images, (19, 19))
    with evodeploy.load(small_elastic, "openvino", fixed_keep=ratios) as predictor:
        assert predictor.info.keep_ratios == fixed.info.keep_ratios


@pytest.mark.parametrize(
    ("engine", "ratios", "error", "message"),
    [
        ("openvino", 0.05, InputError, "stage 0 cannot keep 3 of its 64 tokens"),
        ("openvino", (0.3, 0.4, 0.5), InputError, "3 keep ratios given, expected one, or one for each of 2 stages"),
        ("openvino", "0.3", InputError, "a keep ratio is '0.3', expected a number"),
        ("onnxruntime", 0.3, UsageError, "has no option fixed_keep .* or choose the engine 'openvino'"),
    ],
)
def test_a_keep_ratio_that_cannot_be_fixed_is_refused(small_elastic, engine, ratios, error, message):
    with pytest.raises(error, match=message):
        open_engine(small_elastic, engine, EngineOptions(fixed_keep=ratios))


def test_a_static_file_has_no_keep_ratio_to_fix(small_onnx, tmp_path):
    with pytest.raises(InputError, match="keeps a fixed share of tokens"):
        open_engine(small_onnx, "openvino", EngineOptions(fixed_keep=0.3))
    plain = read_onnx(small_onnx)
    del plain.metadata_props[:]
    write_onnx(plain, tmp_path / "plain.onnx")
    with pytest.raises(InputError, match="carries no evodeploy metadata, so it has no keep ratio to fix"):
        open_engine(tmp_path / "plain.onnx", "openvino", EngineOptions(fixed_keep=0.3))


def test_onnx_runtime_refuses_cuda_graphs_of_an_elastic_file(small_elastic):
    with pytest.raises(
        UsageError, match="elastic.onnx is elastic, but a CUDA graph of the engine 'onnxruntime' has one"
    ):
        OnnxRuntimeEngine(small_elastic, EngineOptions(cuda_graph=True))


def test_a_file_whose_metadata_does_not_fit_its_inputs_is_refused(small_elastic, small_onnx, tmp_path):
    elastic, static = read_onnx(small_elastic), read_onnx(small_onnx)
    facts = {"elastic": info_of(elastic), "static": info_of(static)}
    path = tmp_path / "wrong.onnx"
    for proto, info, message in (
        (elastic, facts["static"], "has 2 inputs and 5 outputs, expected one batch of images and an output"),
        (static, facts["elastic"], "has 1 inputs and 5 outputs, expected one batch of images, `keep` and an output"),
        (
            elastic,
            dataclasses.replace(facts["elastic"], keep_ratios=(0.5,), elastic=facts["elastic"].elastic[:1]),
            r"takes keep int64 \(2\), but evodeploy's metadata in it says keep int64 \(1\)",
        ),
    ):
        set_info(proto, info)
        write_onnx(proto, path)
        for runtime in RUNTIMES:
            with pytest.raises(BadFileError, match=message):
                open_engine(path, runtime)


def test_export_writes_an_elastic_file_and_compares_it_at_several_ratios(cli, small_checkpoint, tmp_path):
    path = tmp_path / "elastic.onnx"
    code, out, err = cli("export", small_checkpoint, "-o", path, "--elastic", "0.2:1.0", "--keep-ratio", "0.3,0.5")
    assert code == 0, err
    info = info_of(read_onnx(path))
    assert [(stage.tokens, stage.low, stage.high) for stage in info.elastic] == [(64, 12, 64)] * 2
    assert info.keep_ratios == (0.3, 0.5) and info.keep_of() == (19, 32)
    for keep in elastic_keeps(info):
        assert f"; {keep[0]}/{keep[1]} tokens kept" in err
    assert "all " in out and " checks passed" in out
    image = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(image)
    for ratio, expected in ((None, [0.3, 0.5]), ("0.8", [0.8, 0.8]), ("1.0,0.2", [1.0, 0.2])):
        asked = [] if ratio is None else ["--keep-ratio", ratio]
        code, out, err = cli("predict", path, image, "--json", *asked)
        assert code == 0, err
        assert json.loads(out)[0]["keep_ratios"] == expected
    code, _, err = cli("predict", path, image, "--keep-ratio", "0.1")
    assert code == 2 and "stage 0 cannot keep 6 of its 64 tokens: this artefact keeps 12 to 64" in err


def test_elastic_without_bounds_is_from_a_tenth_of_the_tokens_to_all(cli, small_checkpoint, tmp_path):
    path = tmp_path / "elastic.onnx"
    code, _, err = cli("export", small_checkpoint, "--elastic", "--no-verify", "-o", path)
    assert code == 0, err
    assert "elastic: each run says how many tokens its stages keep, 6 to 64 of 64, 6 to 64 of 64" in err
    assert [(stage.low, stage.high) for stage in info_of(read_onnx(path)).elastic] == [(6, 64)] * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.5", "--elastic is '0.5', expected LOW:HIGH, two numbers above 0 and up to 1"),
        ("0:1", "--elastic is '0:1', expected LOW:HIGH"),
        ("0.1:2", "--elastic is '0.1:2', expected LOW:HIGH"),
        ("nan:1", "--elastic is 'nan:1', expected LOW:HIGH"),
        ("0.9:0.1", "--elastic is '0.9:0.1', expected LOW:HIGH"),
        ("0.6:1.0", "own keep ratios are outside of elastic's bounds"),
    ],
)
def test_wrong_bounds_are_one_sentence(cli, small_checkpoint, tmp_path, text, message):
    code, _, err = cli("export", small_checkpoint, "-o", tmp_path / "x.onnx", "--elastic", text)
    assert code == 2 and message in err
    assert not list(tmp_path.iterdir())


COMBINED = {
    "precision": ["fp32", "fp16", "bf16", "int8", "fp8"],
    "input_format": ["float32", "uint8", "uint8-nchw"],
    "top_k": [None, 3],
    "tokens": [False, True],
    "batch": [None, 2],
    "selection": ["stage", "layer"],
    "fast_path": ["rest", "merge"],
}


def pairwise(options):
    """Return rows of values in which every two values of different options occur together, chosen greedily."""
    missing = {
        pair for a, b in itertools.combinations(options, 2) for pair in itertools.product(
            [(a, value) for value in options[a]], [(b, value) for value in options[b]]
        )
    }  # fmt: skip
    rows = [tuple(zip(options, values, strict=True)) for values in itertools.product(*options.values())]
    chosen = []
    while missing:
        best = max(rows, key=lambda row: len(missing.intersection(itertools.combinations(row, 2))))
        missing -= set(itertools.combinations(best, 2))
        chosen.append(dict(best))
    return chosen


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("options", pairwise(COMBINED), ids=lambda row: "-".join(str(value) for value in row.values()))
def test_elastic_can_be_combined_with_every_other_option(options, small_checkpoint, pictures, tmp_path):
    precision = options["precision"]
    folder = pictures if precision in ("int8", "fp8") else None
    done = evodeploy.export(small_checkpoint, tmp_path / "x.onnx", elastic=(0.1, 1.0), images=folder, **options)
    onnx.checker.check_model(str(done.path), full_check=True)
    info = done.info
    assert info.elastic and info.precision == precision
    if precision in ("bf16", "fp8"):
        return  # not every CPU has a runtime for these, so only the graph is checked
    model = load_checkpoint(small_checkpoint, selection=options["selection"], fast_path=options["fast_path"])
    model = with_elastic(dataclasses.replace(model, info=dataclasses.replace(
        model.info, input_format=options["input_format"], top_k=options["top_k"]
    )), (0.1, 1.0))  # fmt: skip
    shape = [size or 2 for size in info.input.shape]
    draw = np.random.default_rng(3)
    images = draw.standard_normal(shape).astype(np.float32) if options["input_format"] == "float32" else draw.integers(
        0, 256, shape
    ).astype(np.uint8)  # fmt: skip
    with open_engine(done.path, "onnxruntime") as engine:
        for keep in elastic_keeps(info):
            got = engine.run(images, keep)
            with torch_engine(model) as reference:
                expected = reference.run(images, keep)[info.output]
            assert (
                np.abs(got[info.output] - expected).max() <= 4 * TOLERANCES[precision].logits * np.abs(expected).max()
            )
            if options["tokens"]:
                assert got["selected_0"].shape == (len(images), keep[0])


def test_networks_that_cannot_be_elastic_are_refused_by_the_library_too(small_checkpoint, tmp_path):
    with pytest.raises(UsageError, match="elastic bounds are 2 to 3"):
        evodeploy.export(small_checkpoint, tmp_path / "x.onnx", elastic=(2, 3))


def test_verify_compares_an_elastic_artefact_at_several_ratios_and_finds_one_that_differs(
    small_checkpoint, small_elastic, tmp_path, logged
):
    keeps = elastic_keeps(info_of(read_onnx(small_elastic)))
    assert (6, 6) in keeps and (64, 64) in keeps and len(keeps) == 7
    for runtime in RUNTIMES:
        assert evodeploy.verify(small_checkpoint, small_elastic, count=4, engine=runtime).passed
    lines = [line for line in logged if "tokens kept" in line]
    assert [line.split()[1] for line in lines] == [f"{a}/{b}" for a, b in keeps] * 2
    assert all(line.startswith("  ok ") for line in lines)
    wrong = read_onnx(small_elastic)
    (gather,) = (node for node in wrong.graph.node if node.op_type == "Gather" and node.input[1] == "keep_stage_1")
    gather.input[1] = "keep_stage_0"  # no difference at equal ratios, such as the default: only random ones show it
    write_onnx(wrong, tmp_path / "wrong.onnx")
    assert not evodeploy.verify(small_checkpoint, tmp_path / "wrong.onnx", count=4, engine="onnxruntime").passed
