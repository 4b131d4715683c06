"""The pages as they are built, and the tutorial's commands, which do what it says, in its order."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
COMMANDS = re.findall(
    r"^ {4}\$ evodeploy (.*)\n((?: {4}(?!\$).*\n)*)", TUTORIAL, re.MULTILINE
)  # each with what it prints


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built pages."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-d", folder / "doctrees", "docs", folder / "html"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return folder / "html"


class Page(HTMLParser):
    """What a page says outside code, its tags, and what it loads."""

    CODE = ("pre", "code", "script", "style")

    def __init__(self, path):
        super().__init__()
        self.depth, self.text, self.tags, self.loaded = 0, "", set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.depth += tag in self.CODE
        self.loaded += [
            value for name, value in attributes if name in ("src", "srcset") or (tag, name) == ("link", "href")
        ]

    def handle_endtag(self, tag):
        self.depth -= tag in self.CODE

    def handle_data(self, data):
        self.text += "" if self.depth else data


def test_formulas_are_mathml_and_none_is_left_raw(site):
    pages = {path.relative_to(site).as_posix(): Page(path) for path in site.rglob("*.html")}
    assert len(pages) > 15
    for name in ("explanation/selection.html", "explanation/export.html"):
        assert "math" in pages[name].tags, name
    for name, page in pages.items():
        assert not re.search(r"\$[^$\n]+\$", page.text), name  # $EVODEPLOY_TOKEN is no formula
        assert "\\leftarrow" not in page.text, name
    assert "math" not in pages["reference/commands.html"].tags


def test_no_page_loads_from_the_network(site):
    for path in site.rglob("*.html"):
        distant = [address for address in Page(path).loaded if re.match(r"(https?:)?//", address)]
        assert not distant, path.name
    for path in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", path.read_text(encoding="utf-8")), path.name


def written(*folders):
    return {path: path.read_text(encoding="utf-8") for folder in folders for path in [*(ROOT / folder).rglob("*.md")]}


def test_the_targets_listed_are_those_that_tensorrt_for_rtx_has():
    from evodeploy.engines.tensorrt.flavour import load_flavour

    *most, last = load_flavour("tensorrt-rtx").targets
    for name in ("docs/reference/verified.md", "docs/howto/gpu.md"):
        text = (ROOT / name).read_text()
        assert f"{', '.join(most)} and {last}" in " ".join(text.split()), name
    eight_bits = load_flavour("tensorrt-rtx").refused_targets("int8")
    *most, last = [name.upper() for name in [*most, last] if name not in eight_bits]
    assert f"for {', '.join(most)} and {last}, and not for {eight_bits[0].upper()}" in " ".join(
        (ROOT / "docs/explanation/precision.md").read_text().split()
    )
    for path, text in {**written("docs"), ROOT / "README.md": README}.items():
        assert not re.search(r"sm\d+ to sm\d+", text, re.IGNORECASE), path  # a range hides what is not in it


def test_the_engines_speed_is_one_figure():
    """Of Evo-DeiT-S, batch 8: other tables give shares of what they measured in the same run."""
    table = re.findall(r"^\| 8 \| (.+?) \| ([\d.]+) \|.* ([\d.]+) \| ([\d.]+) \| \d+ % \|$", RESULTS, re.MULTILINE)
    shown = re.findall(r"^\| (.+?) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| [\d.]+ \|$", README, re.MULTILINE)
    assert len(shown) == 5
    assert {(name, dense, evo, ratio) for name, evo, dense, ratio in table} >= set(shown)
    texts = {**written("docs", "examples"), ROOT / "README.md": README}
    for path, text in texts.items():
        found = re.findall(r"(?:engine|computing) alone\W+(?:batch 8\W+)?(?:does )?\d+", text)
        assert not found, (path.name, found)


def test_the_readme_is_short_and_its_links_lead_to_files():
    assert len(README.splitlines()) <= 110
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", README)
    assert len(links) > 25
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_every_link_has_a_text():
    """Sphinx fills in a text that is missing; where Markdown is read in the repository, such a link is invisible."""
    for path, text in {**written("docs", "examples", "sample"), ROOT / "README.md": README}.items():
        assert "[](" not in text, path.name


def test_rows_of_a_table_have_as_many_cells_as_its_heading():
    bars = re.compile(r"(?<!\\)\|")
    tables = 0
    for path, text in written("docs").items():
        for table in re.findall(r"^\|.*\n\|[-: |]+\|\n(?:\|.*\n)+", text, re.MULTILINE):
            tables += 1
            counts = {len(bars.findall(row)) for row in table.splitlines()}
            assert len(counts) == 1, f"{path.name}: {table[:60]}"
    assert tables > 30


def test_tests_that_the_pages_name_are_there():
    for path, text in written("docs").items():
        for name in re.findall(r"`tests/([\w./-]+)`", text):
            assert (ROOT / "tests" / name).exists(), f"{path.name} names {name}"
    rows = re.findall(r"\| ([^|]+) \|$", written("docs")[ROOT / "docs/reference/verified.md"], re.MULTILINE)
    names = [name for row in rows[1:] for name in re.findall(r"`([^`]+)`", row)]
    assert len(names) > 30 and [name for name in names if not (ROOT / "tests" / name).exists()] == []


def test_messages_that_troubleshooting_explains_are_those_of_the_code():
    page = (ROOT / "docs/howto/troubleshooting.md").read_text(encoding="utf-8")
    code = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "evodeploy").rglob("*.py"))
    code = re.sub(r'"\s+f?"', "", code)  # a message of several lines
    quoted = re.findall(r'"([^"]+)"', page)
    assert quoted
    for message in quoted:
        for part in message.split(" … "):
            assert part in code, part


def test_metadata_that_the_reference_lists_are_those_of_a_model():
    from evodeploy.specs import ModelInfo

    page = (ROOT / "docs/reference/files.md").read_text(encoding="utf-8")
    section = page[page.index("## ONNX metadata") : page.index("## The record of an engine")]
    listed = [
        name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    ]
    assert sorted(listed) == sorted(field.name for field in dataclasses.fields(ModelInfo))


def test_commands_on_the_pages_have_options_that_exist():
    from typer.main import get_command

    from evodeploy.cli import app

    known = {
        name: {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for name, command in get_command(app).commands.items()
    }
    lines = 0
    for path, text in {**written("docs"), ROOT / "README.md": README}.items():
        if path.name == "commands.md":
            continue
        for line in re.findall(r"^ +(?:\$ )?evodeploy (\S.*)$", text.replace("\\\n", " "), re.MULTILINE):
            command, *words = line.split("#")[0].split()
            if command in known:
                lines += 1
                used = {word.split("=")[0] for word in words if word.startswith("--")}
                assert used <= known[command], f"{path.name}: evodeploy {line}"
    assert lines > 100


@pytest.mark.slow
def test_the_tutorial_from_its_first_command_to_its_last(tmp_path, monkeypatch, cli):
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(ROOT / "sample" / "digits.pth", work)
    shutil.copytree(ROOT / "sample" / "images", tmp_path / "sample" / "images")
    monkeypatch.chdir(work)
    assert len(COMMANDS) > 5
    for command, shown in COMMANDS:
        words = command.split()
        found = [sorted(Path(word).parent.glob(Path(word).name)) if "*" in word else [word] for word in words]
        arguments = [name for names in found for name in names]
        code, out, err = cli(*arguments)
        assert code == 0, f"{command}: {err}"
        lines = iter(out.splitlines())
        for expected in shown.splitlines():
            pattern = re.escape(expected.strip()).replace("…", ".*")
            assert any(re.fullmatch(pattern, line.strip()) for line in lines), f"{command} lacks {expected!r}:\n{out}"
