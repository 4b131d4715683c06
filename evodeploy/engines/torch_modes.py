"""The modes in which PyTorch runs a network, by engine name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TorchMode:
    """Eager execution, or torch.compile in the mode `compile`.

    `autocast` keeps the weights in float32 and casts them at each run; otherwise a reduced precision is that of the
    weights. `channels_last` stores the weights of convolutions in that format. `cuda_graphs` says that torch.compile
    replays CUDA graphs on a GPU. `on_gpu` says that the mode is for GPUs only: on the CPU it is the same as another
    mode.
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
