"""The tutorial's commands do what it says, in its order."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = re.findall(r"^ {4}\$ evodeploy (.*)$", (ROOT / "docs" / "tutorial.md").read_text(), re.MULTILINE)


@pytest.mark.slow
def test_the_tutorial_from_its_first_command_to_its_last(tmp_path, monkeypatch, cli):
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(ROOT / "sample" / "digits.pth", work)
    shutil.copytree(ROOT / "sample" / "images", tmp_path / "sample" / "images")
    monkeypatch.chdir(work)
    assert len(COMMANDS) > 5
    for command in COMMANDS:
        words = command.split()
        found = [sorted(Path(word).parent.glob(Path(word).name)) if "*" in word else [word] for word in words]
        arguments = [name for names in found for name in names]
        code, _, err = cli(*arguments)
        assert code == 0, f"{command}: {err}"
