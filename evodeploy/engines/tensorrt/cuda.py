"""A GPU through pycuda: its context, its memory, and its failures translated.

PyTorch and TensorRT share a GPU's primary context, so that one is retained and none is created. It is current only
around calls: pycuda keeps a stack of contexts for each thread, and a thread that ends with one on it ends the process.
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

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, for which pycuda has no name

# After these the context computes nothing any more: cuda.h of CUDA 12.9 says so of each. All others pass, as do those
# of a recording that was disturbed, 900 to 908.
_STICKY = frozenset({226, 700, 702, 709, 710, *range(714, 720), 721, 810, 911})


class Device:
    """GPU number `index`; see `device`. Memory and streams are made and freed inside `active` or `releasing`.

    `driver` is pycuda's, `calls` are the driver's own, for what pycuda lacks. `quiet` is held while a stream is
    recorded, and around what may wait for the whole GPU, such as TensorRT's making and freeing: that would end the
    recording.
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
            raise kind(f"{self} does not start ({reason(error)}): end what else uses it") from error
        weakref.finalize(self, _detach, self._context)  # a primary context's own destructor gets this wrong

    def __str__(self) -> str:
        return self._name

    @contextmanager
    def active(self) -> Iterator[None]:
        """Work on the GPU in this thread.

        Raises RuntimeFailedError where a failure, now or earlier, has lost the context: nothing runs in it any more.
        """
        if self._lost:
            raise RuntimeFailedError(f"{self} was lost to an earlier failure ({self._lost}): start the process again")
        with self.releasing():
            try:
                yield
            except (self.driver.Error, RuntimeFailedError) as error:
                if not self.lost():
                    raise
                raise RuntimeFailedError(
                    f"{self} is lost to this process ({self._lost}): start the process again"
                ) from error

    @contextmanager
    def releasing(self) -> Iterator[None]:
        """Free what lies on the GPU, in this thread and in a lost context too."""
        self._context.push()
        try:
            yield
        except BaseException as error:
            _forget_variables(error)
            raise
        finally:
            self._context.pop()

    def release(self, thing: Any) -> None:
        """Free memory, or let go of a stream or an event.

        In a lost context that would only fail, loudly: there it is kept until the process ends.
        """
        if self._lost:
            self._kept.append(thing)
        elif hasattr(thing, "free"):
            thing.free()

    def lost(self) -> bool:
        """Return whether the context no longer works, found out after a failure, while it is current.

        Any call says so. This one waits for nothing: to wait for the context would end a recording in another thread.
        """
        status = self.calls.cuMemGetInfo()[0]
        if status in _STICKY:
            self._lost = self.calls.cuGetErrorString(status)[1].decode()
        return bool(self._lost)

    def stream(self) -> Any:
        """Return a stream that does not wait for the default stream: work put there by others would end a recording."""
        return self.driver.Stream(_NON_BLOCKING)

    def memory(self, size: int) -> Any:
        """`size` bytes of the GPU's memory: an int is its address, `release` frees it. Raises OutOfMemoryError."""
        try:
            return self.driver.mem_alloc(size)
        except self.driver.MemoryError as error:
            raise self.out_of_memory(size) from error

    def page_locked(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Memory of the host that the GPU copies from and to by itself; `release` its `base`."""
        try:
            array: Array = self.driver.pagelocked_empty(shape, dtype)
        except self.driver.MemoryError as error:
            raise OutOfMemoryError(
                f"no {shape} {dtype} of page-locked memory can be had on this machine: "
                "build the engine with a smaller --max-batch"
            ) from error
        return array

    def out_of_memory(self, wanted: int) -> OutOfMemoryError:
        """Return the error for `wanted` bytes that could not be had."""
        free, total = self.driver.mem_get_info()
        return OutOfMemoryError(
            f"{self} has no room for {wanted / 1e6:.1f} MB more: {free / 1e6:.1f} of {total / 1e6:.1f} MB are free; "
            "end what else uses it, or build the engine with a smaller --max-batch"
        )


@once
def device(index: int) -> Device:
    """Return the GPU `index`, whose context this process keeps until it ends, as CUDA's own runtime does.

    Raises UsageError where there is no such GPU, MissingExtraError without pycuda, RuntimeFailedError where it does not
    start.
    """
    return Device(index)


def _forget_variables(error: BaseException) -> None:
    """Let go of the variables of what `error` ended: kept with it, those on the GPU would outlive their context."""
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__


def _detach(context: Any) -> None:
    context.push()
    context.detach()  # takes it off this thread's stack too
