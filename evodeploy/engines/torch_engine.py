"""The PyTorch engine, the baseline for comparisons with the others."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from evodeploy.engines.base import Array, Engine, Resident
from evodeploy.engines.device import cuda_index
from evodeploy.engines.interface import batch_range
from evodeploy.engines.torch_compiled import Forward, compiled_by_batch
from evodeploy.engines.torch_modes import TORCH_MODES
from evodeploy.engines.torch_tf32 import tf32_in_torch
from evodeploy.errors import UnavailableError, UsageError, needs
from evodeploy.specs import EngineOptions, ModelInfo, Precision, TensorSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def torch_dtype(precision: Precision | None) -> torch.dtype | None:
    """Return the PyTorch type of a reduced precision, or None for float32."""
    import torch

    return {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision or "fp32")


class TorchEngine(Engine):
    """Runs a module that maps images to a tuple of outputs, in the mode of `TORCH_MODES` called `name`.

    By default it runs on CUDA if PyTorch has it, else on the CPU. A bound on the threads applies to all of PyTorch in
    this process. The module already has its precision, except for autocast, which uses the one in `options`. The engine
    owns the module from then on. Raises UnavailableError for a GPU that PyTorch does not find, UsageError for autocast
    without a reduced precision.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        info: ModelInfo | None = None,
        *,
        name: str = "torch",
        options: EngineOptions | None = None,
    ) -> None:
        super().__init__()
        options = options or EngineOptions()
        with needs("export"):
            import torch

        self.name, mode = name, TORCH_MODES[name]
        self.inputs, self.outputs, self.info = inputs, outputs, info
        self.batch = batch_range(inputs)
        gpu = cuda_index(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.device = "cpu" if gpu is None else f"cuda:{gpu}"
        self._tf32_allowed = options.tf32
        self.tf32 = self.device != "cpu" and options.tf32 is not False  # PyTorch's default for convolutions
        if gpu is not None and not torch.cuda.is_available():
            raise UnavailableError(
                f"PyTorch {torch.__version__} finds no GPU here, got device {self.device}: use the device cpu, "
                "or install PyTorch for CUDA"
            )
        if mode.on_gpu and self.device == "cpu":
            raise UnavailableError(f"{name} replays CUDA graphs, and on the CPU is the same as torch-compile: use that")
        self._autocast = torch_dtype(options.precision) if mode.autocast else None
        if mode.autocast and self._autocast is None:
            raise UsageError(
                f"{name} casts FP32 weights to the precision that is asked for, got "
                f"{options.precision or 'none'}: use the precision fp16 or bf16, or the engine torch"
            )
        if options.threads:
            torch.set_num_threads(options.threads)
        with self._translated():
            self._eager = module.eval().to(self.device)
        if mode.channels_last:
            self._eager.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._forward: Forward = self._eager
        if mode.compile:
            self._forward = compiled_by_batch(self._eager, mode.compile, mode.cuda_graphs and self.device != "cpu")

    def run_in_float64(self, images: Array, keep: Sequence[int] | None = None) -> dict[str, Array]:
        """Return the outputs of `run`, computed in float64 by a copy of the network, floating-point ones as float64.

        Raises the same errors as `run`.
        """
        import torch

        with self.working(images, keep) as kept, torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
            exact = copy.deepcopy(self._eager).double()
            values = exact(batch.double() if batch.is_floating_point() else batch, *_argument(kept))
        return {spec.name: value.cpu().numpy() for spec, value in zip(self.outputs, values, strict=True)}

    def resident(self, images: Array, in_flight: int = 1, keep: Sequence[int] | None = None) -> Resident | None:
        """Place a batch in the GPU's memory; on the CPU, return None."""
        if self.device == "cpu":
            return None
        with self.working(images, keep) as kept:
            from evodeploy.engines.torch_resident import TorchResident

            return TorchResident(self, images, kept)

    def forward(self, images: Tensor, keep: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Return the module's outputs for `images`, which lie on its device, at `keep`, empty for a static artefact."""
        import torch

        kind = torch.device(self.device).type
        autocast = torch.autocast(kind, self._autocast, enabled=self._autocast is not None)
        with tf32_in_torch(self._tf32_allowed), torch.inference_mode(), autocast:
            return self._forward(images, *_argument(keep))

    def fetched(self, values: tuple[Tensor, ...]) -> dict[str, Array]:
        """Return `values` by name on the host, floating-point ones as float32."""
        floats = (value.float() if value.is_floating_point() else value for value in values)
        return {spec.name: value.cpu().numpy() for spec, value in zip(self.outputs, floats, strict=True)}

    def _run(self, images: Array, keep: tuple[int, ...]) -> dict[str, Array]:
        import torch

        return self.fetched(self.forward(torch.from_numpy(images).to(self.device), keep))

    def _close(self) -> None:
        del self._forward, self._eager


def _argument(keep: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Return the further arguments of the module after the images. Only an elastic one takes any."""
    return (keep,) if keep else ()
