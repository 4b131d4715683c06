"""The ways in which PyTorch runs a network: each gives what float32 gives, and is what its name says."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from levit_cases import small as small_levit

from evodeploy.engines.torch_compiled import compiled_by_batch
from evodeploy.engines.torch_engine import TorchEngine
from evodeploy.engines.torch_modes import TORCH_MODES
from evodeploy.engines.torch_network import torch_engine
from evodeploy.errors import OutOfMemoryError, RuntimeFailedError, UnavailableError, UsageError
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import EvoDeiTConfig, dense_twin
from evodeploy.specs import EngineOptions, TensorSpec

DEIT = EvoDeiTConfig(
    "smallest", width=16, heads=2, depth=3, image_size=32, patch_size=8, mlp_ratio=1.0, num_classes=3, stages=(1, 2)
)
NETWORKS = {"deit": DEIT, "levit": small_levit()}
COMPILED = torch.compile


def images_for(config):
    side = config.image_size
    return np.random.default_rng(4).standard_normal((4, 3, side, side), dtype=np.float32)


def opened(config, name="torch", precision=None, tokens=False):
    options = EngineOptions(threads=1, precision=precision, device="cpu")
    return torch_engine(random_model(config), tokens=tokens, name=name, options=options)


def outputs(config, name, precision=None):
    with opened(config, name, precision, tokens=True) as engine:
        return engine.run(images_for(config))


@pytest.mark.parametrize(
    ("name", "precision", "error"),
    [
        ("torch-channels-last", None, 1e-5),
        ("torch", "fp16", 1e-2),
        ("torch", "bf16", 8e-2),
        ("torch-autocast", "bf16", 8e-2),
    ],
)
@pytest.mark.parametrize("network", NETWORKS)
def test_each_gives_what_float32_gives(network, name, precision, error):
    expected, got = outputs(NETWORKS[network], "torch"), outputs(NETWORKS[network], name, precision)
    assert [(key, value.dtype, value.shape) for key, value in got.items()] == [
        (key, value.dtype, value.shape) for key, value in expected.items()
    ]
    largest = np.abs(expected["logits"]).max()
    # In half precision another token may be selected where two nearly tie, so the median image is compared.
    assert np.median(np.abs(got["logits"] - expected["logits"]).max(axis=1)) <= error * largest


@pytest.mark.parametrize("network", NETWORKS)
def test_half_precision_is_that_of_the_weights_and_scores_keep_float32(network):
    model = random_model(NETWORKS[network])
    options = EngineOptions(threads=1, precision="bf16", device="cpu")
    with torch_engine(model, tokens=True, options=options) as engine:
        got = engine.run(images_for(model.config))
    assert model.module.dtype == torch.float32  # the caller's network is left as it was
    scores = torch.from_numpy(got["scores_0"])
    assert (scores.bfloat16().float() != scores).any()


def test_convolutions_are_stored_channels_last(monkeypatch):
    seen = []
    convolution = torch.nn.Conv2d.forward

    def watched(module, x):
        seen.append(module.weight.is_contiguous(memory_format=torch.channels_last))
        return convolution(module, x)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", watched)
    outputs(NETWORKS["levit"], "torch-channels-last")
    assert seen == [True] * 4


@pytest.mark.parametrize("network", NETWORKS)
def test_attention_is_pytorchs_own_in_every_block(monkeypatch, network):
    calls = []
    attention = F.scaled_dot_product_attention

    def counted(*args, **options):
        calls.append(options)
        return attention(*args, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    config = NETWORKS[network]
    outputs(config, "torch")
    assert len(calls) == (config.depth if network == "deit" else sum(config.depths) + len(config.depths) - 1)


def test_cuda_graphs_alone_are_refused_where_there_are_none():
    with pytest.raises(UnavailableError, match="on the CPU is the same as torch-compile: use that"):
        opened(DEIT, "torch-compile-reduce-overhead")


class Doubling(torch.nn.Module):
    def forward(self, images):
        return (images * 2,)


def on_gpu(module, device="cuda:1"):
    spec = TensorSpec("images", "float32", (None, 3))
    return TorchEngine(module, (spec,), (spec,), options=EngineOptions(device=device))


@pytest.mark.parametrize(("device", "found"), [("cuda", "cuda:0"), (None, "cuda:0"), ("cuda:1", "cuda:1")])
def test_a_gpu_is_named_with_its_number(monkeypatch, device, found):
    """One GPU under two names would have two peaks, and an evaluation that names it would not resume."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, *where, **how: module)
    assert on_gpu(Doubling(), device).device == found


