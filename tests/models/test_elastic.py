"""A network run at any keep ratio equals the network that is configured with that ratio."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import SMALL
from levit_cases import small as small_levit

from evodeploy.engines.torch_network import torch_engine
from evodeploy.errors import InputError, UsageError
from evodeploy.models.loaded import reconfigured, with_elastic
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import EvoDeiTConfig, with_selection
from evodeploy.specs import EngineOptions

LEVIT = small_levit()
RATIOS = (0.25, 0.5, 0.9)


@pytest.mark.parametrize("selection", ["stage", "layer"])
@pytest.mark.parametrize("config", [SMALL, LEVIT], ids=["deit", "levit"])
def test_keeping_tokens_at_run_time_equals_configured_keep_ratios(config, selection):
    model = random_model(with_selection(config, (1.0,), selection), seed=3)  # dense, like a plain ViT
    images = torch.randn(2, 3, config.image_size, config.image_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for ratio in RATIOS:
            static = reconfigured(model, with_selection(model.config, (ratio,))).module
            expected = static.evolve(images)
            keep = [int(ratio * tokens) for tokens in config.stage_tokens]
            got = model.module.evolve(images, keep)
            torch.testing.assert_close(static.classify(expected), model.module.classify(got), rtol=0, atol=0)
            assert (
                len(got.selected) == len(expected.selected) == (len(keep) if selection == "stage" else LAYERS[config])
            )
            for ours, theirs in zip(got.selected, expected.selected, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
        dense = model.module(images)
        everything = model.module.evolve(images, config.stage_tokens)
        torch.testing.assert_close(
            model.module.classify(everything), dense, rtol=0, atol=2e-6 * float(dense.abs().max())
        )


LAYERS = {SMALL: 4, LEVIT: 5}


@pytest.mark.parametrize("config", [SMALL, LEVIT], ids=["deit", "levit"])
def test_what_is_kept_may_change_at_each_step_of_training(config):
    module = random_model(config, seed=3).module.requires_grad_(True)
    images = torch.randn(2, 3, config.image_size, config.image_size, generator=torch.Generator().manual_seed(0))
    for ratio in (0.5, 1.0):
        module.zero_grad()
        evolved = module.evolve(images, [int(ratio * tokens) for tokens in config.stage_tokens])
        module.classify(evolved).square().mean().backward()
        gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
        missing = {name for name, gradient in gradients.items() if gradient is None}
        assert not [name for name in missing if "learn_tradeoff" not in name]
        assert all(gradient.isfinite().all() for gradient in gradients.values() if gradient is not None)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ((65, 10), "stage 0 cannot keep 65 tokens, expected 1 to 64"),
        ((64, 0), "stage 1 cannot keep 0 tokens, expected 1 to 64"),
        ((64,), "keep has 1 numbers of tokens, expected 2, one for each stage"),
    ],
)
def test_a_network_cannot_keep_more_tokens_than_it_has(small, keep, message):
    with pytest.raises(InputError, match=message):
        small.module.evolve(torch.zeros(1, 3, 64, 64), keep)


@pytest.mark.parametrize("name", ["torch", "torch-autocast"])
def test_pytorch_runs_an_elastic_network_at_any_ratio(small, small_images, name):
    elastic = with_elastic(small, (0.1, 1.0))
    options = EngineOptions(precision="bf16" if name == "torch-autocast" else None)
    with torch_engine(elastic, tokens=True, name=name, options=options) as engine:
        assert [spec.name for spec in engine.inputs] == ["images", "keep"]
        for ratio in (None, 0.25, 0.9):
            keep = elastic.info.keep_of(ratio)
            config = with_selection(small.config, None if ratio is None else (ratio,))
            with torch_engine(reconfigured(small, config), tokens=True, name=name, options=options) as static:
                expected = static.run(small_images)
            got = engine.run(small_images, keep)
            assert list(got) == list(expected)
            for output, value in expected.items():
                np.testing.assert_array_equal(got[output], value)
        exact = engine.run_in_float64(small_images, (6, 64))
        assert exact["selected_0"].shape == (3, 6) and exact["selected_1"].shape == (3, 64)
        with pytest.raises(InputError, match="stage 0 cannot keep 5 of its 64 tokens: this artefact keeps 6 to 64"):
            engine.run(small_images, (5, 64))


@pytest.mark.slow
def test_torch_compile_has_a_program_for_each_ratio(small, small_images):
    with torch_engine(with_elastic(small, (0.1, 1.0)), name="torch-compile") as engine:
        with torch_engine(small) as eager:
            np.testing.assert_allclose(
                engine.run(small_images)["logits"], eager.run(small_images)["logits"], rtol=1e-4, atol=1e-5
            )
        for kept in range(10, 20):  # more than PyTorch's limit of compilations for one code object
            engine.run(small_images, (kept, 64))


@pytest.mark.parametrize(
    ("config", "bounds", "message"),
    [
        (SMALL, (0.0, 1.0), "elastic bounds are 0 to 1, expected LOW:HIGH with 0 < LOW <= HIGH <= 1"),
        (SMALL, (0.5, 0.4), "elastic bounds are 0.5 to 0.4"),
        (SMALL, (0.1, 1.5), "elastic bounds are 0.1 to 1.5"),
        (
            SMALL,
            (0.6, 1.0),
            "own keep ratios are outside of elastic's bounds .*stage 0 cannot keep 32 of its 64 tokens",
        ),
        (with_selection(SMALL, (1.0,)), (0.1, 0.9), "stage 0 cannot keep 64 of its 64 tokens.*add --keep-ratio"),
        (
            EvoDeiTConfig("none", 64, 2, stages=(), keep_ratios=()),
            (0.1, 1.0),
            "none cannot be elastic: expected stages that select from 4 tokens or more, it has no stage",
        ),
        (
            EvoDeiTConfig("one", 64, 2, image_size=16, keep_ratios=(1.0, 1.0)),
            (0.1, 1.0),
            "one cannot be elastic: expected stages that select from 4 tokens or more, a stage has 1",
        ),
    ],
)
def test_what_cannot_be_elastic_is_refused(config, bounds, message):
    with pytest.raises(UsageError, match=message):
        with_elastic(random_model(config), bounds)
