"""What a runtime's profiler records: the steps of each run, and which nodes of the graph each is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from evodeploy.engines.base import Array, Engine


@dataclass(frozen=True)
class Step:
    """What a runtime timed as one: its own name for it, its operator ("" where that is not known), and seconds."""

    name: str
    operator: str
    seconds: float


@dataclass(frozen=True)
class Origins:
    """What the steps of a runtime come from.

    `made_of` has the nodes of the graph that a step computes, by its name, where the runtime says so; `serves` the
    step that a step of the runtime's own works for, see `serving`.
    """

    made_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    serves: Mapping[str, str] = field(default_factory=dict)


class Recorder(ABC):
    """An engine of its own whose runs are recorded, in one thread; close the engine at the end."""

    engine: Engine

    @abstractmethod
    def run(self, images: Array, keep: Sequence[int] | None) -> None:
        """Run a batch, and record it."""

    @abstractmethod
    def finish(self) -> tuple[list[list[Step]], Origins]:
        """Return the steps of each run, in the order of both, and what they come from; nothing is run afterwards."""


def serving(users: Mapping[str, Iterable[str]], known: Iterable[str]) -> dict[str, str]:
    """For each name of `users` that is not `known`, the nearest known one among those that use what it gives.

    Where none is, the nearest of those that give what it uses.
    """
    settled = set(known)
    sources: dict[str, list[str]] = {name: [] for name in users}
    for name, using in users.items():
        for user in using:
            sources.setdefault(user, []).append(name)
    found: dict[str, str] = {}
    for name in users.keys() - settled:
        nearest = _nearest(name, users, settled) or _nearest(name, sources, settled)
        if nearest is not None:
            found[name] = nearest
    return found


def _nearest(name: str, following: Mapping[str, Iterable[str]], wanted: set[str]) -> str | None:
    seen, waiting = {name}, list(following[name])
    while waiting:
        other = waiting.pop(0)
        if other in wanted:
            return other
        if other not in seen:
            seen.add(other)
            waiting += following.get(other, ())
    return None
