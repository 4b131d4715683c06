"""The common interface of all engines, and functions that run any number of images in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import numpy as np

from evodeploy.arrays import Array as Array
from evodeploy.arrays import DLPack, as_array
from evodeploy.engines.out_of_memory import means_out_of_memory
from evodeploy.engines.usage import Usage
from evodeploy.errors import EvodeployError, InputError, OutOfMemoryError, RuntimeFailedError
from evodeploy.specs import KEEP, BatchRange, ModelInfo, Precision, TensorSpec, lowest
from evodeploy.text import reason

if TYPE_CHECKING:
    from typing_extensions import Self


class Resident(ABC):
    """A batch held in a device's memory and run there without transfers. Close it before its engine.

    It belongs to one thread. Other threads may run its engine, or their own batches.
    """

    @property
    def launches(self) -> int:
        """The number of consecutive runs that the next `time` averages over."""
        return 1

    @property
    def hidden(self) -> bool:
        """Whether the last `time` contains none of the time that the host took to start the runs."""
        return True

    @abstractmethod
    def run(self) -> None:
        """Run as many batches as are in flight, and wait for them."""

    @abstractmethod
    def time(self) -> float:
        """Return the seconds that the device takes for a run of the batch, measured by its own clock."""

    @abstractmethod
    def outputs(self) -> dict[str, Array]:
        """Copy the outputs of the last run to the host and return them."""

    @abstractmethod
    def close(self) -> None:
        """Free the memory."""


class Engine(ABC):
    """An engine maps a batch of images to named outputs. Close it, or use it in a `with` statement.

    Threads may share an engine: each gets the outputs of its own images, and `close` waits for the runs in progress.

    Subclasses set the attributes and implement `_run`. It receives only valid input, and several threads may call it at
    the same time. Its argument `keep` holds the number of tokens for each stage of an elastic artefact, and is empty
    for others. Any exception of `_run` is translated, and the engine stays usable afterwards. `device` is the device
    that it runs on: cpu or cuda:N. `tf32` says that FP32 products may be computed in TF32, with ten bits of each
    factor. `converted` is the precision that was requested for FP32 weights. `deepest` is the largest number of batches
    in flight for one caller; it is 1 if more would not be faster.
    """

    name: str
    device: str = "cpu"
    deepest: int = 1
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch: BatchRange
    info: ModelInfo | None = None
    tf32: bool = False
    converted: Precision | None = None

    def __init__(self) -> None:
        self._usage = Usage()

    def run(self, images: Array | DLPack, keep: Sequence[int] | None = None) -> dict[str, Array]:
        """Return the outputs by name for `images`, an array or tensor in host memory, shaped and typed as `inputs[0]`.

        `keep` is the number of tokens that each stage of an elastic artefact keeps in this run. By default it follows
        from the keep ratios, see `ModelInfo.keep_of`. Raises InputError if images or `keep` do not fit, UsageError
        after `close`, OutOfMemoryError if memory runs out, RuntimeFailedError if the runtime fails.
        """
        array = as_array(images)
        with self.working(array, keep) as kept:
            return self._run(np.ascontiguousarray(array), kept)

    def run_many(
        self, batches: Iterable[Array], in_flight: int = 2, keep: Sequence[int] | None = None
    ) -> Iterator[dict[str, Array]]:
        """Yield the outputs of each of `batches`, in order, at `keep`. Raises the same errors as `run`.

        An engine on a device may take up to `in_flight` batches, but no more than its `deepest`, before it yields the
        outputs of the first. Copies and computation then overlap.
        """
        for images in batches:
            yield self.run(images, keep)

    def resident(self, images: Array, in_flight: int = 1, keep: Sequence[int] | None = None) -> Resident | None:
        """Place `images` on the engine's device for runs without transfers. Returns None if it computes in host memory.

        A run computes `in_flight` copies at a time, up to the engine's `deepest`, at `keep`. Raises the same errors as
        `run`.
        """
        return None

    @property
    def precision(self) -> Precision | None:
        """The lower one of its weights' precision and of `converted`. None if both are unknown."""
        known = [each for each in (self.info.precision if self.info else None, self.converted) if each]
        return lowest(known) if known else None

    @property
    def ranges(self) -> tuple[BatchRange, ...]:
        """The accepted batch sizes, all within `batch`. By default this is all of `batch`."""
        return (self.batch,)

    def without_graph(self, batch: int, keep: Sequence[int] | None = None) -> str:
        """Return why such runs replayed no CUDA graph although the engine was opened for them, or an empty string."""
        return ""

    def takes(self, batch: int) -> bool:
        """Return whether a run may have `batch` images."""
        return any(batch in each for each in self.ranges)

    def next_batch(self, images: int) -> int:
        """Return the smallest accepted batch size with room for `images`, or the largest one if none has."""
        room = [max(images, each.min) for each in self.ranges if each.max is None or images <= each.max]
        return min(room, default=self.batch.max or images)

    @contextmanager
    def working(self, images: Array, keep: Sequence[int] | None = None) -> Iterator[tuple[int, ...]]:
        """Check the input, keep the engine open for the work inside, and yield the `keep` to use. Raises as `run`."""
        with self._in_use():
            self._check(images)
            kept = self._kept(keep)
            with self._translated(len(images)):
                yield kept

    def close(self) -> None:
        """Wait for the runs in progress, then release what the engine holds. Closing twice is harmless.

        A thread that calls `run` afterwards gets a UsageError.
        """
        self._usage.close(self._close)

    @abstractmethod
    def _run(self, images: Array, keep: tuple[int, ...]) -> dict[str, Array]: ...

    @abstractmethod
    def _close(self) -> None: ...

    def _fed(self, images: Array, keep: tuple[int, ...]) -> dict[str, Array]:
        """Return the inputs of a run by name, as arrays."""
        fed = {self.inputs[0].name: images}
        return fed | {KEEP: np.array(keep, np.int64)} if keep else fed

    def _in_use(self) -> AbstractContextManager[None]:
        return self._usage.working(f"{self.name} engine")

    def _translated(self, batch: int = 0) -> AbstractContextManager[None]:
        return translated(self.name, self.device, batch)

    def _check(self, images: object) -> None:
        spec = self.inputs[0]
        if not isinstance(images, np.ndarray):
            raise InputError(f"input '{spec.name}' is of type {type(images).__name__}, expected a NumPy array")
        if images.dtype != np.dtype(spec.dtype):
            raise InputError(f"input '{spec.name}' is {images.dtype}, expected {spec.dtype}: convert it with .astype")
        if images.ndim != len(spec.shape) or images.shape[1:] != spec.shape[1:]:
            expected = ", ".join("batch" if n is None else str(n) for n in spec.shape)
            raise InputError(f"input '{spec.name}' has shape {images.shape}, expected ({expected})")
        if not self.takes(images.shape[0]):
            taken = ", ".join(map(str, self.ranges))
            raise InputError(f"a batch of {images.shape[0]} images is outside this engine's range of {taken}")

    def _kept(self, keep: Sequence[int] | None) -> tuple[int, ...]:
        if self.info is None and keep is not None:
            raise InputError("the artefact carries no evodeploy metadata, so it takes no keep: leave it out")
        if self.info is None:
            return ()
        return self.info.keep_of() if keep is None else self.info.checked(keep)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


