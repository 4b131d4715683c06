from __future__ import annotations

import pytest
import torch
from torch.backends import cuda, cudnn

from evodeploy.engines.torch_engine import TorchEngine
from evodeploy.engines.torch_tf32 import tf32_in_torch
from evodeploy.specs import EngineOptions, TensorSpec

SPEC = TensorSpec("images", "float32", (None, 3))


def settings():
    return cuda.matmul.allow_tf32, cudnn.allow_tf32


class Watching(torch.nn.Module):
    """Keeps the settings that it runs under."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(settings())
        return (images,)


@pytest.mark.parametrize(("allowed", "inside"), [(True, (True, True)), (False, (False, False)), (None, None)])
def test_an_engine_runs_under_its_policy_and_leaves_the_process_as_it_was(allowed, inside):
    before, module = settings(), Watching()
    options = EngineOptions(device="cpu", tf32=allowed)
    with TorchEngine(module, (SPEC,), (SPEC,), options=options) as engine:
        engine.run(torch.ones(2, 3).numpy())
        assert not engine.tf32  # no CPU computes so
    assert module.seen == [inside or before]
    assert settings() == before


def test_it_is_restored_after_a_failure():
    before = settings()
    with pytest.raises(RuntimeError, match="a kernel is missing"), tf32_in_torch(not before[0]):
        raise RuntimeError("a kernel is missing")
    assert settings() == before


def test_a_program_compiled_under_one_policy_is_no_other_under_it_later():
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph

    program = torch.compile(lambda x: x @ x, backend=backend, fullgraph=True)
    for _ in range(2):
        with tf32_in_torch(True):
            program(torch.ones(2, 2))
    assert len(compiled) == 1
