"""The unit of systemd and the file of Docker Compose in the documentation, as far as a machine without them can say."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import typer
import yaml
from served import PICTURE, started

from evodeploy.cli import app

TEXT = (Path(__file__).parents[2] / "docs" / "howto" / "service.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
MODEL = {"unit": "/srv/models/ckpt.onnx", "compose": "/models/ckpt.onnx"}
TOKEN = {"unit": "%d/token", "compose": "/run/secrets/token"}


def unit():
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str
    parser.read_string(BLOCKS["ini"])
    return parser


def compose():
    return yaml.safe_load(BLOCKS["yaml"])["services"]["evodeploy"]


def command(kind):
    """The arguments of evodeploy that the file has."""
    if kind == "unit":
        program, *arguments = shlex.split(unit()["Service"]["ExecStart"])
        assert program == "/opt/evodeploy/bin/evodeploy"
        return arguments
    assert BLOCKS["dockerfile"].splitlines()[-1] == 'ENTRYPOINT ["evodeploy"]'
    return shlex.split(compose()["command"])


def stop_seconds(kind):
    return int(unit()["Service"]["TimeoutStopSec"] if kind == "unit" else compose()["stop_grace_period"].rstrip("s"))


@pytest.mark.parametrize("kind", ["unit", "compose"])
def test_the_command_is_one_that_serve_takes_and_has_time_to_stop(kind):
    name, model, *options = command(kind)
    parsed = typer.main.get_command(app).commands[name].make_context(name, [model, *options]).params
    assert str(parsed["artefact"]) == MODEL[kind]
    assert str(parsed["token_file"]) == TOKEN[kind]
    assert stop_seconds(kind) >= parsed["timeout"] + 10
    assert (parsed["host"] == "0.0.0.0") == (kind == "compose")


def test_the_compose_file_mounts_and_asks_what_the_command_names():
    service = compose()
    assert [each.split(":")[1] for each in service["volumes"]] == [MODEL["compose"]]
    assert TOKEN["compose"] == f"/run/secrets/{service['secrets'][0]}"
    assert yaml.safe_load(BLOCKS["yaml"])["secrets"].keys() == set(service["secrets"])
    assert [each.rsplit(":", 1)[1] for each in service["ports"]] == [command("compose")[5]]


def test_systemd_finds_no_fault_in_the_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("here is no systemd-analyze")
    path = tmp_path / "evodeploy.service"
    path.write_text(BLOCKS["ini"].replace("/opt/evodeploy/bin/evodeploy", sys.executable))
    verify = ["systemd-analyze", "verify", "--man=no", path]
    run = subprocess.run(verify, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unit", "compose"])
def test_the_command_answers_and_ends_in_time_at_a_signal_to_all_of_it(kind, small_onnx, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    real = {MODEL[kind]: small_onnx, TOKEN[kind]: tmp_path / "token", "8000": 0}
    process = started(*(real.get(each, each) for each in command(kind)), cwd=tmp_path)
    try:
        address = process.stdout.readline().split()[-1].replace("0.0.0.0", "127.0.0.1")
        check = [each.replace("http://127.0.0.1:8000", address) for each in compose()["healthcheck"]["test"]]
        assert check[:2] == ["CMD", "python"]
        subprocess.run([sys.executable, *check[2:]], check=True)
        headers = {"Authorization": "Bearer secret"}
        asked = httpx.post(f"{address}/v1/predict", content=PICTURE.read_bytes(), headers=headers, timeout=60)
        assert asked.status_code == 200
        assert httpx.post(f"{address}/v1/predict", content=PICTURE.read_bytes(), timeout=60).status_code == 401
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=stop_seconds(kind))
    finally:
        process.kill()
    assert process.returncode == 0