@contextmanager
def translated(name: str, device: str, batch: int = 0) -> Iterator[None]:
    """Translate the exceptions of the runtime `name` in a run of `batch` images, or, with 0, while its engine opens."""
    when, fix = f"at batch {batch}", "use a smaller batch"
    if not batch:
        when, fix = f"while it opens on {device}", "stop what else uses that memory"
    try:
        yield
    except EvodeployError:
        raise
    except Exception as error:
        if means_out_of_memory(error):
            raise OutOfMemoryError(f"{name} runs out of memory {when} ({reason(error)}): {fix}") from error
        raise RuntimeFailedError(f"{name} failed {when}: {reason(error)}") from error


def run_all(engine: Engine, images: Array, chunk: int = 32, keep: Sequence[int] | None = None) -> dict[str, Array]:
    """Return the outputs for any number of `images`, run in batches of `chunk` images if the engine accepts that size.

    Otherwise the batches have the next larger accepted size. Copies of the last image fill up the last batch.
    """
    counts: list[int] = []

    def counted() -> Iterator[Array]:
        for batch, count in batches(engine, images, chunk):
            counts.append(count)
            yield batch

    parts = [
        {name: value[: counts[index]] for name, value in outputs.items()}
        for index, outputs in enumerate(engine.run_many(counted(), keep=keep))
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def batches(engine: Engine, images: Array, chunk: int = 32) -> Iterator[tuple[Array, int]]:
    """Yield `images` in batches that `engine` takes, each with its number of real images: the last one is filled up."""
    size = engine.next_batch(chunk)
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        missing = engine.next_batch(len(batch)) - len(batch)
        filled = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch
        yield filled, len(batch)
