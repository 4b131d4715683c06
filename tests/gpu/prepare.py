"""Put together what `accept.py` needs on a machine without a network: `.venv/bin/python tests/gpu/prepare.py FOLDER`.

FOLDER then holds part1, part2, …, each small enough to be copied by itself: this checkout as committed, pycuda's source
with CUDA's headers, the lean runtime of TensorRT, and TensorRT for RTX. Larger files are cut; accept.py joins them.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PART_BYTES = 48 << 20
CHECKOUT = "evodeploy.tar.gz"
SOURCES = ("pycuda==2026.1",)
# Headers, then what is imported, the largest last: a copy that is cut short lacks only that.
WHEELS = (
    "nvidia-cuda-runtime==13.0.96", "nvidia-cuda-profiler-api==13.0.85",
    "cuda-pathfinder==1.9.1", "cuda-bindings==13.5.0",
    "tensorrt-lean-cu13-bindings==11.4.0.106", "tensorrt-lean-cu13-libs==11.4.0.106",
    "tensorrt-rtx-cu13-bindings==1.7.1.116", "tensorrt-rtx-cu13-libs==1.7.1.116",
)  # fmt: skip
# Of Python alone, built from source: the modules that import the bindings.
PURE = ("tensorrt-lean-cu13==11.4.0.106", "tensorrt-rtx-cu13==1.7.1.116")
PLATFORMS = ("manylinux2014_x86_64", *(f"manylinux_2_{minor}_x86_64" for minor in (12, 17, 27, 28, 31, 34, 35)))


def download(folder: Path, python: str) -> list[Path]:
    """Fetch all for that version of Python with pip; the files, the most needed first."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    subprocess.run([*pip, "--no-build-isolation", "--no-binary", ":all:", *SOURCES], check=True)
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    wheels = ["--only-binary", ":all:", "--implementation", "cp", "--python-version", python, *platforms]
    subprocess.run([*pip, *wheels, *WHEELS], check=True)
    pip_wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder)]
    subprocess.run([*pip_wheel, *PURE], check=True)
    subprocess.run(["git", "-C", str(ROOT), "archive", "-o", str(folder / CHECKOUT), "HEAD"], check=True)
    names = [CHECKOUT, *(requirement.replace("==", "-") for requirement in (*SOURCES, *PURE, *WHEELS))]
    return [next(folder.glob(f"{name.replace('-', '?')}*")) for name in names]


def pack(files: Sequence[Path], folder: Path, most: int = PART_BYTES) -> list[Path]:
    """Copy `files` into folders part1, part2, … of at most `most` bytes each, larger ones cut; those folders."""
    parts: list[Path] = []
    room = 0
    for name, content in _pieces(files, most):
        if not parts or len(content) > room:
            parts.append(folder / f"part{len(parts) + 1}")
            parts[-1].mkdir(parents=True)
            room = most
        (parts[-1] / name).write_bytes(content)
        room -= len(content)
    return parts


def _pieces(files: Sequence[Path], most: int) -> Iterator[tuple[str, bytes]]:
    for file in files:
        content = file.read_bytes()
        count = -(-len(content) // most)
        if count <= 1:
            yield file.name, content
            continue
        for number in range(count):
            yield f"{file.name}.piece{number + 1}of{count}", content[number * most : (number + 1) * most]


def joined(parts: Path, folder: Path) -> Iterator[Path]:
    """The wheels below `parts`; cut ones are put together in `folder`, those with a piece missing are left out."""
    yield from sorted(parts.rglob("*.whl"))
    for first in sorted(parts.rglob("*.whl.piece1of*")):
        name, count = first.name.rsplit(".piece1of", 1)
        pieces = [next(parts.rglob(f"{name}.piece{number + 1}of{count}"), None) for number in range(int(count))]
        if None in pieces:
            print(f"{name} is left out: of its {count} pieces some are missing", flush=True)
            continue
        with (folder / name).open("wb") as whole:
            for piece in pieces:
                assert piece is not None
                whole.write(piece.read_bytes())
        yield folder / name


def main() -> None:
    """Fetch and pack; print what to do with it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="3.12", help="of the machine with the GPU")
    given = parser.parse_args()
    if given.folder.exists():
        parser.error(f"{given.folder} is there already: name a new folder")
    with tempfile.TemporaryDirectory() as downloads:
        try:
            files = download(Path(downloads), given.python)
        except subprocess.CalledProcessError as error:
            sys.exit(
                f"`{shlex.join(error.cmd)}` failed, see above: run this script with .venv/bin/python, which "
                "`make setup` makes and which has what pycuda's source asks for"
            )
        for part in pack(files, given.folder):
            names = ", ".join(sorted(file.name for file in part.iterdir()))
            size = sum(file.stat().st_size for file in part.iterdir())
            print(f"{part}: {size / 2**20:.1f} MiB: {names}")
    print(f"there: tar -xzf part1/{CHECKOUT} && python3 tests/gpu/accept.py --wheels .")


if __name__ == "__main__":
    main()
