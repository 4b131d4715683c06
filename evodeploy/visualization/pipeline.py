"""Drawing of the tokens that each selection keeps: images in, figures out."""

from __future__ import annotations

import io
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from evodeploy.arguments import checked
from evodeploy.datasets.sources import images_of
from evodeploy.engines.opener import Source, kind_of_source, open_engine, resolved, title_of
from evodeploy.errors import UsageError, needs
from evodeploy.files import check_output, made_folder, replacing
from evodeploy.images import IMAGE_SUFFIXES, StoredImage
from evodeploy.kinds import PICTURE, suffix_of
from evodeploy.locks import owned
from evodeploy.specs import FastPath
from evodeploy.visualization.evolution import Evolution, evolutions
from evodeploy.visualization.figure import figure, overview, save_png
from evodeploy.visualization.strips import last_of_each, said, strips

if TYPE_CHECKING:
    from torch import nn

    from evodeploy.images import ImageLike, Images
    from evodeploy.specs import EngineOptions, ModelInfo

OVERVIEW = "overview.png"
MOST_COLUMNS = 16  # images of an overview: a folder may have thousands, which nobody could see in one picture

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Visualization:
    """What each selection of `model` keeps of images, with their `names` and `evolutions`, and the `pictures` written.

    An image has an evolution for each requested keep ratio, or one at the artefact's own.
    Its text is the output of `evodeploy visualize`. A notebook shows the figure.
    """

    model: str
    names: tuple[str, ...]
    evolutions: tuple[tuple[Evolution, ...], ...]
    pictures: tuple[Path, ...] = ()

    def figure(self, index: int = 0) -> Image.Image:
        """Draw the image at `index`: as the network sees it, what each selection keeps, and the scores it chooses by.

        If there are several keep ratios, draw what each selection keeps at each of them instead.
        """
        evolutions, title = self.evolutions[index], f"{self.names[index]}  ·  {self.model}"
        return strips(evolutions, title) if len(evolutions) > 1 else figure(evolutions[0], title)

    def overview(self) -> Image.Image:
        """Draw the first 16 images in a row, and what each selection keeps; at several keep ratios only the last."""
        shown = self.evolutions[:MOST_COLUMNS]
        columns = [last_of_each(each) if len(each) > 1 else each[0] for each in shown]
        return overview(columns, [_stem(name) for name in self.names[:MOST_COLUMNS]])

    def to_dict(self) -> dict[str, Any]:
        """Return the paths of the figures, as plain values for JSON."""
        return {"pictures": [str(picture) for picture in self.pictures]}

    def __str__(self) -> str:
        if self.pictures:
            return "\n".join(map(str, self.pictures))
        at_ratios = [
            (f"at {said(evolution.keep_ratios)} " if len(self.evolutions[0]) > 1 else "")
            + "in "
            + ", ".join(
                f"{each.title}: {int(each.kept.sum())} of {each.kept.size} tokens" for each in evolution.selections
            )
            for evolution in self.evolutions[0]
        ]
        return f"{len(self.names)} images of {self.model}; kept {'; '.join(at_ratios)}"

    def _repr_png_(self) -> bytes:
        """Return the image for a notebook: the figure of one image, or the overview of several."""
        file = io.BytesIO()
        (self.overview() if len(self.names) > 1 else self.figure()).save(file, "PNG")
        return file.getvalue()


