"""The artefacts that one evaluation compares: they have the same classes, and each has its own preparation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evodeploy.engines.base import Engine
from evodeploy.engines.opener import kind_of_source, title_of
from evodeploy.errors import BadFileError, UsageError
from evodeploy.preprocess import assumption, difference
from evodeploy.specs import NO_METADATA, ModelInfo

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Contender:
    """An artefact to evaluate: a file or a module, with its engine, device and precision."""

    source: Path | nn.Module
    engine: str
    device: str
    precision: str
    tf32: bool
    info: ModelInfo

    @property
    def title(self) -> str:
        """The name in reports."""
        return title_of(self.source)


def contenders_of(
    sources: Sequence[Path | nn.Module], engines: Sequence[Engine], keep_ratio: float | Sequence[float] | None
) -> list[Contender]:
    """Return `sources`, each opened as one of `engines`, all with the same class names.

    Raises UsageError if their class names differ, BadFileError if one has no metadata, InputError if one does not
    support the keep ratio `keep_ratio`.
    """
    infos = [_keeping(info, keep_ratio) for info in _infos(engines, sources)]
    return [
        Contender(source, opened.name, opened.device, opened.precision or info.precision, opened.tf32, info)
        for source, opened, info in zip(sources, engines, infos, strict=True)
    ]


def _infos(engines: Sequence[Engine], sources: Sequence[Path | nn.Module]) -> list[ModelInfo]:
    """Return the metadata of all artefacts, with the same class names. Raises the same errors as `contenders_of`."""
    infos = []
    for engine, source in zip(engines, sources, strict=True):
        if engine.info is None:
            raise BadFileError(f"{title_of(source)} {NO_METADATA}")
        infos.append(engine.info)
    exports = {
        info.source_sha256: info.class_names
        for info, source in zip(infos, sources, strict=True)
        if info.class_names and kind_of_source(source) != "checkpoint"
    }
    infos = [  # the export's options may have given the classes of a checkpoint other names
        dataclasses.replace(info, class_names=exports.get(info.source_sha256, info.class_names))
        if kind_of_source(source) == "checkpoint"
        else info
        for info, source in zip(infos, sources, strict=True)
    ]
    names = next((info.class_names for info in infos if info.class_names), ())
    named = [info if info.class_names else dataclasses.replace(info, class_names=names) for info in infos]
    for info, source in zip(named, sources, strict=True):
        if (info.num_classes, info.class_names) != (infos[0].num_classes, names):
            pair = f"{title_of(sources[0])} and {title_of(source)}"
            raise UsageError(f"{pair} do not name the same classes: evaluate them separately")
    return named


def _keeping(info: ModelInfo, ratios: float | Sequence[float] | None) -> ModelInfo:
    """Return `info` with `ratios` as its own. Raises InputError if the artefact does not support them."""
    info.keep_of(ratios)
    return dataclasses.replace(info, keep_ratios=info.ratios_of(ratios))


def warnings(contenders: Sequence[Contender]) -> Iterator[str]:
    """Yield warnings about assumed preprocessing, and about differences in it, which affect the comparison."""
    first = contenders[0]
    for each in contenders:
        if warning := assumption(each.info):
            yield f"{each.title}: {warning}"
        if unlike := difference(first.info, each.info):
            yield f"{first.title} and {each.title} prepare images differently ({unlike}): each gets its own preparation"
