"""What the tests on a GPU find out is kept: one file of results, to be sent back or compared."""

from __future__ import annotations

import dataclasses
import json
import platform
import time
from pathlib import Path

import pytest

from evodeploy.bench.environment import environment
from evodeploy.machine import usable_cores

FOUND: dict[str, dict[str, object]] = {}


@pytest.fixture
def found(request):
    """A dictionary for what this test measures."""
    return FOUND.setdefault(request.node.name, {})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call" or report.failed:
        facts = FOUND.setdefault(item.name, {})
        facts |= {"outcome": report.outcome, "seconds": report.duration}
        if report.failed:
            facts["failure"] = str(report.longrepr)[-2000:]
    return report


def pytest_sessionfinish(session):
    if FOUND:
        path = Path(f"gpu-results-{platform.node()}-{time.strftime('%Y%m%d-%H%M%S')}.json")
        machine = dataclasses.asdict(environment(usable_cores()))
        path.write_text(json.dumps({"environment": machine, "tests": FOUND}, indent=1) + "\n")
        print(f"\nresults: {path.resolve()}")
