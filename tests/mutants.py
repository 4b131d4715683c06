"""Do the tests notice a wrong core module? Change one operator or number at a time and run the tests that pin it.

    pip install cosmic-ray==8.7.0
    python tests/mutants.py [--each 60] [--seed 0] [MODULE ...]

Cosmic Ray makes the mutants; of each module a random `--each` are run, on a copy of the tree, in a process that is
forked after torch was imported. What survives is printed as a diff: a fault that no test sees, or one that changes no
answer (a limit, a text, a record that could be changed).
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import importlib
import importlib.metadata
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cosmic_ray.ast import get_ast
from cosmic_ray.mutating import MutationVisitor
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).parents[1]
# The tests that pin each module.
PINNED = {
    "models/selection.py": ["models/test_selection.py"],
    "models/merging.py": ["models/test_merging.py"],
    "models/evo_deit.py": ["models/test_evo_deit.py", "models/test_elastic.py", "models/test_merging.py"],
    "models/evo_levit.py": ["models/test_evo_levit.py", "models/test_elastic.py"],
    "elastic.py": ["engines/test_base.py"],
    "spec_rules.py": ["test_schema.py", "models/test_preprocessing.py"],
    "preprocess.py": ["test_preprocess.py"],
    "evaluation/statistics.py": ["evaluation/test_statistics.py"],
    "compare/agreement.py": ["compare/test_agreement.py"],
    "compare/relative.py": ["compare/test_relative.py"],
    "benchmark/measure/intervals.py": ["benchmark/test_intervals.py"],
    "serving/budget.py": ["serving/test_budget.py"],
    "load_testing/records.py": [
        "load_testing/test_load_test.py::test_what_is_refused_and_lost_by_grpc_is_counted",
        "load_testing/test_load_test.py::test_what_was_not_answered_is_counted",
        "load_testing/test_load_test.py::test_a_record_is_saved_under_a_name",
    ],
}
PACKAGES = frozenset(itertools.chain(importlib.metadata.packages_distributions(), sys.stdlib_module_names)) - {
    "evodeploy"
}
QUICK = "not golden"  # published sizes take seconds, and small networks are held to transcriptions
UNUSED = ("core/VariableReplacer", "core/VariableInserter")  # these ask for names of variables


class _WithoutTypes(ast.NodeTransformer):
    """Drops annotations: no test sees a change there, mypy does."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        self.generic_visit(node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign:
        node.annotation = ast.Constant(None)
        self.generic_visit(node)
        return node


def meaning(source: str) -> str:
    """What of `source` runs, as text to compare."""
    return ast.dump(_WithoutTypes().visit(ast.parse(source)))


def mutants(source: str, generator: random.Random) -> Iterator[str]:
    """The mutants of `source` that differ when run, at random: one of each place before a second one of any."""
    places: dict[object, list[tuple[Operator, int]]] = {}
    tree, before = get_ast(source), meaning(source)
    for name in operator_names():
        if name in UNUSED or "Eq_Is" in name:
            continue
        operator, occurrences = get_operator(name)(), itertools.count()
        for node in _nodes(tree):
            for place in operator.mutation_positions(node):
                places.setdefault(place, []).append((operator, next(occurrences)))
    queues = [generator.sample(place, len(place)) for place in places.values()]
    generator.shuffle(queues)
    for turn in itertools.zip_longest(*queues):
        for operator, occurrence in filter(None, turn):
            mutant = MutationVisitor.mutate_code(source, operator, occurrence)
            with contextlib.suppress(SyntaxError):
                if mutant is not None and meaning(mutant) != before:
                    yield mutant


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    for child in getattr(node, "children", ()):
        yield from _nodes(child)


def tested(tests: list[str], limit: float, imported: Path | None = None) -> tuple[str, float]:
    """Run the tests in a child process: "passed", "failed" or "slow", and its seconds."""
    began = time.monotonic()
    child = os.fork()
    if not child:
        os.setsid()
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", QUICK, *tests])
        if imported:
            imported.write_text("\n".join(sys.modules), encoding="utf-8")
        os._exit(int(code != 0))
    found = 0
    try:
        while not found and time.monotonic() - began < limit:
            time.sleep(0.02)
            found, status = os.waitpid(child, os.WNOHANG)
    finally:
        if not found:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
    outcome = "slow" if not found else "passed" if status == 0 else "failed"
    return outcome, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="such as models/selection.py; all by default")
    parser.add_argument("--each", type=int, default=60, help="mutants of each module")
    parser.add_argument("--seed", type=int, default=0, help="which")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, Path(folder, name))
        os.chdir(folder)
        os.environ |= {"PYTHONPATH": folder, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        sys.path.insert(0, folder)
        sys.dont_write_bytecode = True
        for module in given.modules or PINNED:
            score(module, given.each, given.seed)


def score(module: str, each: int, seed: int) -> None:
    """Print what survives of a module's mutants, and its score."""
    path, tests = Path("evodeploy", module), [f"tests/{name}" for name in PINNED[module]]
    source = path.read_text(encoding="utf-8")
    outcome, _ = tested(tests, 600, Path("imported"))
    if outcome != "passed":
        sys.exit(f"{module}: its tests do not pass without a mutant")
    for name in Path("imported").read_text(encoding="utf-8").split():
        if (name.split(".")[0] in PACKAGES) and name not in sys.modules:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    _, seconds = tested(tests, 600)
    killed = number = 0
    for number, mutant in enumerate(itertools.islice(mutants(source, random.Random(f"{module} {seed}")), each), 1):
        path.write_text(mutant, encoding="utf-8")
        outcome, _ = tested(tests, 3 * seconds + 5)
        killed += outcome != "passed"
        if outcome == "passed":
            lines = difflib.unified_diff(
                source.splitlines(), mutant.splitlines(), module, f"mutant {number}", "", "", 0, ""
            )
            print(*lines, sep="\n", flush=True)
    path.write_text(source, encoding="utf-8")
    print(f"{module}: {killed} of {number} killed; tests take {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
