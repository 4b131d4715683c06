"""The runner of engines on this machine's driver, or on the shim: each case a process of its own.

python tests/gpu/runner_step.py [--pycuda FOLDER [--source FOLDER]] [--cases A,B]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from cuda_shim.build import build_for_driver
from cuda_shim.plans import write_exact, write_half, write_plan
from gpu.facts import Facts, NotRunError, of_this_process

from evodeploy.machine.driver import architecture, driver_problem

TESTS = Path(__file__).parents[1]
SECONDS = 60  # of a case, at most
NOT_RUN = 77
GAPS = ((1, 1, 1), (8, 12, 16), (8, 8, 8))
RTX = {"runtime": "tensorrt-rtx", "runtime_version": "1.7.1.116"}

# Of cuda_shim/cases.py, those without injected faults; the plan's profiles and record where they are not the usual.
SHARED: dict[str, dict[str, Any]] = {
    "batches_in_turn": {},
    "gaps_between_profiles": {"profiles": GAPS},
    "streamed": {},
    "several_threads": {},
    "shared": {},
    "graphs": {},
    "recorded_next_to_others": {},
    "recorded_next_to_making": {},
    "disturbed_recording": {},
    "half_precision": {},
    "rtx_cache_and_graphs": RTX,
    "bad_plan": {"content": "no plan"},
    "another_gpu": {"architecture": "sm50"},  # older than any that TensorRT runs on
    "left_open": {},
}
OWN: dict[str, dict[str, Any]] = {
    "residents": {},
    "next_to_torch": {},
    "torch_in_its_default_stream_while_recording": {},
    "torch_out_of_memory_while_recording": {},
    "out_of_memory_while_recording": {},
    "full_gpu": {},
    "memory": {"profiles": ((1, 16, 32),)},
    "clean_end": {},
    "illegal_address": {},
}
CLOCK: dict[str, dict[str, Any]] = {"resident_clock": {}}
CASES = {**SHARED, **OWN, **CLOCK}


def run_case(name: str, pycuda: Path | None, folder: Path, program: str) -> dict[str, Any]:
    """Run one case; what it measured. Raises NotRunError with its reason, RuntimeError where it fails."""
    onnx = write_half(folder / "half.onnx") if name == "half_precision" else write_exact(folder / "exact.onnx")
    here = architecture()
    given = {"architecture": here, **({"targets": (here,)} if "runtime" in CASES[name] else {}), **CASES[name]}
    plan = write_plan(folder / "small.engine", onnx, **given)
    folders = [pycuda.resolve()] if pycuda else []
    paths = [*map(str, (*folders, TESTS.parent, TESTS, TESTS / "cuda_shim")), os.environ.get("PYTHONPATH", "")]
    report = folder / "report"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "SHIM_REPORT": str(report)}
    command = [sys.executable, str(TESTS / "gpu" / program), name, str(plan), str(onnx)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    lines = done.stdout.splitlines()
    if done.returncode == NOT_RUN:
        raise NotRunError(lines[-1])
    misuse = report.read_text() if report.exists() else ""  # the shim's
    if done.returncode or misuse:
        raise RuntimeError(f"exit code {done.returncode}: {misuse}{done.stdout[-500:]}{done.stderr[-1500:]}")
    found = {}
    for line in lines:
        if line.startswith("measured "):
            found |= json.loads(line.removeprefix("measured "))
    return found


def run_cases(names: list[str], pycuda: Path | None, program: str, facts: Facts) -> None:
    """Run all, each in a folder of its own."""
    for name in names:
        with tempfile.TemporaryDirectory() as folder, facts.check(name) as found:
            found |= run_case(name, pycuda, Path(folder), program)


def main() -> None:
    """Build pycuda from its source where there is none yet, then run the cases."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--pycuda", type=Path)
    arguments.add_argument("--source", type=Path)
    arguments.add_argument("--cases", default=",".join([*SHARED, *OWN]))
    arguments.add_argument("--program", default="on_driver.py", help="that runs a case; for tests of this file")
    given = arguments.parse_args()
    facts = of_this_process()
    with facts.check("driver"):
        problem = driver_problem()
        if problem:
            raise NotRunError(problem)
    if problem:
        return
    if given.source is not None and not given.pycuda.exists():
        with facts.check("pycuda_compiles"), tempfile.TemporaryDirectory() as folder:
            shutil.move(build_for_driver(given.source, Path(folder)), given.pycuda)
    run_cases(given.cases.split(","), given.pycuda, given.program, facts)


if __name__ == "__main__":
    main()
