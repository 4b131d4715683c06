"""The time of `evodeploy --help`: `python benchmarks/help_time.py [RUNS]`.

Prints the processor time of the fastest run, which other programs on the machine hardly change.
"""

from __future__ import annotations

import resource
import subprocess
import sys


def main() -> None:
    """Print the time."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    print(f"evodeploy --help: {min(_once() for _ in range(runs)):.2f} s, the fastest of {runs}")


def _once() -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "evodeploy", "--help"], stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
