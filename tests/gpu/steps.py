"""Steps of a run on a GPU, each a process of its own with a time limit, and the one file of results that they leave."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu.facts import VARIABLE, write_json

ROOT = Path(__file__).parents[2]
LOG_BYTES = 20_000  # of each step, its end
PASSED, FAILED, NOT_ALL_RUN = 0, 1, 3


@dataclass(frozen=True)
class Step:
    """A command that writes facts (`gpu.facts`), and how many seconds it may take."""

    name: str
    command: tuple[str, ...]
    seconds: float
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


def results_path() -> Path:
    """A new file in this folder, named after the machine and the time."""
    return Path(f"gpu-results-{platform.node()}-{time.strftime('%Y%m%d-%H%M%S')}.json").resolve()


def run_steps(steps: Sequence[Step], path: Path, seconds: float = float("inf")) -> int:
    """Run `steps` in turn, also after one has failed; `path` holds the results so far after each.

    All together take no more than `seconds`. Gives the exit code: 1 where a check failed, 3 where one could not be run
    and none failed, else 0.
    """
    end = time.monotonic() + seconds
    results: dict[str, Any] = {"environment": _environment(), "parts": [], "benches": []}
    write_json(path, results)
    for number, step in enumerate(steps, 1):
        left = end - time.monotonic()
        print(f"\n== {number} of {len(steps)}: {step.name}", flush=True)
        part, benches = _run(step, min(step.seconds, left)) if left > 0 else (_no_time(step), [])
        results["parts"].append(part)
        names = {bench["model"]["name"] for bench in benches}
        results["benches"] = [b for b in results["benches"] if b["model"]["name"] not in names] + benches
        write_json(path, results)
        print(f"== {step.name}: {part['outcome']} in {part['seconds']:.1f} s {part['reason']}".rstrip(), flush=True)
    print(f"\n{_summary(results['parts'])}\nresults: {path}", flush=True)
    return _exit_code(results["parts"])


def _run(step: Step, seconds: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        facts_path, log_path = Path(folder, "facts.json"), Path(folder, "log")
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                step.command,
                cwd=ROOT,
                env={**os.environ, **_python_path(), **step.environment, VARIABLE: str(facts_path)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            copying = threading.Thread(target=_copy, args=(process, log))
            copying.start()
            try:
                cut = _ended_late(process, seconds)
            finally:  # whatever it left, which may keep its output open
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            copying.join(10)
        facts = json.loads(facts_path.read_text(encoding="utf-8")) if facts_path.exists() else {}
        log_text = log_path.read_bytes()[-LOG_BYTES:].decode(errors="replace")
    checks = facts.get("checks", {})
    outcome, reason = _outcome(checks, process.returncode, cut, seconds)
    part = {
        "name": step.name, "outcome": outcome, "reason": reason, "seconds": round(time.monotonic() - start, 2),
        "checks": checks, "log": log_text,
    }  # fmt: skip
    return part, facts.get("benches", [])


def _copy(process: subprocess.Popen[bytes], log: Any) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        log.write(line)
        print(line.decode(errors="replace"), end="", flush=True)


def _ended_late(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait for `process`; whether it had to be ended, with all that it started."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def _outcome(checks: dict[str, Any], code: int, cut: bool, seconds: float) -> tuple[str, str]:
    outcomes = [check["outcome"] for check in checks.values()]
    if cut:
        return "failed", f"ended after {seconds:.0f} s, its limit"
    if code < 0:
        return "failed", f"ended by {signal.Signals(-code).name}"
    if "failed" in outcomes:
        return "failed", f"{outcomes.count('failed')} of {len(outcomes)} checks"
    if code != 0:
        return "failed", f"ended with exit code {code}"
    if not outcomes:
        return "failed", "checked nothing"
    if "not run" in outcomes:
        return "not all run", f"{outcomes.count('not run')} of {len(outcomes)} checks could not be run here"
    return "passed", ""


def _no_time(step: Step) -> dict[str, Any]:
    return {"name": step.name, "outcome": "not all run", "reason": "no time was left", "seconds": 0.0, "checks": {},
            "log": ""}  # fmt: skip


def _summary(parts: Sequence[dict[str, Any]]) -> str:
    outcomes = [check["outcome"] for part in parts for check in part["checks"].values()]
    counts = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in ("passed", "failed", "not run"))
    lines = [f"{part['name']}: {part['outcome']} in {part['seconds']:.1f} s" for part in parts]
    return "\n".join([*lines, f"checks: {counts}"])


def _exit_code(parts: Sequence[dict[str, Any]]) -> int:
    outcomes = {part["outcome"] for part in parts}
    return FAILED if "failed" in outcomes else NOT_ALL_RUN if "not all run" in outcomes else PASSED


def _python_path() -> dict[str, str]:
    """What the steps import: evodeploy from this checkout, whatever is installed, and what lies in tests."""
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), str(ROOT / "tests"), before)))}


def _environment() -> dict[str, Any]:
    try:
        from evodeploy.machine.cores import usable_cores
        from evodeploy.machine.environment import environment

        return dataclasses.asdict(environment(usable_cores()))
    except Exception as error:  # the file is worth more than this part of it
        return {"problem": f"{type(error).__name__}: {error}"}
