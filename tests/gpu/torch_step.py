"""The sample on this machine's PyTorch: exported, verified, and benched eager and compiled."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from gpu.facts import NotRunError, of_this_process

SAMPLE = Path(__file__).parents[2] / "sample"
ENGINES = "torch,torch-compile"


def evodeploy(folder: Path, *arguments: object, seconds: float = 120) -> str:
    """Run the command line in `folder`; its output. Raises RuntimeError with what it said where it fails."""
    command = [sys.executable, "-m", "evodeploy", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[2:])} ended with {done.returncode}: {done.stderr[-1500:]}")
    return done.stdout


def main() -> None:
    """Run all checks; with --anywhere on the CPU too, where PyTorch has no CUDA."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--anywhere", action="store_true")
    parser.add_argument("--engines", default=ENGINES)
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--seconds", default="0.3")
    parser.add_argument("--threads", default="4", help="of the CPU")
    parser.add_argument("--limit", type=float, default=170, help="seconds of the bench")
    given = parser.parse_args()
    facts, here = of_this_process(), False
    with facts.check("torch_has_cuda") as found:
        import torch

        found |= {"torch": torch.__version__, "cuda": torch.version.cuda}
        here = torch.cuda.is_available() or given.anywhere
        if not torch.cuda.is_available():
            raise NotRunError("PyTorch has no CUDA here")
    if not here:
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(SAMPLE / "digits.pth", folder)
        with facts.check("export"):
            evodeploy(folder, "export", "digits.pth", "--tokens")
        with facts.check("verify") as found:
            found["report"] = json.loads(evodeploy(folder, "verify", "digits.pth", "digits.onnx", "--json"))
        with facts.check("bench_runs_nothing_eagerly") as found:
            options = ("--engines", given.engines, "--batch", given.batches, "--seconds", given.seconds)
            options += ("--threads", given.threads, "-o", "bench.json")
            evodeploy(folder, "bench", "digits.pth", *options, seconds=given.limit)
            # two precisions, two roles and three batches: more programs than PyTorch compiles of one code object
            document = json.loads((folder / "bench.json").read_text())
            facts.bench(document)
            rows = document["results"]
            bad = [(row["engine"], row["batch"], row.get("reason")) for row in rows if row["status"] != "ok"]
            assert not bad, bad
            found["rows"] = len(rows)


if __name__ == "__main__":
    main()
