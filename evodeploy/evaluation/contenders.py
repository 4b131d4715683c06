"""The artefacts that one evaluation compares: of the same classes, each with the preparation that its facts say."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evodeploy.engines.base import Engine
from evodeploy.engines.deploy_file import stated_precision
from evodeploy.engines.opener import kind_of_source, title_of
from evodeploy.errors import BadFileError, UsageError
from evodeploy.preprocess import assumption, difference
from evodeploy.specs import NO_METADATA, EngineOptions, ModelInfo

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Contender:
    """What is evaluated: a file or a module, and what runs it, where, and how precisely."""

    source: Path | nn.Module
    engine: str
    device: str
    precision: str
    tf32: bool
    info: ModelInfo

    @property
    def title(self) -> str:
        """What it is called in reports."""
        return title_of(self.source)


def contenders_of(
    sources: Sequence[Path | nn.Module],
    engines: Sequence[Engine],
    options: EngineOptions,
    keep_ratio: float | Sequence[float] | None,
) -> list[Contender]:
    """`sources`, each opened as one of `engines` with `options`, all with the same class names.

    Raises UsageError where they name other classes, BadFileError for one without metadata, InputError for one that
    cannot keep the share `keep_ratio`.
    """
    infos = [_keeping(info, keep_ratio) for info in _infos(engines, sources)]
    return [
        Contender(
            source,
            opened.name,
            opened.device,
            options.precision or stated_precision(source) or info.precision,
            opened.tf32,
            info,
        )
        for source, opened, info in zip(sources, engines, infos, strict=True)
    ]


def _infos(engines: Sequence[Engine], sources: Sequence[Path | nn.Module]) -> list[ModelInfo]:
    """The facts of all, with the same class names; raises as `contenders_of` does."""
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
    infos = [  # options of the export may have named a checkpoint's classes otherwise
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
    """`info` with `ratios` as its own; raises InputError where the artefact cannot keep such a share."""
    info.keep_of(ratios)
    return dataclasses.replace(info, keep_ratios=info.ratios_of(ratios))


def warnings(contenders: Sequence[Contender]) -> Iterator[str]:
    """What is assumed of the preprocessing, and where it differs, so that accuracies are of two preparations."""
    first = contenders[0]
    for each in contenders:
        if warning := assumption(each.info):
            yield f"{each.title}: {warning}"
        if unlike := difference(first.info, each.info):
            yield f"{first.title} and {each.title} prepare images differently ({unlike}): each is evaluated on its own"
