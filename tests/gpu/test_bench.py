"""Part 3: the bench, with the dense twin and the rows of PyTorch, over all engines of part 1."""

from __future__ import annotations

import json

import pytest

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(0)]  # the part has a limit, which is longer than one test's
HOW = ("--batch", "1,4,16", "--seconds", "1", "--json")


def test_the_bench_runs_to_its_end(exported, folder, facts, found, cli):
    plans = sorted(folder.glob("*.engine"))
    code, out, err = cli("bench", *exported, *plans, *HOW, "--engine-cache", folder / "kept")
    assert code == 0, err
    document = json.loads(out)
    facts.bench(document)
    rows = [row for row in document["results"] if row["status"] == "ok"]
    found["rows"] = len(rows)
    on_gpu = {row["model"] for row in rows if row["device"].startswith("cuda")}
    assert on_gpu == {"evo", "dense"}
    engines = {(row["engine"], row["precision"], row["model"]) for row in rows if row["engine"].startswith("tensorrt")}
    both = {(engine, precision, role) for engine, precision, _ in engines for role in ("evo", "dense")}
    assert engines == both
