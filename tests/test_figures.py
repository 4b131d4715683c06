"""benchmarks/figures.py: every figure of the pages has a command, and a figure that differs is named."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import figures_layout
import pytest
from figures import compared, differs, main, measured
from figures_list import ENTRIES
from figures_places import Entry, Table, Text, tables

ROOT = Path(__file__).parents[1]

# Tables of numbers that no command of ours measures, each with what its numbers are.
OTHERS = {
    "docs/explanation/alternatives.md": "benchmarks/accuracy.py, which needs a checkout of ToMe; the page says how",
    "docs/explanation/gpu-evidence.md": "what others publish, each row with its source",
    "docs/howto/coming-from.md": "options",
    "docs/howto/debug.md": "networks with a fault, which the tests of debugging measure",
    "docs/howto/export.md": "options",
    "docs/howto/gpu.md": "versions",
}
LIMITS = "what | pictures at a time | at most"  # of docs/howto/python.md: computed from the table before it


def pages():
    yield ROOT / "README.md"
    yield from (path for path in (ROOT / "docs").rglob("*.md") if path.name != "commands.md")


def test_every_table_of_numbers_has_its_command():
    missing = []
    known = [place for entry in ENTRIES.values() for place in entry.places if isinstance(place, Table)]
    for path in pages():
        name = path.relative_to(ROOT).as_posix()
        if name in OTHERS or (name.startswith("docs/reference/") and not name.endswith("models.md")):
            continue
        text = path.read_text(encoding="utf-8")
        for heading, rows in re.findall(r"^\| ?(.*) \|\n\|[-| ]+\|\n((?:\|.*\n)+)", text, re.MULTILINE):
            if len(re.findall(r"\d+\.\d+|\d+ ?%|\d{3,}", rows)) < 3 or heading == LIMITS:
                continue
            if not any(place.page == name and heading.startswith(place.heading) for place in known):
                missing.append(f"{name}: {heading}")
    assert not missing, "add a command to benchmarks/figures_list.py, or say in OTHERS what the numbers are"


def test_scripts_import_what_there_is():
    missing = []
    for script in (ROOT / "benchmarks").glob("*.py"):
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "evodeploy":
                try:
                    exec(ast.unparse(node), {})
                except ImportError as error:
                    missing.append(f"{script.name}: {error}")
    assert missing == []


@pytest.mark.parametrize("name", ENTRIES)
def test_places_are_on_their_pages_and_scripts_exist(name):
    entry = ENTRIES[name]
    for place in entry.places:
        text = (ROOT / place.page).read_text(encoding="utf-8")
        if isinstance(place, Table):
            rows = [row for row in tables(text, place.heading, place.nth) if re.search(place.only, " | ".join(row))]
            assert rows, f"{place.page} has no table '{place.heading}'"
        else:
            assert re.search(place.said, " ".join(text.split())), f"{place.page} does not say '{place.said}'"
    for script in re.findall(r"\$ROOT/(\S+\.py)", entry.command):
        assert (ROOT / script).is_file()
    assert subprocess.run(["bash", "-nc", entry.command], check=False).returncode == 0


def test_the_table_of_models_is_what_the_code_counts():
    found = measured("models", ENTRIES["models"])
    assert found["differences"] == []
    assert found["compared"] > 80


def test_a_figure_that_differs_is_named_with_its_page():
    table = Table("docs/reference/models.md", "model | input")
    page = (ROOT / table.page).read_text(encoding="utf-8")
    count, lines = compared(table, page.replace("22.1 M", "22.5 M"), 0.0)
    assert count > 80
    assert lines == [
        "docs/reference/models.md: evo_deit_small_patch16_224, column 3: the page says '22.1 M', measured '22.5 M'"
    ]
    assert compared(table, "| other |\n|---|\n| 1 |\n", 0.0)[1] == [
        "docs/reference/models.md: nothing like 'model | input' was printed, or is on the page"
    ]
    text = Text("README.md", r"network is (\d+) kernels", r"(\d+) of them")
    assert compared(text, "110 of them", 0.0)[1] == [
        "README.md: network is 109 kernels: the page says '109', measured '110'"
    ]


@pytest.mark.parametrize(
    ("said", "now", "noise", "differ"),
    [
        ("19,819 / 3,505", "19,819 / 3,505", 0.0, False),
        ("19,819 / 3,505", "19,819 / 3,506", 0.0, True),
        ("25.5", "26.0", 0.05, False),
        ("25.5", "27.0", 0.05, True),
        ("1.99 (1.94–2.06)", "2.10 (2.05–2.20)", 0.01, False),  # the intervals meet
        ("1.99 (1.94–2.06)", "2.20 (2.10–2.30)", 0.5, True),
        ("53 %", "", 0.05, True),
        ("", "", 0.05, False),
    ],
)
def test_numbers_differ_beyond_their_noise_and_intervals_where_they_do_not_meet(said, now, noise, differ):
    assert differs(said, now, noise) == differ


def test_a_command_that_fails_is_a_difference():
    found = measured("x", Entry("echo begun; echo no disk >&2; exit 3", 1, ()))
    assert found["differences"] == ["the command ended with 3: no disk"]


def test_what_is_not_as_expected_is_a_difference():
    found = measured("x", Entry("true", 1, (), layout=figures_layout.bench))
    assert len(found["differences"]) == 1
    assert "bench.json" in found["differences"][0]


def test_the_table_of_elastic_files_is_that_of_its_stored_results(tmp_path):
    shutil.copy(ROOT / "benchmarks" / "results" / "elastic.json", tmp_path)
    (place,) = ENTRIES["elastic"].places
    assert compared(place, figures_layout.elastic(tmp_path, ""), 0.0) == (36, [])


def test_the_table_of_distilled_weights_is_that_of_their_stored_records(tmp_path):
    for name in ("digits", "photographs"):
        shutil.copy(ROOT / "benchmarks" / "results" / f"distilled-{name}.json", tmp_path)
    place, _ = ENTRIES["distilled-sets"].places
    assert compared(place, figures_layout.distilled(tmp_path, ""), 0.0) == (6 * 4, [])


def test_the_sentences_on_a_latency_target_are_those_of_its_stored_results(tmp_path):
    shutil.copy(ROOT / "benchmarks" / "results" / "adaptive.json", tmp_path)
    printed = figures_layout.latency(tmp_path, "")
    assert [compared(place, printed, 0.0) for place in ENTRIES["adaptive"].places] == [
        (count, []) for count in (1, 2, 2, 2, 1, 2, 1)
    ]


def test_a_bench_becomes_the_tables_of_the_pages(tmp_path):
    def row(model, engine, precision, batch):
        one = {"value": 1.0}
        ratios = {"over_eager": one, "over_torch": one, "over_dense": one, "share_of_peak": 0.5}
        names = {"model": model, "engine": engine, "precision": precision, "batch": batch}
        return {**names, **ratios, "images_per_second": {"value": 20.0}}

    rows = [row(model, *way, batch) for model in ("evo", "dense") for way in figures_layout.BENCHED for batch in (1, 8)]
    (tmp_path / "bench.json").write_text(json.dumps({"results": rows}))
    printed = figures_layout.bench(tmp_path, "")
    assert [compared(place, printed, 0.05)[0] for place in ENTRIES["engines"].places] == [14 * 6, 5 * 4]


def test_names_are_listed_and_unknown_ones_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["figures.py", "--list"])
    main()
    out = capsys.readouterr().out
    assert all(name in out for name in ENTRIES)
    monkeypatch.setattr(sys, "argv", ["figures.py", "--only", "nothing"])
    with pytest.raises(SystemExit):
        main()
    assert "no figure is called nothing" in capsys.readouterr().err


def test_results_of_earlier_runs_stay_and_each_has_its_machine(monkeypatch, tmp_path):
    path = tmp_path / "figures.json"

    def ran(name):
        monkeypatch.setattr(sys, "argv", ["figures.py", "--only", name, "-o", str(path)])
        with pytest.raises(SystemExit):
            main()
        return json.loads(path.read_text())["figures"]

    monkeypatch.setitem(ENTRIES, "one", Entry("echo 1", 1, ()))
    monkeypatch.setitem(ENTRIES, "two", Entry("echo 2", 1, ()))
    ran("two")
    first = ran("one")
    assert [(each["name"], each["output"]) for each in first] == [("one", "1\n"), ("two", "2\n")]
    assert all(each["environment"]["processor"] for each in first)
    monkeypatch.setitem(ENTRIES, "one", Entry("echo 3", 1, ()))
    assert [each["output"] for each in ran("one")] == ["3\n", "2\n"]
    monkeypatch.setitem(ENTRIES, "two", Entry("echo 4", 1, (), flags=("amx3",)))
    assert ran("two")[1]["output"] == "2\n"  # what ran on another machine is not lost


def test_a_command_whose_figures_need_another_processor_does_not_run(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(ENTRIES, "amx3", Entry("exit 3", 1, (), flags=("amx3",)))
    monkeypatch.setattr(sys, "argv", ["figures.py", "--only", "amx3", "-o", str(tmp_path / "figures.json")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "amx3: not run: the processor lacks amx3" in capsys.readouterr().out
    (found,) = json.loads((tmp_path / "figures.json").read_text())["figures"]
    assert found == {"name": "amx3", "command": "exit 3", "not_run": "the processor lacks amx3"}
