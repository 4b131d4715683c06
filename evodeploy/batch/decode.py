"""From a shard to batches of prepared images, in Arrow's format."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from evodeploy.batch.inputs import Rows, Shard
from evodeploy.images import FORMATS
from evodeploy.preprocess import prepare
from evodeploy.specs import ModelInfo

# One row is one batch. `images` holds float32 (N, 3, size, size) of the N images that could be read; the lists have an
# entry for each image of the batch, and `errors` says why one could not.
PREPARED = pa.schema(
    {
        "shard": pa.int32(),
        "first": pa.int32(),
        "images": pa.large_binary(),
        "paths": pa.list_(pa.string()),
        "rows": pa.list_(pa.int64()),
        "errors": pa.list_(pa.string()),
    }
)


def prepared_batches(number: int, shard: Shard, home: Path, info: ModelInfo, batch: int) -> Iterator[pa.Table]:
    """The images of shard `number` in tables of one row (`PREPARED`), `batch` images each; `home` roots their paths.

    An image that cannot be read becomes an error in its batch; a Parquet file that cannot be read raises.
    """
    images = _images(shard, home)
    for first in range(0, len(shard), batch):
        paths, rows, errors, prepared = [], [], [], []
        for path, row, image in itertools.islice(images, batch):
            tensor, error = _prepared(image, info)
            if tensor is not None:
                prepared.append(tensor)
            paths.append(path)
            rows.append(row)
            errors.append(error)
        pixels = np.stack(prepared).tobytes() if prepared else b""
        values = [number], [first], [pixels], [paths], [rows], [errors]
        yield pa.table([pa.array(value, kind.type) for value, kind in zip(values, PREPARED, strict=True)], PREPARED)


def _images(shard: Shard, home: Path) -> Iterator[tuple[str, int | None, Path | bytes | None]]:
    """Each image's path as listed, its row of a Parquet file, and where or what it is."""
    if not isinstance(shard, Rows):
        yield from ((path, None, home / path) for path in shard.paths)
        return
    table = home / shard.parquet
    with pq.ParquetFile(table) as file:
        for row, value in _values(file, shard):
            if isinstance(value, dict):  # as Hugging Face's datasets store an image
                value = value["bytes"]
            yield shard.parquet, row, table.parent / value if isinstance(value, str) else value


def _values(file: pq.ParquetFile, shard: Rows) -> Iterator[tuple[int, Any]]:
    """The shard's rows of its column, read from the row groups that hold them and a few at a time."""
    end, groups, skipped = 0, [], 0
    for group in range(file.num_row_groups):
        begin, end = end, end + file.metadata.row_group(group).num_rows
        if end <= shard.start:
            skipped = end
        elif begin < shard.stop:
            groups.append(group)
    tables = file.iter_batches(batch_size=32, row_groups=groups, columns=[shard.column])
    row = skipped
    for table in tables:
        for value in table.column(0):
            if shard.start <= row < shard.stop:
                yield row, value.as_py()
            row += 1
        if row >= shard.stop:
            return


def _prepared(image: Path | bytes | None, info: ModelInfo) -> tuple[np.ndarray[Any, Any] | None, str | None]:
    """The tensor, or why there is none."""
    try:
        if image is None:
            return None, "the row holds no image"
        if isinstance(image, Path) and image.exists() and not image.is_file():
            return None, "not a file"  # to read a pipe would wait for ever
        data = image.read_bytes() if isinstance(image, Path) else image
        return prepare(Image.open(io.BytesIO(data), formats=FORMATS), info), None
    except UnidentifiedImageError:
        return None, "not an image, or one of an unknown format"
    except OSError as error:
        return None, error.strerror or str(error)
    except Exception as error:  # whatever a decoder makes of bytes that are no image: it must not end the run
        return None, f"{type(error).__name__}: {error}"
