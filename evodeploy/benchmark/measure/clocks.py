"""The clocks of a GPU while a row was timed."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from evodeploy.machine.nvml import GpuState, gpu_state


@dataclass(frozen=True)
class Clocks:
    """Over all samples of a row: median and lowest MHz, highest degrees Celsius. Values that the GPU lacks are None.

    `slowdowns` are reasons, each with the share of samples in which it slowed down the GPU.
    """

    mhz: float | None
    lowest_mhz: int | None
    memory_mhz: float | None
    celsius: int | None
    slowdowns: tuple[tuple[str, float], ...]


@dataclass
class ClockLog:
    """Reads the state of the GPU after each sample, before its clocks fall."""

    states: list[GpuState] = field(default_factory=list)

    def note(self) -> None:
        """Record the current state."""
        state = gpu_state()
        if state is not None:
            self.states.append(state)

    def summary(self, samples: int) -> Clocks | None:
        """Return a summary of the states of the last `samples`, without the warm-up; None if no state was recorded."""
        states = self.states[-samples:]
        if not states:
            return None
        counts = Counter(name for state in states for name in state.slowdowns)
        mhz = [state.mhz for state in states if state.mhz is not None]
        return Clocks(
            mhz=_median(mhz),
            lowest_mhz=min(mhz, default=None),
            memory_mhz=_median([state.memory_mhz for state in states if state.memory_mhz is not None]),
            celsius=max((state.celsius for state in states if state.celsius is not None), default=None),
            slowdowns=tuple((name, count / len(states)) for name, count in counts.items()),
        )


def _median(values: Sequence[int]) -> float | None:
    return statistics.median(values) if values else None
