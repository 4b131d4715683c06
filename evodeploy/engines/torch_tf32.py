"""A process-wide setting: whether PyTorch may compute FP32 products on a GPU in TF32."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_one_at_a_time = threading.Lock()


@contextmanager
def tf32_in_torch(allowed: bool | None) -> Iterator[None]:
    """Allow or forbid TF32 inside, in one thread of the process at a time. None leaves it unchanged."""
    if allowed is None:
        yield
        return
    from torch.backends import cuda, cudnn

    with _one_at_a_time:
        before = cuda.matmul.allow_tf32, cudnn.allow_tf32
        try:
            cuda.matmul.allow_tf32, cudnn.allow_tf32 = allowed, allowed
            yield
        finally:
            cuda.matmul.allow_tf32, cudnn.allow_tf32 = before
