"""Batches that stay on the GPU, for timing only its work."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from evodeploy.engines.base import Array, translated
from evodeploy.engines.gate import GatedClock, GatedResident, hold
from evodeploy.engines.tensorrt.cuda import Device
from evodeploy.engines.tensorrt.lane import Lane
from evodeploy.engines.usage import Usage
from evodeploy.errors import UsageError


class LaneResident(GatedResident):
    """The same batch in one or more lanes, computed in all of them at once. Closing removes it from `open_ones`."""

    def __init__(
        self,
        device: Device,
        new_lane: Callable[[], Lane],
        in_flight: int,
        images: Array,
        keep: tuple[int, ...],
        open_ones: set[LaneResident],
        usage: Usage,
    ) -> None:
        self._device, self._open_ones, self._usage = device, open_ones, usage
        with contextlib.ExitStack() as stack:
            self._timeline = _LanesTimeline(device, stack)
            self._clock = GatedClock(self._timeline)
            for _ in range(in_flight):
                lane = new_lane()
                stack.callback(lane.close)
                self._timeline.add(lane)
                lane.start(images, keep)  # then kernels are finished, graphs recorded, and outputs present
                lane.collect()
            self._held = stack.pop_all()
        open_ones.add(self)

    def run(self) -> None:
        """See Resident."""
        with self._working():
            self._timeline.launch()
            for lane in self._timeline.lanes:
                lane.stream.synchronize()

    def time(self) -> float:
        """See Resident."""
        with self._working():
            return self._clock() / len(self._timeline.lanes)

    def outputs(self) -> dict[str, Array]:
        """See Resident."""
        with self._working():
            lane = self._timeline.lanes[-1]
            lane.unload()
            return lane.collect()

    def close(self) -> None:
        """See Resident. Closing the engine does this too."""
        if self in self._open_ones:
            self._open_ones.remove(self)
            with self._device.releasing():
                self._held.close()

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        """Keep the engine open for the work inside. Raises the same errors as a run, UsageError after `close`."""
        name = "tensorrt"
        with self._usage.working(f"{name} engine"), translated(name, str(self._device), self._timeline.lanes[0].batch):
            if self not in self._open_ones:
                raise UsageError("the batch on the device is closed: make another with `resident`")
            with self._device.active():
                yield


class _LanesTimeline:
    """One launch in each lane, all between two events in the first lane's stream."""

    def __init__(self, device: Device, stack: contextlib.ExitStack) -> None:
        self._device = device
        self.lanes: list[Lane] = []
        self._ends: list[Any] = []
        self._start = device.driver.Event()
        stack.callback(self._drop_events)

    def add(self, lane: Lane) -> None:
        self.lanes.append(lane)
        self._ends.append(self._device.driver.Event())

    def hold(self, seconds: float) -> None:
        hold(self.lanes[0].stream.handle, seconds)

    def start(self) -> None:
        self._start.record(self.lanes[0].stream)
        for lane in self.lanes[1:]:
            lane.stream.wait_for_event(self._start)

    def launch(self) -> None:
        for lane in self.lanes:
            lane.launch()

    def end(self) -> None:
        first = self.lanes[0].stream
        for lane, end in zip(self.lanes[1:], self._ends[1:], strict=True):
            end.record(lane.stream)
            first.wait_for_event(end)
        self._ends[0].record(first)

    def started(self) -> bool:
        return bool(self._start.query())

    def elapsed(self) -> float:
        self._ends[0].synchronize()
        return float(self._start.time_till(self._ends[0])) / 1e3

    def _drop_events(self) -> None:
        """Drop the events while the context is current: some threads cannot free them otherwise."""
        events, self._ends, self._start = [self._start, *self._ends], [], None
        self._device.release(events)
