"""The processor's counters of energy, played by a folder as the kernel makes it."""

from __future__ import annotations

import pytest

from evodeploy.machine import energy


@pytest.fixture
def powercap(tmp_path, monkeypatch):
    """Return a function that makes a zone, and returns its counter."""
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)

    def zone(number, name, microjoules):
        folder = tmp_path / f"intel-rapl:{number}"
        folder.mkdir()
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text("1000000000\n")
        (folder / "energy_uj").write_text(f"{microjoules}\n")
        return folder / "energy_uj"

    return zone


def test_packages_count_and_neither_their_parts_nor_the_whole_platform(powercap):
    zones = {"0": "package-0", "0:0": "core", "1": "psys", "10": "package-10-die-0"}
    counters = [powercap(number, name, 5_000_000) for number, name in zones.items()]
    meter = energy.meter_of("cpu")
    for counter, joules in zip(counters, (2, 1, 40, 3), strict=True):
        counter.write_text(f"{5_000_000 + joules * 1_000_000}\n")
    assert meter() == 5


def test_a_counter_that_starts_again_at_zero_loses_nothing(powercap):
    counter = powercap("0", "package-0", 999_000_000)
    meter = energy.meter_of("cpu")
    counter.write_text("1000000\n")
    assert meter() == 2


def test_without_a_package_there_is_no_meter(powercap):
    powercap("0", "psys", 1)
    assert energy.meter_of("cpu") is None
