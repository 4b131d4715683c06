"""What all fuzzers share: how long they run, JSON of any shape, and documents that are nearly right."""

from __future__ import annotations

import copy
import itertools
import time

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from evodeploy.text import printable

QUICK = 50  # examples, the same in every run
effort = pytest.mark.parametrize(
    "seconds", [pytest.param(0, id="quick"), pytest.param(60, id="minute", marks=pytest.mark.slow)]
)
_COMMON = {"database": None, "deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": False}

CHARACTERS = st.characters()  # lone surrogates and control characters among them
WORDS = st.text(CHARACTERS, max_size=12)
NUMBERS = (
    st.integers(-(2**70), 2**70)
    | st.integers(-2, 70)
    | st.floats()
    | st.sampled_from([0.5, 1e300, -0.0, 10**40, 10**400])
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS | st.text(CHARACTERS, min_size=300, max_size=320),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=8,
)


def clean(message, limit):
    """Whether `message` is one line of bounded length that a terminal only shows."""
    return message == printable(message) and "\n" not in message and len(message) < limit


def hunt(strategy, check, seconds):
    """Run `check` on values of `strategy`: the quick ones, and others for as many `seconds`."""
    end = time.monotonic() + seconds
    settings(max_examples=QUICK, derandomize=True, **_COMMON)(given(strategy)(check))()
    for number in itertools.count():
        if time.monotonic() >= end:
            return
        seed(number)(settings(max_examples=200, **_COMMON)(given(strategy)(check)))()


@st.composite
def nearly(draw, document):
    """`document`, plain JSON values, with one to three of its parts replaced, removed or added to."""
    changed = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        holders = [changed, *_holders(changed)]
        holder = holders[draw(st.integers(0, len(holders) - 1))]
        keys = sorted(holder) if isinstance(holder, dict) else list(range(len(holder)))
        action = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
        if action == "add" or not keys:
            if isinstance(holder, dict):
                holder[draw(WORDS)] = draw(JSON)
            else:
                holder.append(draw(JSON))
        elif action == "remove":
            del holder[draw(st.sampled_from(keys))]
        else:
            holder[draw(st.sampled_from(keys))] = draw(JSON)
    return changed


def _holders(value):
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, (dict, list)):
            yield item
            yield from _holders(item)


@st.composite
def nearly_bytes(draw, data):
    """`data` with bytes changed, cut or repeated."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(0, len(changed) - 1)))
        action = draw(st.sampled_from(["flip", "flip", "cut", "repeat", "insert"]))
        if action == "flip" and changed:
            changed[place] ^= draw(st.integers(1, 255))
        elif action == "cut":
            del changed[place : place + draw(st.integers(1, len(changed) + 1))]
        elif action == "repeat":
            changed[place:place] = changed[place : place + draw(st.integers(1, 64))] * draw(st.integers(1, 4))
        else:
            changed[place:place] = draw(st.binary(max_size=16))
    return bytes(changed)
