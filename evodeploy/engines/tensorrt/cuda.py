"""A GPU through pycuda: its context, its memory, and translation of its errors.

PyTorch and TensorRT share a GPU's primary context, so the device retains that one and creates none. It is current only
around calls: pycuda keeps a stack of contexts for each thread, and a thread that ends with a context on it ends the
process.
"""

from __future__ import annotations

import threading
import traceback
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from evodeploy.engines.base import Array
from evodeploy.engines.out_of_memory import means_out_of_memory
from evodeploy.engines.tensorrt.once import once
from evodeploy.errors import OutOfMemoryError, RuntimeFailedError, UsageError, needs
from evodeploy.text import reason

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, which pycuda does not name

# After these errors the context computes nothing any more, according to cuda.h of CUDA 12.9. All other errors are
# temporary, including those of a disturbed recording, 900 to 908.
_STICKY = frozenset({226, 700, 702, 709, 710, *range(714, 720), 721, 810, 911})


class Device:
    """GPU number `index`; see `device`. Memory and streams are made and freed inside `active` or `releasing`.

    `driver` is the driver module of pycuda, `calls` are the driver's functions that pycuda lacks. `quiet` is held while
    a stream is recorded, and around calls that may wait for the whole GPU, such as creating and freeing TensorRT
    objects. Such a wait would end the recording.
    """

    def __init__(self, index: int) -> None:
        with needs("cuda"):
            import pycuda.driver as driver
            from cuda.bindings import driver as calls

        self.driver, self.calls = driver, calls
        self.quiet = threading.RLock()
        self._name = f"cuda:{index}"
        self._lost = ""
        self._kept: list[Any] = []
        try:
            driver.init()
            count = driver.Device.count()
            if index >= count:
                raise UsageError(f"there is no cuda:{index} here: the driver sees {count} GPU(s), numbered from 0")
            self._context = driver.Device(index).retain_primary_context()
        except driver.Error as error:
            kind = OutOfMemoryError if means_out_of_memory(error) else RuntimeFailedError
            raise kind(f"{self} does not start ({reason(error)}): stop what else uses it") from error
        weakref.finalize(self, _detach, self._context)  # the destructor of pycuda's primary context does this wrongly

    def __str__(self) -> str:
        return self._name

    @contextmanager
    def active(self) -> Iterator[None]:
        """Work on the GPU in this thread.

        Raises RuntimeFailedError if a failure, now or earlier, has lost the context. Nothing can run in it any more.
        """
        if self._lost:
            raise RuntimeFailedError(
                f"{self} cannot be used after an earlier failure ({self._lost}): start the process again"
            )
        with self.releasing():
            try:
                yield
            except (self.driver.Error, RuntimeFailedError) as error:
                if not self.lost():
                    raise
                raise RuntimeFailedError(
                    f"{self} cannot be used by this process any more ({self._lost}): start the process again"
                ) from error

    @contextmanager
    def releasing(self) -> Iterator[None]:
        """Free memory and objects on the GPU, in this thread, even if the context is lost."""
        self._context.push()
        try:
            yield
        except BaseException as error:
            _forget_variables(error)
            raise
        finally:
            self._context.pop()

    def release(self, thing: Any) -> None:
        """Free memory, or drop a stream or an event.

        In a lost context freeing would fail and print errors, so `thing` is kept until the process ends.
        """
        if self._lost:
            self._kept.append(thing)
        elif hasattr(thing, "free"):
            thing.free()

    def lost(self) -> bool:
        """Return whether the context is lost. Call it after a failure, while the context is current.

        Any call would report it. This one waits for nothing: waiting for the context would end a recording in another
        thread.
        """
        status = self.calls.cuMemGetInfo()[0]
        if status in _STICKY:
            self._lost = self.calls.cuGetErrorString(status)[1].decode()
        return bool(self._lost)

    def stream(self) -> Any:
        """Return a stream that does not wait for the default stream, where others' work would end a recording."""
        return self.driver.Stream(_NON_BLOCKING)

    def memory(self, size: int) -> Any:
        """Allocate `size` bytes on the GPU: an int gives its address, `release` frees it. Raises OutOfMemoryError."""
        try:
            return self.driver.mem_alloc(size)
        except self.driver.MemoryError as error:
            raise self.out_of_memory(size) from error

    def page_locked(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Return host memory that the GPU can copy from and to directly. Free it by `release` of its `base`."""
        try:
            array: Array = self.driver.pagelocked_empty(shape, dtype)
        except self.driver.MemoryError as error:
            raise OutOfMemoryError(
                f"cannot allocate {shape} {dtype} of page-locked memory on this machine: "
                "build the engine with a smaller --max-batch"
            ) from error
        return array

    def out_of_memory(self, wanted: int) -> OutOfMemoryError:
        """Return the error for `wanted` bytes that could not be allocated."""
        free, total = self.driver.mem_get_info()
        return OutOfMemoryError(
            f"{self} has no room for {wanted / 1e6:.1f} MB more: {free / 1e6:.1f} of {total / 1e6:.1f} MB are free; "
            "stop what else uses it, or build the engine with a smaller --max-batch"
        )


@once
def device(index: int) -> Device:
    """Return the GPU `index`. This process keeps its context until it ends, as the CUDA runtime does.

    Raises UsageError if there is no such GPU, MissingExtraError without pycuda, RuntimeFailedError if it does not
    start.
    """
    return Device(index)


def _forget_variables(error: BaseException) -> None:
    """Clear the local variables in the traceback of `error`: memory on the GPU would otherwise outlive its context."""
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__


def _detach(context: Any) -> None:
    context.push()
    context.detach()  # also removes it from this thread's stack
