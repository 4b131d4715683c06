"""What a process has one of."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Hashable
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


def once(make: Callable[[Key], Value]) -> Callable[[Key], Value]:
    """`make`, called once for each key and kept; threads wait for the first, which functools.cache does not see to."""
    lock, kept = threading.RLock(), functools.cache(make)

    @functools.wraps(make)
    def made(key: Key) -> Value:
        with lock:
            return kept(key)

    return made
