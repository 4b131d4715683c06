"""A long run to find lost answers and leaks: `python benchmarks/soak.py [COUNT]`.

Streams 10,000 images of the sample's digits, a tenth of them broken in turn: truncated, empty, not an image, a missing
file, an array of a wrong type, a decompression bomb. Each must come back in its place with the right result or failure,
and memory must not grow. Prints a line every tenth of the images.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

import evodeploy
from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.images import ImageLike
from evodeploy.models.checkpoint import load_checkpoint
from evodeploy.onnx_files import write_onnx

SAMPLE = Path(__file__).parents[1] / "sample"
GROWTH = 1.05  # limit of memory, relative to that after the first fifth


def main() -> None:
    """Run the test. Exits with 1 if an image is lost or memory grows."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    memory = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_onnx(onnx_from_model(load_checkpoint(SAMPLE / "digits.pth")), folder / "m.onnx")
        broken, good = _broken(folder), sorted((SAMPLE / "images").glob("*.png"))

        def images() -> Iterator[ImageLike]:
            for number in range(count):
                yield broken[number // 10 % len(broken)] if number % 10 == 7 else good[number % len(good)]

        wrong = 0
        with evodeploy.load(folder / "m.onnx") as predictor:
            names = [prediction.label.name for prediction in predictor.predict(good)]
            for number, answer in enumerate(predictor.stream(images())):
                failed = isinstance(answer, evodeploy.Failure)
                wrong += failed != (number % 10 == 7) or (
                    not isinstance(answer, evodeploy.Failure) and answer.label.name != names[number % len(good)]
                )
                if (number + 1) % max(1, count // 10) == 0:
                    memory.append(_resident())
                    print(f"{number + 1:6} images, {wrong} wrong, {memory[-1]:.0f} MB", flush=True)
    lost = count - number - 1
    settled = memory[len(memory) // 5]
    print(f"{lost} lost, {wrong} wrong, memory {memory[-1] / settled:.3f} times what it was after a fifth")
    sys.exit(1 if lost or wrong or memory[-1] > GROWTH * settled else 0)


def _broken(folder: Path) -> list[ImageLike]:
    whole = (SAMPLE / "images" / "digit-3-0.png").read_bytes()
    contents = {"half.png": whole[: len(whole) // 2], "empty.png": b"", "text.png": b"no image at all"}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    Image.new("1", (20_000, 10_000)).save(folder / "bomb.png")
    return [*(folder / name for name in contents), folder / "none.png", np.zeros((4, 4), np.int32), folder / "bomb.png"]


def _resident() -> float:
    """Return the resident memory of this process in megabytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
