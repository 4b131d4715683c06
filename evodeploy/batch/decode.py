"""Conversion of a shard to batches of prepared images, in Arrow's format."""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from evodeploy.batch.inputs import Files, Members, Shard
from evodeploy.datasets.parquet import Reader, image_in
from evodeploy.images import FORMATS, StoredImage
from evodeploy.preprocess import prepare
from evodeploy.specs import ModelInfo

# One row is one batch. `images` holds the tensors of the readable images, in the form of `ModelInfo.input`. The lists
# have an entry for each image of the batch; an entry of `errors` is the reason if the image could not be read.
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
    """Yield the images of shard `number` in tables of one row (`PREPARED`), `batch` images each.

    `home` is the root of their paths. An image that cannot be read becomes an error in its batch. If a Parquet file
    cannot be read, an error is raised.
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


def _images(shard: Shard, home: Path) -> Iterator[tuple[str, int | None, Path | StoredImage | bytes | None]]:
    """Yield for each image its path as listed, its row in a Parquet file or None, and its place or content."""
    if isinstance(shard, Files):
        yield from ((path, None, home / path) for path in shard.paths)
    elif isinstance(shard, Members):
        for path, member in zip(shard.paths, shard.members, strict=True):
            yield path, None, dataclasses.replace(member, tar=home / member.tar)
    else:
        table = home / shard.parquet
        reader = Reader(table, shard.column)
        yield from ((shard.parquet, row, image_in(reader.value(row), table)) for row in range(shard.start, shard.stop))


def _prepared(
    image: Path | StoredImage | bytes | None, info: ModelInfo
) -> tuple[np.ndarray[Any, Any] | None, str | None]:
    """Return the tensor, or the reason why there is none."""
    try:
        if image is None:
            return None, "the row holds no image"
        if isinstance(image, Path) and image.exists() and not image.is_file():
            return None, "not a file"  # reading a pipe would block forever
        data = image.read_bytes() if isinstance(image, Path) else image if isinstance(image, bytes) else image.read()
        return prepare(Image.open(io.BytesIO(data), formats=FORMATS), info), None
    except UnidentifiedImageError:
        return None, "not an image, or an image in an unknown format"
    except OSError as error:
        return None, error.strerror or str(error)
    except Exception as error:  # decoders raise errors of any type for other bytes, which must not end the run
        return None, f"{type(error).__name__}: {error}"
