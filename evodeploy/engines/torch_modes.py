"""The ways in which PyTorch runs a network, by the name of the engine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TorchMode:
    """Eager, or with `compile` by torch.compile in the mode of that name.

    `autocast` keeps the weights in float32 and casts them at each run; otherwise a reduced precision is that of the
    weights. `channels_last` stores the weights of convolutions so. `cuda_graphs` says that torch.compile replays CUDA
    graphs on a GPU, `on_gpu` that the mode is another's on the CPU.
    """

    compile: str | None = None
    autocast: bool = False
    channels_last: bool = False
    cuda_graphs: bool = False
    on_gpu: bool = False


TORCH_MODES = {
    "torch": TorchMode(),
    "torch-channels-last": TorchMode(channels_last=True),
    "torch-autocast": TorchMode(autocast=True),
    "torch-compile": TorchMode("default"),
    "torch-compile-reduce-overhead": TorchMode("reduce-overhead", cuda_graphs=True, on_gpu=True),
    "torch-compile-max-autotune": TorchMode("max-autotune", cuda_graphs=True),
}
