"""The results of predictions, as small frozen records."""

from __future__ import annotations

import dataclasses
import io
import os
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evodeploy.errors import EvodeployError, UsageError
from evodeploy.images import ImageLike, open_image
from evodeploy.preprocess import cropped
from evodeploy.specs import ModelInfo
from evodeploy.text import brief

if TYPE_CHECKING:
    from PIL.Image import Image

NAMED = 3  # classes that a repr names


@dataclass(frozen=True)
class Label:
    """A class and its probability."""

    name: str
    index: int
    probability: float


@dataclass(frozen=True)
class Timing:
    """Seconds for an image: to decode and prepare it, and for the run of the `batch` images that it was part of."""

    decode: float
    inference: float
    batch: int


@dataclass(frozen=True, repr=False)
class Prediction:
    """The most probable classes of one image, the best first.

    `kept` holds, for each selection, the positions of the tokens that stayed on the slow path, in the image's grid of
    patches, row by row. It is None if the artefact does not output them (export it with `--tokens`). `keep_ratios` is
    the share of tokens that each stage kept. Three fields serve `plot`: `sides`, the tokens per side of the grid at
    each selection, which Evo-LeViT halves; `path`, the path of the image if it was given as one; and `info`, the
    model's facts. A notebook shows the plot if the image was given as a path.
    """

    labels: tuple[Label, ...]
    timing: Timing
    kept: tuple[tuple[int, ...], ...] | None = None
    keep_ratios: tuple[float, ...] = ()
    sides: tuple[int, ...] = field(default=(), compare=False)
    path: str | None = field(default=None, compare=False)
    info: ModelInfo | None = field(default=None, compare=False)

    @property
    def label(self) -> Label:
        """The best class."""
        return self.labels[0]

    def __repr__(self) -> str:
        named = ", ".join(f"{brief(label.name, 40)} {label.probability:.1%}" for label in self.labels[:NAMED])
        return f"<Prediction {named}{', …' if len(self.labels) > NAMED else ''}>"

    def to_dict(self) -> dict[str, Any]:
        """Return the labels, the timing in seconds, the kept positions and the keep ratios as plain values for JSON."""
        return {
            "labels": [dataclasses.asdict(label) for label in self.labels],
            "timing": dataclasses.asdict(self.timing),
            "kept": None if self.kept is None else [list(positions) for positions in self.kept],
            "keep_ratios": list(self.keep_ratios),
        }

    def plot(self, image: ImageLike | None = None) -> Image:
        """Return the image as the network saw it, the patches that each selection kept, and up to five classes.

        `image` is the predicted image. It may be omitted if it was given as a path. Raises UsageError if it is needed
        but missing, and the errors of `images.open_image`.
        """
        from evodeploy.compare.selections import on_grid
        from evodeploy.visualization.card import card

        image = self.path if image is None else image
        if image is None:
            raise UsageError("the image was not given as a path, so the prediction does not hold it: plot(image)")
        if self.info is None:
            raise UsageError("the prediction does not say which model made it, so its image cannot be prepared")
        grid = self.info.image_size // self.info.patch_size
        kept = []
        for positions, side in zip(self.kept or (), self.sides or repeat(grid), strict=False):
            mask = np.zeros(side**2, bool)
            mask[on_grid(np.array(positions, np.int64), grid, side)] = True
            kept.append(mask.reshape(side, side))
        picture = cropped(open_image(image), self.info.image_size, self.info.preprocessing)
        return card(picture, [(brief(label.name), label.probability) for label in self.labels], kept)

    def _repr_png_(self) -> bytes | None:
        """Return the plot for a notebook, or None if the image is no longer available; it then shows the repr."""
        if self.path is None or self.info is None:
            return None
        try:
            plotted = self.plot()
        except EvodeployError:
            return None
        file = io.BytesIO()
        plotted.save(file, "PNG")
        return file.getvalue()


@dataclass(frozen=True)
class Written:
    """The result of `Predictor.write`: the file `output`, if any, the number of `images`, and those that failed."""

    output: Path | None
    images: int
    failures: tuple[Failure, ...]

    @property
    def predictions(self) -> int:
        """The number of images that have a prediction."""
        return self.images - len(self.failures)

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as plain values for JSON."""
        return {
            "output": None if self.output is None else str(self.output),
            "images": self.images,
            "predictions": self.predictions,
            "failures": [str(failure) for failure in self.failures],
        }

    def __str__(self) -> str:
        where = "" if self.output is None else f"{self.output}  "
        return f"{where}predictions for {self.predictions} of {self.images} images"


@dataclass(frozen=True)
class Failure:
    """An image of a stream that has no prediction, and the reason. It does not affect the other images."""

    source: Any
    error: EvodeployError

    def to_dict(self) -> dict[str, str]:
        """Return the reason, as plain values for JSON."""
        return {"error": str(self)}

    def __str__(self) -> str:
        message = str(self.error)
        path = os.fspath(self.source) if isinstance(self.source, (str, os.PathLike)) else ""
        return message if path in message else f"{path}: {message}"
