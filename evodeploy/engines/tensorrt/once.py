"""Objects that a process has only one of."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Hashable
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


def once(make: Callable[[Key], Value]) -> Callable[[Key], Value]:
    """Decorate `make` to run once for each key. Other threads wait for it, which functools.cache does not ensure."""
    lock, kept = threading.RLock(), functools.cache(make)

    @functools.wraps(make)
    def made(key: Key) -> Value:
        with lock:
            return kept(key)

    return made
