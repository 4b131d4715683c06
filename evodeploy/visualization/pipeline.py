"""Images in, figures of what each selection keeps out."""

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

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Visualization:
    """What each selection of `model` keeps of images: `names` and `evolutions` of each, and the `pictures` written.

    An image has an evolution for each keep ratio that was asked for, or one at the artefact's own.
    Printed, it is what `evodeploy visualize` shows. A notebook shows the picture.
    """

    model: str
    names: tuple[str, ...]
    evolutions: tuple[tuple[Evolution, ...], ...]
    pictures: tuple[Path, ...] = ()

    def figure(self, index: int = 0) -> Image.Image:
        """The image at `index`: as the network sees it, what each selection keeps, and the scores it chooses by.

        At several keep ratios: what each selection keeps at each of them.
        """
        evolutions, title = self.evolutions[index], f"{self.names[index]}  ·  {self.model}"
        return strips(evolutions, title) if len(evolutions) > 1 else figure(evolutions[0], title)

    def overview(self) -> Image.Image:
        """All images side by side, and what each selection keeps of them; the last one at several keep ratios."""
        columns = [last_of_each(each) if len(each) > 1 else each[0] for each in self.evolutions]
        return overview(columns, [_stem(name) for name in self.names])

    def to_dict(self) -> dict[str, Any]:
        """The paths of the pictures, as JSON takes them."""
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
        """What a notebook shows: the figure of one image, the overview of several."""
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

    These are the class attention, or where tokens merge how unlike a token is to the anchors. `artefact` is a
    checkpoint, or an ONNX file or engine exported with its selections as outputs; it runs in the runtime `engine`, as
    `options` say, an elastic one or a checkpoint at each of `keep_ratios`, by default its own. What becomes of the
    tokens that a checkpoint does not keep, `fast_path` says, by default as `export` decides. The folder `output`
    gets a PNG file for each image, and one of them all where they are several; it is made where it is missing, and
    `force` replaces earlier pictures. Without it nothing is written. `progress` is called with the number of pictures
    drawn and of all.

    Raises UsageError where the artefact keeps every token or does not output its selections, for a `fast_path` of what
    is exported, which states its own, and where pictures cannot be written or would have the same name; BadFileError
    for an image that cannot be read; InputError for keep ratios that a static artefact does not take, or outside of the
    bounds of an elastic one.
    """
    if keep_ratios is not None and not keep_ratios:
        raise UsageError("keep_ratios are empty: expected one or more, or None for the artefact's own")
    source, seen = resolved(artefact), images_of(images)
    names = tuple(_name(image, number) for number, image in enumerate(seen, 1))
    with ExitStack() as stack:
        targets = _targets(Path(output), names) if output is not None else []
        if output is not None:
            stack.enter_context(made_folder(Path(output)))
            stack.enter_context(owned(Path(output) / OVERVIEW))  # in place of each picture: there may be thousands
        inputs = {_place(each): each for each in (source, *seen) if isinstance(each, Path) and each.exists()}
        for target in targets:
            same = inputs.get(_place(target)) if target.exists() else None
            check_output(target, force, *([same] if same else []), kind=PICTURE)
        like = _run_as(source, keep_ratios, fast_path)
        with open_engine(source, engine, options, tokens=True, like=like) as opened:
            at_ratios = [evolutions(opened, seen, ratio) for ratio in keep_ratios or (None,)]
            model = f"{opened.info.model}, {opened.info.precision.upper()}" if opened.info else ""
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
    """How the checkpoint `source` is run where that is asked for; of what is exported nothing can be asked."""
    if kind_of_source(source) != "checkpoint":
        if fast_path is not None:
            raise UsageError(f"{title_of(source)} states its own fast path, as it was exported: leave out --fast-path")
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
    """`name` without the suffix of an image file; a row of a Parquet file has none, though its name has a dot."""
    return Path(name).stem if suffix_of(name) in IMAGE_SUFFIXES else name


def _place(path: Path) -> tuple[int, int]:
    """What two names of one file have in common."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _targets(folder: Path, names: Sequence[str]) -> list[Path]:
    """A picture for each name, and one of all where there are several; raises UsageError for the same name twice."""
    targets = [folder / f"{_stem(name)}.png" for name in names] + [folder / OVERVIEW] * (len(names) > 1)
    twice = next((target for target, count in Counter(targets).items() if count > 1), None)
    if twice is not None:
        raise UsageError(f"several pictures would be called {twice}: give images of different names")
    return targets
