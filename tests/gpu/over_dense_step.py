"""benchmarks/gpu_evo_over_dense.py, in the time that is left."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from gpu.facts import NotRunError, of_this_process

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
RESERVE = 20  # seconds


def main() -> None:
    """Each model is a check, and its bench is kept as it grows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--end", type=float, default=time.time() + 360, help="when to have ended, by time.time()")
    given = parser.parse_args()
    facts, cuda = of_this_process(), False
    with facts.check("torch_has_cuda") as found:
        import torch

        found |= {"torch": torch.__version__, "cuda": torch.version.cuda}
        cuda = torch.cuda.is_available()
        if not cuda:
            raise NotRunError("PyTorch has no CUDA here")
    if not cuda:
        return
    import gpu_evo_over_dense as script

    from evodeploy.machine.cores import usable_cores

    settings = script.Settings(jobs=max(1, usable_cores() // 2), end=given.end - RESERVE)
    documents = {}
    with facts.check("every_row_was_measured_and_is_right") as found:
        for document in script.measured(settings):
            documents[document["model"]["name"]] = document
            facts.bench(document)
            found["rows"] = {name: len(held["results"]) for name, held in documents.items()}
        print("\n".join(script.table([*documents.values()])), flush=True)
        rows = [row for document in documents.values() for row in document["results"]]
        assert rows, "no time was left for the first"
        bad = [(row["model"], row["batch"], row.get("reason", row["status"])) for row in rows if row["status"] != "ok"]
        assert not bad, bad


if __name__ == "__main__":
    main()
