"""The one interface of everything that runs a model."""

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
from evodeploy.specs import KEEP, BatchRange, ModelInfo, TensorSpec
from evodeploy.text import reason

if TYPE_CHECKING:
    from typing_extensions import Self


class Resident(ABC):
    """A batch that lies in a device's memory, run there without transfers; close it before its engine.

    It belongs to one thread. Other threads may run its engine, or batches of their own.
    """

    @property
    def launches(self) -> int:
        """How many runs in a row the next `time` takes the mean of."""
        return 1

    @property
    def hidden(self) -> bool:
        """Whether the last `time` holds nothing of the time that the host took to start the runs."""
        return True

    @abstractmethod
    def run(self) -> None:
        """Run as many batches as are in flight, and wait for them."""

    @abstractmethod
    def time(self) -> float:
        """Seconds that the device takes for a run of the batch, by its own clock."""

    @abstractmethod
    def outputs(self) -> dict[str, Array]:
        """Return what the last run computed, fetched."""

    @abstractmethod
    def close(self) -> None:
        """Free the memory."""


class Engine(ABC):
    """Something that maps a batch of images to named outputs; close it, or use it in a `with` statement.

    Threads may share an engine: each gets the outputs of its own images, and `close` waits for the runs in progress.

    Subclasses set the attributes and implement `_run`, which sees only input that fits them, and which several threads
    may call at the same time; its `keep` has the tokens of each stage of an elastic artefact, and of others nothing.
    Whatever `_run` raises is translated, and the engine stays usable afterwards. `device` is where it runs: cpu, or
    cuda:N. `tf32` says that its FP32 products may be TF32, with ten bits of each factor. `deepest` is how many batches
    it can have in flight at a time for one caller; 1 where more gain nothing.
    """

    name: str
    device: str = "cpu"
    deepest: int = 1
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch: BatchRange
    info: ModelInfo | None = None
    tf32: bool = False

    def __init__(self) -> None:
        self._usage = Usage()

    def run(self, images: Array | DLPack, keep: Sequence[int] | None = None) -> dict[str, Array]:
        """Outputs by name for `images`, an array or a tensor in host memory, shaped and typed as `inputs[0]` says.

        `keep` is how many tokens each stage of an elastic artefact keeps in this run, by default what its ratios say:
        see `ModelInfo.keep_of`. Raises InputError where images or `keep` do not fit, UsageError after `close`,
        OutOfMemoryError where memory runs out, RuntimeFailedError where the runtime fails.
        """
        array = as_array(images)
        with self.working(array, keep) as kept:
            return self._run(np.ascontiguousarray(array), kept)

    def run_many(
        self, batches: Iterable[Array], in_flight: int = 2, keep: Sequence[int] | None = None
    ) -> Iterator[dict[str, Array]]:
        """The outputs of each of `batches`, in their order, at `keep`; raises as `run` does.

        An engine on a device may have up to `in_flight` batches, and no more than its `deepest`, taken before it gives
        the outputs of the first of them, so that copies and computing overlap.
        """
        for images in batches:
            yield self.run(images, keep)

    def resident(self, images: Array, in_flight: int = 1, keep: Sequence[int] | None = None) -> Resident | None:
        """`images` placed on the engine's device for runs without transfers, or None where it computes in host memory.

        It computes `in_flight` of them at a time, up to the engine's `deepest`, at `keep`. Raises as `run` does.
        """
        return None

    @property
    def ranges(self) -> tuple[BatchRange, ...]:
        """The batch sizes that it takes, all within `batch`: by default all of these."""
        return (self.batch,)

    def takes(self, batch: int) -> bool:
        """Whether a run may have `batch` images."""
        return any(batch in each for each in self.ranges)

    def next_batch(self, images: int) -> int:
        """The smallest batch it takes that has room for `images`, or its largest where none has."""
        room = [max(images, each.min) for each in self.ranges if each.max is None or images <= each.max]
        return min(room, default=self.batch.max or images)

    @contextmanager
    def working(self, images: Array, keep: Sequence[int] | None = None) -> Iterator[tuple[int, ...]]:
        """Work with `images` inside, at the `keep` that is given, while the engine stays open; raises as `run` does."""
        with self._in_use():
            self._check(images)
            kept = self._kept(keep)
            with self._translated(len(images)):
                yield kept

    def close(self) -> None:
        """Wait for the runs in progress, then release what the engine holds; closing twice is harmless.

        A thread that calls `run` afterwards gets a UsageError.
        """
        self._usage.close(self._close)

    @abstractmethod
    def _run(self, images: Array, keep: tuple[int, ...]) -> dict[str, Array]: ...

    @abstractmethod
    def _close(self) -> None: ...

    def _fed(self, images: Array, keep: tuple[int, ...]) -> dict[str, Array]:
        """Return a run's inputs by name, as arrays."""
        fed = {self.inputs[0].name: images}
        return fed | {KEEP: np.array(keep, np.int64)} if keep else fed

    def _in_use(self) -> AbstractContextManager[None]:
        return self._usage.working(f"{self.name} engine")

    @contextmanager
    def _translated(self, batch: int = 0) -> Iterator[None]:
        """Translate what a runtime raises at a batch of this size, or without one while it opens."""
        when, fix = f"at batch {batch}", "use a smaller batch"
        if not batch:
            when, fix = f"while it opens on {self.device}", "end what else uses that memory"
        try:
            yield
        except EvodeployError:
            raise
        except Exception as error:
            if means_out_of_memory(error):
                raise OutOfMemoryError(f"{self.name} runs out of memory {when} ({reason(error)}): {fix}") from error
            raise RuntimeFailedError(f"{self.name} failed {when}: {reason(error)}") from error

    def _check(self, images: object) -> None:
        spec = self.inputs[0]
        if not isinstance(images, np.ndarray):
            raise InputError(f"input '{spec.name}' is a {type(images).__name__}, expected a NumPy array")
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


def run_all(engine: Engine, images: Array, chunk: int = 32, keep: Sequence[int] | None = None) -> dict[str, Array]:
    """Outputs for any number of `images`, in batches that `engine` takes and of `chunk` images where it may choose.

    Where the engine takes no batch of such a size, it gets the next larger one; the last batch is filled up with copies
    of its last image.
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
    """`images` in batches that `engine` takes, each with how many of its images count: others fill up the last one."""
    size = engine.next_batch(chunk)
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        missing = engine.next_batch(len(batch)) - len(batch)
        filled = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch
        yield filled, len(batch)
