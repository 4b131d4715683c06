"""The acceptance on a machine with a GPU, without a network and without TensorRT itself; docs/howto/gpu.md says how.

    python3 tests/gpu/accept.py [--wheels FOLDER] [--output FILE] [--minutes 9.5] [--steps A,B]

Each step is a process of its own with a time limit, and FILE is written after each. Nothing is installed: evodeploy is
imported from this checkout, wheels are unpacked into a temporary folder. Ends with 1 where a check failed, with 3 where
one could not be run here and none failed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT))

from gpu.prepare import joined  # noqa: E402
from gpu.steps import Step, results_path, run_steps  # noqa: E402

GPU = Path(__file__).parent
SECONDS = {
    "runner": 180,
    "clock": 40,
    "nvml": 40,
    "lean": 40,
    "rtx": 60,
    "torch": 200,
    "elastic": 60,
    "evo_over_dense": 360,
}
RESERVE = 15  # seconds of the whole, for starting and writing


def pycuda_of(given: argparse.Namespace, work: Path) -> Path:
    """The folder that holds pycuda, or that gets it: steps are run in another folder than this."""
    return (given.pycuda or work / "pycuda").resolve()


def steps_of(names: Sequence[str], given: argparse.Namespace, work: Path, end: float) -> list[Step]:
    """The steps called `names`; `work` is theirs, `end` when the last must have ended, by time.time()."""
    built = pycuda_of(given, work)
    runner = (sys.executable, str(GPU / "runner_step.py"), "--pycuda", str(built))
    if given.wheels and not given.pycuda:
        runner = (*runner, "--source", str(given.wheels.resolve()))
    cases = ("--cases", given.cases) if given.cases else ()
    commands: dict[str, tuple[str, ...]] = {
        "runner": (*runner, *cases),
        "clock": (*runner, "--cases", "resident_clock"),
        "nvml": (sys.executable, str(GPU / "nvml_step.py")),
        "lean": (sys.executable, str(GPU / "lean_step.py")),
        "rtx": (sys.executable, str(GPU / "rtx_step.py")),
        "torch": (sys.executable, str(GPU / "torch_step.py")),
        "elastic": (sys.executable, str(GPU / "elastic_step.py")),
        "evo_over_dense": (sys.executable, str(GPU / "over_dense_step.py"), "--end", str(end)),
    }
    return [Step(name, commands[name], SECONDS[name]) for name in names]


def unpack(wheels: Path, site: Path) -> None:
    """What is in `wheels` becomes importable from `site`, without headers and sources."""
    site.mkdir()
    for wheel in joined(wheels, site.parent):
        if not wheel.name.startswith("nvidia_cuda_"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)


def main() -> int:
    """Run the steps; the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--wheels", type=Path, help="what prepare.py has put together")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--steps", default=",".join(SECONDS))
    parser.add_argument("--pycuda", type=Path, help="a folder with pycuda, in place of its source in the wheels")
    parser.add_argument("--cases", help="of the step runner")
    given = parser.parse_args()
    names = given.steps.split(",")
    unknown = [name for name in names if name not in SECONDS]
    if unknown:
        parser.error(f"no step is called '{unknown[0]}': expected some of {', '.join(SECONDS)}")
    seconds = 60 * given.minutes - RESERVE
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder) / "site"
        if given.wheels:
            unpack(given.wheels, site)
        paths = (site if given.wheels else "", pycuda_of(given, Path(folder)), os.environ.get("PYTHONPATH", ""))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, map(str, paths)))
        steps = steps_of(names, given, Path(folder), time.time() + seconds)
        return run_steps(steps, (given.output or results_path()).resolve(), seconds)


if __name__ == "__main__":
    sys.exit(main())
