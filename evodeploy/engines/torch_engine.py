"""PyTorch as an engine: the baseline that others are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evodeploy.engines.base import Array, Engine, batch_range
from evodeploy.errors import needs
from evodeploy.specs import EngineOptions, ModelInfo, TensorSpec

if TYPE_CHECKING:
    from torch import nn


class TorchEngine(Engine):
    """Runs a module that maps images to a tuple of outputs, eagerly or through torch.compile.

    By default on CUDA where PyTorch has it, else on the CPU; a bound on the threads holds for all PyTorch in this
    process.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        info: ModelInfo | None = None,
        *,
        compiled: bool = False,
        options: EngineOptions | None = None,
    ) -> None:
        options = options or EngineOptions()
        with needs("export"):
            import torch

        self.name = "torch-compile" if compiled else "torch"
        self.inputs, self.outputs, self.info = inputs, outputs, info
        self.batch = batch_range(inputs)
        self.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        if options.threads:
            torch.set_num_threads(options.threads)
        module = module.eval().to(self.device)
        self._module = torch.compile(module, dynamic=False) if compiled else module

    def _run(self, images: Array) -> dict[str, Array]:
        import torch

        with torch.inference_mode():
            values = self._module(torch.from_numpy(images).to(self.device))
        return {spec.name: value.cpu().numpy() for spec, value in zip(self.outputs, values, strict=True)}

    def _close(self) -> None:
        del self._module
