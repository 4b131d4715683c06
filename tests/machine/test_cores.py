"""The cores of a machine of 64, on which control groups limit the time of this process."""

from __future__ import annotations

import pytest

from evodeploy.machine import cores


@pytest.fixture
def usable(tmp_path, monkeypatch):
    """A function that gives the usable cores where the group of this process is `own` and the `files` are there."""
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(cores, "GROUPS", tmp_path)
    monkeypatch.setattr(cores, "OWN_GROUP", tmp_path / "own")

    def found(own, files):
        if own is not None:
            (tmp_path / "own").write_text(f"1:name=x:/other\n0::{own}\n")
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{text}\n")
        return cores.usable_cores()

    return found


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("/", {"cpu.max": "200000 100000"}, 2),  # a container
        ("/", {"cpu.max": "50000 100000"}, 1),
        ("/", {"cpu.max": "250000 100000"}, 3),
        ("/", {"cpu.max": "max 100000"}, 64),
        ("/", {"cpu.max": "12800000 100000"}, 64),
        ("/", {"cpu.max": "?"}, 64),
        ("/system/own", {"system/own/cpu.max": "max 100000", "system/cpu.max": "400000 100000"}, 4),  # a service
        ("/system/own", {"system/own/cpu.max": "300000 100000", "system/cpu.max": "400000 100000"}, 3),
        ("/system/own", {"other/cpu.max": "100000 100000"}, 64),
        (None, {"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"}, 2),  # version 1
        (None, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        (None, {}, 64),  # no Linux
    ],
)
def test_a_quota_of_time_limits_the_cores(usable, own, files, expected):
    assert usable(own, files) == expected
