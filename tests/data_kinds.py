"""The sample's ten digits as each kind of data source: where it is, and the options of `evaluate`."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

import evodeploy

SAVED = Path(__file__).parent / "datasets" / "digits"  # by save_to_disk of Hugging Face's datasets 5.2
SAMPLE = Path(__file__).parents[1] / "sample" / "images"
DIGITS = [(SAMPLE / f"digit-{digit}-0.png").read_bytes() for digit in range(10)]


def member(archive: tarfile.TarFile, name: str, data: bytes, **how) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in how.items():
        setattr(info, key, value)
    archive.addfile(info, io.BytesIO(data))


def pictures_by_answer(source: Path, home: Path, count: int, wrong: int | None = None) -> None:
    """Write `count` pictures, each to the folder data/cN of the class that `source` gives it; every `wrong`th another.

    There are folders for ten classes.
    """
    generator = np.random.default_rng(3)
    for index in range(10):
        (home / "data" / f"c{index}").mkdir(parents=True)
    with evodeploy.load(source) as predictor:
        for i in range(count):
            coarse = Image.fromarray(generator.integers(0, 256, (5, 5, 3), np.uint8)).resize((70, 60))
            answer = predictor.predict(coarse).labels[1 if wrong and i % wrong == 0 else 0]
            coarse.save(home / "data" / f"c{answer.index}" / f"{i:02}.png")


def listing(folder: Path) -> list[str]:
    """The names of what is in `folder`, sorted."""
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    """What each file below `folder` holds."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_tar(path: Path, samples: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in samples.items():
            member(archive, name, data)
    return path


def _folders(digits, names="0123456789"):
    for name, data in zip(names, digits, strict=True):
        Path("data", name).mkdir(parents=True)
        Path("data", name, "a.png").write_bytes(data)
    return "data", {}


def _flat(digits):
    Path("data").mkdir()
    for digit, data in enumerate(digits):
        Path(f"data/{digit}.png").write_bytes(data)


def _table(digits):
    _flat(digits)
    Path("labels.csv").write_text("path,label\n" + "".join(f"{digit}.png,{digit}\n" for digit in range(10)))
    return "data", {"labels": "labels.csv"}


def _list(digits):
    _flat(digits)
    Path("val.txt").write_text("".join(f"{digit}.png {digit}\n" for digit in range(10)))
    return "data", {"labels": "val.txt"}


def _mapped(digits):
    names = [f"digit {digit}" for digit in range(10)]
    _folders(digits, names)
    Path("map.json").write_text(json.dumps(dict(zip(names, ["0", *range(1, 10)], strict=True))))
    return "data", {"class_map": "map.json"}


def _tars(digits):
    labels = {"cls": lambda d: str(d).encode(), "json": lambda d: json.dumps({"label": d, "x": []}).encode(),
              "txt": lambda d: f"{d}\n".encode()}  # fmt: skip
    for part, (extension, label) in enumerate(labels.items()):
        share = range(10)[part * 4 : part * 4 + 4]
        samples = [((f"n/{d:03}.png", digits[d]), (f"n/{d:03}.{extension}", label(d))) for d in share]
        write_tar(Path(f"d-{part:03}.tar"), dict(each for sample in samples for each in sample))
    return "d-{000..002}.tar", {}


def _parquet(digits, images=None, labels=None):
    table = pa.table({"image": images or digits, "label": labels or list(range(10))})
    Path("data").mkdir()
    pq.write_table(table.slice(0, 6), "data/train-0.parquet", row_group_size=4)
    pq.write_table(table.slice(6), "data/train-1.parquet")
    return "data/train-*.parquet", {}


def _structs(digits):
    _parquet(digits, [{"bytes": data, "path": f"{i}.png"} for i, data in enumerate(digits)], list("0123456789"))
    return "data", {}


def _saved(digits):
    shutil.copytree(SAVED, "saved")
    return "saved", {}


def _splits(digits):
    shutil.copytree(SAVED, "both/test")
    shutil.copytree(SAVED, "both/train")
    Path("both/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    return "both/test", {}


def _cached(digits):
    Path("cached").mkdir()
    shutil.copy(SAVED / "dataset_info.json", "cached")
    shutil.copy(SAVED / "data-00000-of-00001.arrow", "cached/my-digits-test.arrow")
    return "cached", {}


KINDS = {
    "folders": _folders, "table": _table, "list": _list, "mapped": _mapped, "tars": _tars, "parquet": _parquet,
    "structs": _structs, "saved": _saved, "splits": _splits, "cached": _cached,
}  # fmt: skip
