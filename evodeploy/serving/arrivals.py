"""The request bodies that are being received: limits on their number and total size, and the choice of one to drop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

RATE = 16 << 10  # bytes per second: a body that arrives faster keeps its place
PATIENCE = 2.0  # seconds that a body may lag behind that rate


@dataclass(eq=False)
class Arrival:
    """A body that is being received. By `due` it must be complete or have sent more. `evict` drops it."""

    evict: Callable[[], object]
    due: float
    placed: bool
    size: int = 0
    evicted: bool = False


class Arrivals:
    """The bodies that are being received: at most `places`, with at most `most` bytes in total.

    If there is no room for more, the body that lags furthest behind `RATE` is dropped. If none lags, nothing more is
    admitted. Bytes that a body sends ahead of the rate count for at most `PATIENCE` seconds.
    """

    def __init__(self, places: int, most: int) -> None:
        self._places, self._most = places, most
        self._held = 0
        self._here: set[Arrival] = set()

    def admit(self, evict: Callable[[], object], now: float, placed: bool) -> Arrival | None:
        """Admit a body that begins `now`, with or without a place as `placed` says. Return None if no place is free."""
        while placed and sum(arrival.placed for arrival in self._here) >= self._places:
            if not self._gives_way(now):
                return None
        arrival = Arrival(evict, now + PATIENCE, placed)
        self._here.add(arrival)
        return arrival

    def grows(self, arrival: Arrival, size: int, now: float) -> bool:
        """Count bytes that have arrived. Return False if there is no room for them."""
        arrival.due = min(max(arrival.due, now - PATIENCE) + size / RATE, now + PATIENCE)
        arrival.size += size
        self._held += size
        while self._held > self._most:
            if not self._gives_way(now):
                return False
        return True

    def leave(self, arrival: Arrival) -> None:
        """Free the place of the body."""
        if arrival in self._here:
            self._here.remove(arrival)
            self._held -= arrival.size

    def _gives_way(self, now: float) -> bool:
        last = min(self._here, key=lambda arrival: arrival.due, default=None)
        if last is None or last.due >= now:
            return False
        self.leave(last)
        last.evicted = True
        last.evict()
        return True
