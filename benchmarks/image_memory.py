"""The memory needed to turn one picture into a model's input: `python benchmarks/image_memory.py [MEGAPIXELS]`.

The worst permitted files of each class are used, by default at Pillow's limit of 178.9 megapixels. Each is read,
cropped and prepared in a separate process. The result is the peak memory of the process minus its memory before. Prints
a Markdown table.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

LIMIT = 178_944_129  # 13377 squared; Pillow refuses more than 178956970
TURNED = Image.Exif()
TURNED[0x0112] = 6
JPEG: dict[str, Any] = {"format": "JPEG", "quality": 30}
PNG: dict[str, Any] = {"format": "PNG", "compress_level": 1}
WEBP: dict[str, Any] = {"format": "WEBP", "method": 0}
MEASURE = """
import sys
from pathlib import Path
from PIL import Image
from evodeploy.images import open_image
from evodeploy.preprocess import prepare
from evodeploy.specs import ModelInfo
info = ModelInfo("any", 224, 16, 2, "stage", (1.0,))
def most(): return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
prepare(Image.new("RGB", (300, 300)), info)
before = most()
prepare(open_image(Path(sys.argv[1])), info)
print(most() - before)
"""


def main() -> None:
    """Print the table."""
    pixels = int(float(sys.argv[1]) * 1e6) if len(sys.argv) > 1 else LIMIT
    side = int(pixels**0.5)
    print("| picture | pixels | file | most memory | bytes a pixel |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, make in _classes(side).items():
            path = Path(folder, "picture")
            width, height = make(path)
            ran = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", MEASURE, str(path)], capture_output=True, text=True, check=True
            )
            taken = int(ran.stdout) * 1024
            ratio = f"{taken / (width * height):.1f}" if width * height > 1e6 else ""
            memory = f"{taken / 1e6:.0f} MB" if taken >= 5e6 else "< 5 MB"  # less depends on the system
            size = path.stat().st_size
            print(
                f"| {name} | {width} x {height} | {size if size < 1e4 else f'{size / 1e6:.1f} MB'}"
                f"{' bytes' if size < 1e4 else ''} | {memory} | {ratio} |",
                flush=True,
            )


def _classes(side: int) -> dict[str, Callable[[Path], tuple[int, int]]]:
    """Return each class by name, with a function that writes its file and returns width and height."""

    def saved(mode: str, sides: tuple[int, int] = (side, side), **options: Any) -> Callable[[Path], tuple[int, int]]:
        def make(path: Path) -> tuple[int, int]:
            made = Image.fromarray(np.zeros(sides[::-1], np.uint16)) if mode == "I;16" else Image.new(mode, sides)
            made.save(path, **options)
            return sides

        return make

    return {
        "photograph, JPEG": saved("RGB", (4000, 3000), **JPEG),
        "JPEG": saved("RGB", **JPEG),
        "JPEG, progressive": saved("RGB", progressive=True, **JPEG),
        "JPEG, turned by EXIF": saved("RGB", exif=TURNED, **JPEG),
        "JPEG, CMYK": saved("CMYK", **JPEG),
        "JPEG, CMYK, turned by EXIF": saved("CMYK", exif=TURNED, **JPEG),
        "JPEG, CMYK, progressive": saved("CMYK", progressive=True, **JPEG),
        "PNG": saved("RGB", **PNG),
        "PNG, palette": saved("P", **PNG),
        "PNG, RGBA": saved("RGBA", **PNG),
        "PNG, RGBA, turned by EXIF": saved("RGBA", exif=TURNED, **PNG),
        "PNG, grey of 16 bits": saved("I;16", **PNG),
        "WEBP": saved("RGB", **WEBP),
        "WEBP, animated, turned by EXIF": saved(
            "RGBA", exif=TURNED, save_all=True, append_images=[Image.new("RGBA", (side, side), "red")], **WEBP
        ),
        "TIFF, grey of floats": saved("F", format="TIFF", compression="tiff_adobe_deflate"),
        "PNG, 100 times as wide as high": saved("RGB", (side * 10, side // 10), **PNG),
        "PNG, 101 times as high as wide": saved("RGB", (side // 10 - 8, (side // 10 - 8) * 101), **PNG),
        "PNG, 1 pixel wide": saved("1", (1, 4000), **PNG),
        "PNG, as long as allowed": saved("1", (1, 10_000), **PNG),
    }


if __name__ == "__main__":
    main()
