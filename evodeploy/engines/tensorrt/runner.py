"""The engine that runs a plan on an NVIDIA GPU."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from evodeploy.engines.base import Array, Engine, Resident
from evodeploy.engines.device import cuda_index
from evodeploy.engines.tensorrt import rtx
from evodeploy.engines.tensorrt.compatibility import check_fits, check_lengths, check_unchanged, check_whole, runtime_of
from evodeploy.engines.tensorrt.cuda import Device, device
from evodeploy.engines.tensorrt.execution import Execution, Launcher, Tensors
from evodeploy.engines.tensorrt.lane import Lane
from evodeploy.engines.tensorrt.lane_pool import LanePool
from evodeploy.engines.tensorrt.plan import Plan
from evodeploy.engines.tensorrt.recording import Key, RecordedExecution
from evodeploy.engines.tensorrt.resident import LaneResident
from evodeploy.engines.tensorrt.sidecar import PlanRecord, read_sidecar
from evodeploy.errors import EvodeployError, UnavailableError, UsageError
from evodeploy.machine.driver import architecture, driver_problem
from evodeploy.specs import BatchRange, EngineOptions

LANES = 4  # batches in flight, of all callers; two keep a GPU busy with copies and kernels


class TensorRtEngine(Engine):
    """Runs a plan, in any number of threads. Each concurrent run takes memory for the largest batch."""

    name = "tensorrt"
    deepest = LANES - 1  # the last lane is for calls between two batches of a stream

    def __init__(
        self, path: Path, options: EngineOptions | None = None, *, watch: Callable[[str, float], None] | None = None
    ) -> None:
        """Open the plan `path`, which runs code in it, with its record next to it.

        `watch` is called with each layer that is computed, see `Plan.watch`; CUDA graphs are not recorded then. Raises
        BadFileError if plan and record do not belong together, UnavailableError if the plan cannot run on this machine
        or with the TensorRT installed, OutOfMemoryError if it does not fit.
        """
        super().__init__()
        options = options or EngineOptions()
        record = read_sidecar(path)
        check_lengths(path, record.outputs, elastic=record.keep is not None)
        check_whole(record, path)
        index = cuda_index(options.device)
        if index is None:
            raise UsageError(f"the engine 'tensorrt' runs on an NVIDIA GPU only, got device {options.device}")
        problem = driver_problem()
        if problem is not None:
            raise UnavailableError(
                f"{path} is a {record.runtime} engine and runs on an NVIDIA GPU only, and here {problem}: "
                f"use the ONNX it was built from ({record.source})"
            )
        flavour = runtime_of(record)
        if options.cache and not rtx.is_rtx(flavour):
            raise UsageError(f"{flavour} compiles nothing when it opens an engine: leave out cache")
        data = path.read_bytes()
        check_unchanged(record, path, data)
        gpu = device(index)
        check_fits(record, path, flavour, architecture(index))

        self.device, self._gpu, self.tf32 = str(gpu), gpu, record.may_be_tf32
        self.inputs, self.outputs, self.info = record.inputs, record.outputs, record.model
        self._ahead = threading.Lock()
        self._residents: set[LaneResident] = set()
        with self._translated(), gpu.active(), contextlib.ExitStack() as stack:
            plan = Plan(gpu, data, flavour, record.inputs[0].name, host_code=record.version_compatible)
            stack.callback(plan.close)
            if watch is not None:
                plan.watch(watch)
            if rtx.is_rtx(flavour):
                stack.callback(rtx.configure(plan, record.plan_sha256, architecture(index), options))
            self._ranges = tuple(BatchRange(profile.min, profile.max) for profile in plan.profiles)
            self.batch = BatchRange(min(p.min for p in plan.profiles), max(p.max for p in plan.profiles))
            self._refused: dict[Key, str] = {}
            records = options.cuda_graph and not rtx.is_rtx(flavour)
            self._new_lane = partial(_new_lane, gpu, plan, record, self._refused if records else None)
            self._lanes = LanePool(self._new_lane, LANES)
            stack.callback(self._lanes.close)
            stack.callback(_close_all, self._residents)
            with self._lanes.working():
                pass  # allocates the memory for one caller now, so that a lack of it shows now
            held = stack.pop_all()
        self._release = weakref.finalize(self, _release, gpu, held)  # at the latest when the process ends

    @property
    def ranges(self) -> tuple[BatchRange, ...]:
        """The ranges of the profiles. There may be gaps between them."""
        return self._ranges

    def without_graph(self, batch: int, keep: Sequence[int] | None = None) -> str:
        """See Engine. TensorRT for RTX records by itself, and does not say whether it did."""
        return self._refused.get((batch, self._kept(keep)), "")

    def run_many(
        self, batches: Iterable[Array], in_flight: int = 2, keep: Sequence[int] | None = None
    ) -> Iterator[dict[str, Array]]:
        """See Engine. Only one caller at a time looks ahead, so that waiting lanes cannot block each other."""
        depth = self._depth(in_flight)
        if not self._ahead.acquire(blocking=False):
            yield from super().run_many(batches, keep=keep)
            return
        under_way: deque[Lane] = deque()
        try:
            for images in batches:
                under_way.append(self._start(images, keep))
                if len(under_way) == depth:
                    yield self._finish(under_way.popleft())
            while under_way:
                yield self._finish(under_way.popleft())
        finally:
            for lane in under_way:
                with contextlib.suppress(EvodeployError):  # the caller left early, or already knows of a failure
                    self._finish(lane)
            self._ahead.release()

    def resident(self, images: Array, in_flight: int = 1, keep: Sequence[int] | None = None) -> Resident:
        """See Engine."""
        depth = self._depth(in_flight)
        with self.working(images, keep) as kept, self._gpu.active():
            return LaneResident(self._gpu, self._new_lane, depth, images, kept, self._residents, self._usage)

    def _run(self, images: Array, keep: tuple[int, ...]) -> dict[str, Array]:
        with self._gpu.active(), self._lanes.working() as lane:
            lane.start(images, keep)
            return lane.collect()

    def _start(self, images: Array, keep: Sequence[int] | None) -> Lane:
        with self.working(images, keep) as kept, self._gpu.active(), self._lanes.working(park=True) as lane:
            lane.start(np.ascontiguousarray(images), kept)
            return lane

    def _finish(self, lane: Lane) -> dict[str, Array]:
        with self._in_use(), self._translated(lane.batch), self._gpu.active(), self._lanes.working(lane):
            return lane.collect()

    def _depth(self, in_flight: int) -> int:
        return max(1, min(in_flight, self.deepest))

    def _close(self) -> None:
        self._release()


def _new_lane(gpu: Device, plan: Plan, record: PlanRecord, refused: dict[Key, str] | None) -> Lane:
    """Return a lane, which records CUDA graphs except for the keys in `refused`. If that is None, it records none."""
    longest = max((stage.tokens for stage in record.elastic), default=0)
    tensors = Tensors(record.inputs[0], record.keep, record.outputs, longest)

    def launcher(addresses: dict[str, int], scratch: int, stream: int) -> Launcher:
        execution = partial(Execution, plan, tensors, addresses, scratch, stream)
        return execution() if refused is None else RecordedExecution(gpu, execution, refused, stream)

    largest = max(profile.max for profile in plan.profiles)
    return Lane(gpu, tensors, largest, plan.context_bytes, launcher)


def _close_all(residents: set[LaneResident]) -> None:
    for resident in list(residents):
        resident.close()


def _release(gpu: Device, held: contextlib.ExitStack) -> None:
    with gpu.releasing():
        held.close()
