"""The machine's own limit: the fastest matrix product that it computes, in each precision."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from evodeploy.engines.torch_tf32 import tf32_in_torch
from evodeploy.errors import RuntimeFailedError
from evodeploy.text import reason

if TYPE_CHECKING:
    import torch

SIDES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}  # of square matrices; the largest is rarely the fastest
ROUNDS = 6

Product = Callable[[], object]


def peaks(wanted: Iterable[tuple[str, str]], threads: int) -> dict[tuple[str, str], float]:
    """Return the operations per second for each device and arithmetic in `wanted`. A multiply-add counts as two.

    An arithmetic is a precision, or tf32 for products of FP32 matrices that may be TF32.

    The result is the best run over several sizes and, on a CPU, over PyTorch's libraries: on some processors one of
    them is twice as fast as the other. They run in turn, so that a slow moment does not affect only one. The result is
    empty if PyTorch is not installed. Raises RuntimeFailedError if it fails, for example on a GPU that other processes
    fill.
    """
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(threads)
    try:
        return _fastest(wanted)
    except RuntimeError as error:
        raise RuntimeFailedError(f"the machine's matrix products could not be measured: {reason(error)}") from error


def _fastest(wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], float]:
    contest = [
        ((device, arithmetic), 2.0 * side**3, product)
        for device, arithmetic in dict.fromkeys(wanted)
        for side in SIDES[device.partition(":")[0]]
        for product in _products(device, arithmetic, side)
    ]
    best: dict[tuple[str, str], float] = {}
    for _ in range(ROUNDS):  # the first warms up, and is never the best
        for (device, arithmetic), operations, product in contest:
            with tf32_in_torch(arithmetic == "tf32"):
                speed = operations / _seconds(product, device)
            best[device, arithmetic] = max(best.get((device, arithmetic), 0.0), speed)
    return best


def _products(device: str, arithmetic: str, side: int) -> Iterator[Product]:
    import torch

    exact = dict.fromkeys(("fp32", "tf32"), torch.float32)
    dtype = (exact | {"fp16": torch.float16, "bf16": torch.bfloat16}).get(arithmetic)
    if dtype is None:  # PyTorch has no public product of INT8 matrices
        return
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    yield lambda: left @ right
    if device == "cpu" and arithmetic == "fp32" and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        yield _onednn(left, right)


def _onednn(left: torch.Tensor, right: torch.Tensor) -> Product:
    """Return the product by oneDNN, which PyTorch uses in FP32 only for operands in oneDNN's own layout."""
    import torch
    from torch.utils import mkldnn

    linear = torch.nn.Linear(*right.shape)
    linear.weight.data = right
    packed = mkldnn.to_mkldnn(linear)  # type: ignore[no-untyped-call]
    rows = left.to_mkldnn()
    return lambda: packed(rows)


def _seconds(product: Product, device: str) -> float:
    if device == "cpu":
        start = time.perf_counter()
        product()
        return time.perf_counter() - start
    import torch

    start_event, end_event = (torch.Event(device, enable_timing=True) for _ in range(2))
    with torch.cuda.device(device):  # events are recorded in the stream of the current device
        start_event.record()
        product()
        end_event.record()
    end_event.synchronize()
    return float(start_event.elapsed_time(end_event)) / 1e3
