"""A batch that stays on the GPU, for timing what the GPU does alone."""

from __future__ import annotations

from evodeploy.engines.base import Array, Resident
from evodeploy.engines.tensorrt.cuda import Device
from evodeploy.engines.tensorrt.lane import Lane
from evodeploy.engines.usage import Usage
from evodeploy.errors import UsageError


class LaneResident(Resident):
    """Timed by events before and after the launch; leaves the set `open_ones` when it is closed."""

    def __init__(self, device: Device, lane: Lane, images: Array, open_ones: set[LaneResident], usage: Usage) -> None:
        self._device, self._lane, self._open_ones, self._usage = device, lane, open_ones, usage
        self._start, self._end = device.driver.Event(), device.driver.Event()
        open_ones.add(self)
        try:
            lane.start(images)  # kernels are finished, graphs recorded, outputs there
            lane.collect()
        except BaseException:
            self.close()
            raise

    def time(self) -> float:
        """See Resident."""
        with self._usage.working("tensorrt engine"), self._device.active():
            self._check_open()
            self._start.record(self._lane.stream)
            self._lane.launch()
            self._end.record(self._lane.stream)
            self._end.synchronize()
            return float(self._start.time_till(self._end)) / 1e3

    def outputs(self) -> dict[str, Array]:
        """See Resident."""
        with self._usage.working("tensorrt engine"), self._device.active():
            self._check_open()
            self._lane.unload()
            return self._lane.collect()

    def close(self) -> None:
        """See Resident; the engine's own close does it too."""
        if self in self._open_ones:
            self._open_ones.remove(self)
            with self._device.releasing():
                self._lane.close()
                events, self._start, self._end = (self._start, self._end), None, None
                self._device.release(events)
                del events  # while the context is current: otherwise some threads cannot free them

    def _check_open(self) -> None:
        if self not in self._open_ones:
            raise UsageError("the batch on the device is closed: make another with `resident`")
