"""`make test-gpu`: the tests on a GPU in four parts, each a process of its own, and one file of results.

    python tests/gpu/parts.py [FILE]

Ends with 1 where a check failed, with 3 where one could not be run here and none failed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT))

from gpu.steps import Step, results_path, run_steps  # noqa: E402

MINUTES = {"build": 30, "run": 15, "bench": 30, "onnxruntime": 15}


def parts(work: str) -> list[Step]:
    """The four parts; engines of the first lie in `work` for the others."""
    pytest = (sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider")
    environment = {"EVODEPLOY_GPU_WORK": work}
    return [
        Step(name, (*pytest, str(ROOT / "tests" / "gpu" / f"test_{name}.py")), 60 * minutes, environment)
        for name, minutes in MINUTES.items()
    ]


def main() -> int:
    """Run all parts; the exit code."""
    path = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else results_path()
    with tempfile.TemporaryDirectory() as work:
        return run_steps(parts(work), path)


if __name__ == "__main__":
    sys.exit(main())
