"""Bodies of requests on their way: how many there may be, what they hold together, and which must give way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

RATE = 16 << 10  # bytes a second: a body that comes faster keeps its place
PATIENCE = 2.0  # seconds that a body may be behind that


@dataclass(eq=False)
class Arrival:
    """A body on its way, `due` to have given its place back or to have sent more; `evict` ends it."""

    evict: Callable[[], object]
    due: float
    placed: bool
    size: int = 0
    evicted: bool = False


class Arrivals:
    """The bodies on their way: at most `places`, holding at most `most` bytes.

    Where there is no room for more, the body that is furthest behind `RATE` gives way; without one that is behind
    there is no room. What a body sends ahead of that counts for `PATIENCE` seconds and no longer.
    """

    def __init__(self, places: int, most: int) -> None:
        self._places, self._most = places, most
        self._held = 0
        self._here: set[Arrival] = set()

    def admit(self, evict: Callable[[], object], now: float, placed: bool) -> Arrival | None:
        """A body that begins `now`, with a place or in need of none; None where there is no place."""
        while placed and sum(arrival.placed for arrival in self._here) >= self._places:
            if not self._gives_way(now):
                return None
        arrival = Arrival(evict, now + PATIENCE, placed)
        self._here.add(arrival)
        return arrival

    def grows(self, arrival: Arrival, size: int, now: float) -> bool:
        """Count bytes that have come; False where there is no room for them."""
        arrival.due = min(max(arrival.due, now - PATIENCE) + size / RATE, now + PATIENCE)
        arrival.size += size
        self._held += size
        while self._held > self._most:
            if not self._gives_way(now):
                return False
        return True

    def leave(self, arrival: Arrival) -> None:
        """Give the place back."""
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