@checked
def visualize(
    artefact: Source,
    images: Images,
    output: str | os.PathLike[str] | None = None,
    *,
    keep_ratios: Sequence[float | Sequence[float]] | None = None,
    fast_path: FastPath | None = None,
    engine: str | None = None,
    options: EngineOptions | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Visualization:
    """Draw which patches of `images` each selection of `artefact` keeps, and the scores that it chooses by.

    The scores are the class attention or, if tokens merge, how unlike a token is to the anchors. `artefact` is a
    checkpoint, or an ONNX file or engine that was exported with its selections as outputs. It runs in the runtime
    `engine` with `options`. An elastic artefact or a checkpoint runs at each of `keep_ratios`, by default its own.
    `fast_path` is what happens to the tokens that a checkpoint does not keep, by default the same as in `export`.
    The folder `output` gets a PNG file for each image and, if there are several, an overview of the first 16. It is
    made if it is missing, and `force` replaces earlier figures. Without `output` nothing is written. `progress` is
    called with the number of figures drawn and of all.

    Raises UsageError if the artefact keeps every token or does not output its selections, if `fast_path` is given for
    an exported artefact, which states its own, and if figures cannot be written or would have the same name. Raises
    BadFileError if an image cannot be read, InputError for keep ratios of a static artefact or outside the bounds of an
    elastic one.
    """
    if keep_ratios is not None and not keep_ratios:
        raise UsageError("keep_ratios are empty: expected one or more, or None for the artefact's own")
    source, seen = resolved(artefact), images_of(images)
    names = tuple(_name(image, number) for number, image in enumerate(seen, 1))
    with ExitStack() as stack:
        targets = _targets(Path(output), names) if output is not None else []
        if output is not None:
            stack.enter_context(made_folder(Path(output)))
            stack.enter_context(owned(Path(output) / OVERVIEW))  # one lock for all figures: there may be thousands
        inputs = {_place(each): each for each in (source, *seen) if isinstance(each, Path) and each.exists()}
        for target in targets:
            same = inputs.get(_place(target)) if target.exists() else None
            check_output(target, force, *([same] if same else []), kind=PICTURE)
        like = _run_as(source, keep_ratios, fast_path)
        with open_engine(source, engine, options, tokens=True, like=like) as opened:
            at_ratios = [evolutions(opened, seen, ratio) for ratio in keep_ratios or (None,)]
            model = f"{opened.info.model}, {opened.precision.upper()}" if opened.info and opened.precision else ""
            _log.info(f"full colour marks the tokens that are kept; {opened.name} ran the model")
        drawn = Visualization(model, names, tuple(zip(*at_ratios, strict=True)), tuple(targets))
        for index, target in enumerate(targets):
            with replacing(target) as draft:
                save_png(drawn.figure(index) if index < len(names) else drawn.overview(), draft)
            if progress is not None:
                progress(index + 1, len(targets))
    return drawn


def _run_as(
    source: Path | nn.Module, keep_ratios: Sequence[float | Sequence[float]] | None, fast_path: FastPath | None
) -> ModelInfo | None:
    """Return the facts with which the checkpoint `source` is to run, or None. Exported artefacts cannot be changed."""
    if kind_of_source(source) != "checkpoint":
        if fast_path is not None:
            raise UsageError(f"{title_of(source)} was exported with a fast path of its own: leave out --fast-path")
        return None
    if keep_ratios is None and fast_path is None:
        return None
    with needs("export"):
        from evodeploy.models.checkpoint import load_checkpoint
        from evodeploy.models.loaded import ANY_SHARE, with_elastic
    model = load_checkpoint(source, fast_path=fast_path)
    return (model if keep_ratios is None else with_elastic(model, ANY_SHARE)).info


def _name(image: ImageLike, number: int) -> str:
    return Path(str(image)).name if isinstance(image, (str, Path, StoredImage)) else f"image {number}"


def _stem(name: str) -> str:
    """Return `name` without the suffix of an image file; the name of a Parquet row has none, despite its dot."""
    return Path(name).stem if suffix_of(name) in IMAGE_SUFFIXES else name


def _place(path: Path) -> tuple[int, int]:
    """Return what identifies a file, the same for all its names."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _targets(folder: Path, names: Sequence[str]) -> list[Path]:
    """Return a path for each name, and for an overview if there are several. Raises UsageError if two are the same."""
    targets = [folder / f"{_stem(name)}.png" for name in names] + [folder / OVERVIEW] * (len(names) > 1)
    twice = next((target for target, count in Counter(targets).items() if count > 1), None)
    if twice is not None:
        raise UsageError(f"several pictures would be called {twice}: give images of different names")
    return targets
