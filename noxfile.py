"""The tests on every Python that the package claims, and on the lowest versions that it allows: `make test-pythons`.

`nox -s tests-3.13` runs one of them; what follows `--` goes to pytest. Sessions share no environment with `make setup`.
"""

from __future__ import annotations

import re
from pathlib import Path

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["tests", "lowest", "extras"]

PARALLEL = ["--numprocesses", "2", "--dist", "loadfile"]
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
TESTED = "export,cpu,tensorrt-rtx,batch,serve,grpc,ray,hub,dev,docs"
# Each must resolve for a user by itself, and each set that the documentation installs. pycuda is compiled where it is
# installed, so nothing is installed here.
RESOLVED = [
    "export",
    "cpu",
    "gpu",
    "cuda",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-lean",
    "tensorrt-lean-cu12",
    "tensorrt-rtx",
    "tensorrt-rtx-cu12",
    "serve",
    "grpc",
    "ray",
    "batch",
    "hub",
    "data",
    "export,gpu,tensorrt",
    "gpu-cu12,tensorrt-cu12",
    "export,cpu,tensorrt-rtx",
    "export,cpu",
    "export,cpu,hub",
    "tensorrt-rtx,cuda",
    "batch,cpu",
    "serve,cpu",
    "grpc,cpu",
    "ray,cpu",
    "ray,batch,cpu",
]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The quick tests, with the newest versions of everything that constraints.txt does not pin."""
    session.install("pip", "--constraint", "constraints.txt", "--editable", f".[{TESTED}]")  # tests call pip
    session.run("pytest", *PARALLEL, *session.posargs)


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """The quick tests, with the lowest version that pyproject.toml allows of every package that evodeploy imports."""
    project = nox.project.load_toml("pyproject.toml")["project"]
    optional = project["optional-dependencies"]
    extras = [extra for extra in TESTED.split(",") if extra not in ("dev", "docs")]
    direct = [*project["dependencies"], *(each for extra in extras for each in optional[extra])]
    direct = [each for each in direct if not each.startswith("evodeploy[")]
    pins = Path(session.create_tmp()) / "lowest.txt"
    # A constraint names no extras: ray[serve]>=2.60 is pinned as ray==2.60.
    pins.write_text("\n".join(re.sub(r"\[.*\]", "", each).replace(">=", "==") for each in direct))
    session.install("pip", "--constraint", str(pins), "--editable", f".[{TESTED}]")
    session.run("pytest", *PARALLEL, *session.posargs)


@nox.session(python=PYTHONS)
@nox.parametrize("extra", RESOLVED)
def extras(session: nox.Session, extra: str) -> None:
    """Resolve extras as a user's installation would, without installing them."""
    session.install("uv")
    asked = [f"--extra={each}" for each in extra.split(",")]
    session.run("uv", "pip", "compile", "--quiet", *asked, "pyproject.toml", silent=True)
