"""PyTorch as an engine: the baseline that others are compared with."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from evodeploy.engines.base import Array, Engine, Resident, batch_range
from evodeploy.engines.torch_compiled import compiled_by_batch
from evodeploy.errors import needs
from evodeploy.specs import EngineOptions, ModelInfo, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


class TorchEngine(Engine):
    """Runs a module that maps images to a tuple of outputs, eagerly or through torch.compile.

    By default on CUDA where PyTorch has it, else on the CPU; a bound on the threads holds for all PyTorch in this
    process. A precision other than float32 is by autocast, which leaves to float32 what it would harm.
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
        super().__init__()
        options = options or EngineOptions()
        with needs("export"):
            import torch

        self.name = "torch-compile" if compiled else "torch"
        self.inputs, self.outputs, self.info = inputs, outputs, info
        self.batch = batch_range(inputs)
        self.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.tf32 = self.device != "cpu"  # cuDNN's convolutions are, unless PyTorch is told otherwise
        if options.threads:
            torch.set_num_threads(options.threads)
        reduced = {"fp16": torch.float16, "bf16": torch.bfloat16}
        self._autocast = reduced.get(options.precision or "fp32")
        self._eager = module.eval().to(self.device)
        self._forward: Callable[[Tensor], tuple[Tensor, ...]]
        self._forward = compiled_by_batch(self._eager) if compiled else self._eager

    def run_in_float64(self, images: Array) -> dict[str, Array]:
        """What `run` gives, computed in float64 by a copy of the network, with floating-point outputs in float64.

        Raises as `run` does.
        """
        import torch

        with self.working(images), torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
            exact = copy.deepcopy(self._eager).double()
            values = exact(batch.double() if batch.is_floating_point() else batch)
        return {spec.name: value.cpu().numpy() for spec, value in zip(self.outputs, values, strict=True)}

    def resident(self, images: Array, in_flight: int = 1) -> Resident | None:
        """On CUDA a batch in the GPU's memory."""
        if self.device == "cpu":
            return None
        with self.working(images):
            from evodeploy.engines.torch_resident import TorchResident

            return TorchResident(self, images)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """What the module gives for `images`, which lie on its device."""
        import torch

        kind = torch.device(self.device).type
        with torch.inference_mode(), torch.autocast(kind, self._autocast, enabled=self._autocast is not None):
            return self._forward(images)

    def fetched(self, values: tuple[Tensor, ...]) -> dict[str, Array]:
        """`values` by name on the host, floating-point ones as float32."""
        floats = (value.float() if value.is_floating_point() else value for value in values)
        return {spec.name: value.cpu().numpy() for spec, value in zip(self.outputs, floats, strict=True)}

    def _run(self, images: Array) -> dict[str, Array]:
        import torch

        return self.fetched(self.forward(torch.from_numpy(images).to(self.device)))

    def _close(self) -> None:
        del self._forward, self._eager
