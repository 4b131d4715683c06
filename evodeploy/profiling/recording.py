"""Records of a runtime's profiler: the steps of each run, and the graph's nodes that each step consists of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from evodeploy.engines.base import Array, Engine


@dataclass(frozen=True)
class Step:
    """A step that a runtime times as one: the runtime's name for it, its operator ("" if unknown), and seconds."""

    name: str
    operator: str
    seconds: float


@dataclass(frozen=True)
class Origins:
    """The origins of a runtime's steps in the graph.

    `made_of` maps the name of a step to the nodes that it computes, if the runtime names them. `serves` maps a step
    that the runtime added to the step that it works for, see `serving`.
    """

    made_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    serves: Mapping[str, str] = field(default_factory=dict)


class Recorder(ABC):
    """A separate engine whose runs are recorded, in one thread. Close the engine at the end."""

    engine: Engine

    @abstractmethod
    def run(self, images: Array, keep: Sequence[int] | None) -> None:
        """Run a batch, and record it."""

    @abstractmethod
    def finish(self) -> tuple[list[list[Step]], Origins]:
        """Return the steps of each run, in order, and their origins. Nothing may be run afterwards."""


def serving(users: Mapping[str, Iterable[str]], known: Iterable[str]) -> dict[str, str]:
    """Map each name in `users` that is not `known` to the nearest known one that uses its results.

    If there is none, map it to the nearest known one whose results it uses.
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