@pytest.mark.parametrize("precision", [None, "fp32"])
def test_autocast_needs_a_precision_to_cast_to(precision):
    with pytest.raises(UsageError, match="use the precision fp16 or bf16, or the engine torch"):
        opened(DEIT, "torch-autocast", precision)


def test_a_gpu_that_pytorch_does_not_find_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UnavailableError, match="finds no GPU here, got device cuda:1: use the device cpu, or install"):
        on_gpu(Doubling())
    with pytest.raises(UsageError, match="no device is called 'gpu'"):
        on_gpu(Doubling(), "gpu")


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemoryError, "runs out of memory while it opens on cuda:1"),
        (RuntimeError("invalid device ordinal"), RuntimeFailedError, "failed while it opens on cuda:1: invalid device"),
    ],
)
def test_what_pytorch_raises_while_a_network_goes_to_the_gpu_is_translated(monkeypatch, failure, kind, message):
    class Full(Doubling):
        def to(self, *where):
            raise failure

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(kind, match=f"^torch {message}"):
        on_gpu(Full())


COMPILING = [name for name, mode in TORCH_MODES.items() if mode.compile and not mode.on_gpu]


def check_nothing_eager(monkeypatch, engines, images):
    """Each of `engines` runs one and two of `images` twice, each time by a program that was compiled for it alone.

    PyTorch compiles a code object 8 times and then runs it eagerly.
    """
    ran = []

    def backend(graph, inputs):
        def run(*given):
            ran.append(graph)
            return graph(*given)

        return run

    monkeypatch.setattr(torch, "compile", lambda program, mode, **how: COMPILED(program, backend=backend, **how))
    for _ in range(2):
        for engine, batch in itertools.product(engines, (1, 2)):
            engine.run(images[:batch])
    assert (len(ran), len(set(map(id, ran)))) == (4 * len(engines), 2 * len(engines))
    for engine in engines:
        engine.close()


def test_of_many_programs_in_one_process_none_runs_eagerly(monkeypatch):
    spec = TensorSpec("images", "float32", (None, 3))
    options = EngineOptions(threads=1, device="cpu")
    names = COMPILING * 6
    engines = [TorchEngine(Doubling(), (spec,), (spec,), name=name, options=options) for name in names]
    check_nothing_eager(monkeypatch, engines, np.ones((2, 3), np.float32))


@pytest.mark.slow
def test_of_the_programs_of_a_bench_none_runs_eagerly(monkeypatch):
    variants = itertools.product((DEIT, dense_twin(DEIT)), COMPILING, (None, "fp16", "bf16"))
    check_nothing_eager(monkeypatch, [opened(*variant) for variant in variants], images_for(DEIT))


def test_what_would_run_eagerly_fails():
    eager, failure = (
        torch.compiler.set_stance("force_eager"),
        pytest.raises(UnavailableError, match="ran the network eagerly"),
    )
    with opened(DEIT, "torch-compile") as engine, eager, failure:
        engine.run(images_for(DEIT))


def recorded(skips=0):
    """Replaces torch.compile: its programs give the same buffer each time, as a CUDA graph does."""
    from torch._dynamo.utils import counters

    def compiled(program, **how):
        buffer = torch.empty(2)

        def run(images):
            counters["stats"]["unique_graphs"] += 1
            counters["inductor"]["cudagraph_skips"] += skips
            return (buffer.copy_(program(images)[0]),)

        return run

    return compiled


def test_the_next_run_of_a_cuda_graph_leaves_the_outputs_of_the_last(monkeypatch):
    monkeypatch.setattr(torch, "compile", recorded())
    forward = compiled_by_batch(Doubling(), "reduce-overhead", cuda_graphs=True)
    first, second = (forward(torch.full((2,), value)) for value in (1.0, 5.0))
    assert (first[0].tolist(), second[0].tolist()) == ([2, 2], [10, 10])


def test_a_program_without_its_cuda_graph_fails(monkeypatch):
    monkeypatch.setattr(torch, "compile", recorded(skips=1))
    forward = compiled_by_batch(Doubling(), "reduce-overhead", cuda_graphs=True)
    with pytest.raises(UnavailableError, match="recorded no CUDA graph"):
        forward(torch.ones(2))
