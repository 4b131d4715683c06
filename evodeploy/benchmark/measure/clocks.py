"""What a GPU's clocks were while a row was timed."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from evodeploy.machine.nvml import GpuState, gpu_state


@dataclass(frozen=True)
class Clocks:
    """Over all samples of a row: MHz in the median and the least, the most degrees; None where the GPU does not say.

    `slowdowns` are reasons, each with the share of samples in which the GPU was slower for it.
    """

    mhz: float | None
    lowest_mhz: int | None
    memory_mhz: float | None
    celsius: int | None
    slowdowns: tuple[tuple[str, float], ...]


@dataclass
class ClockLog:
    """Looks at the GPU after each sample, before its clocks fall."""

    states: list[GpuState] = field(default_factory=list)

    def note(self) -> None:
        """Look now."""
        state = gpu_state()
        if state is not None:
            self.states.append(state)

    def summary(self) -> Clocks | None:
        """What was seen, None where nothing could be."""
        if not self.states:
            return None
        counts = Counter(name for state in self.states for name in state.slowdowns)
        mhz = [state.mhz for state in self.states if state.mhz is not None]
        return Clocks(
            mhz=_median(mhz),
            lowest_mhz=min(mhz, default=None),
            memory_mhz=_median([state.memory_mhz for state in self.states if state.memory_mhz is not None]),
            celsius=max((state.celsius for state in self.states if state.celsius is not None), default=None),
            slowdowns=tuple((name, count / len(self.states)) for name, count in counts.items()),
        )


def _median(values: Sequence[int]) -> float | None:
    return statistics.median(values) if values else None
