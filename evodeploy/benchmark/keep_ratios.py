"""The keep ratios of a bench's rows, for elastic artefacts or for a checkpoint that is run as elastic."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evodeploy.benchmark.row_spec import Kept, Role
from evodeploy.errors import InputError, UsageError
from evodeploy.specs import ModelInfo
from evodeploy.text import brief, ratios_in_words

if TYPE_CHECKING:
    from evodeploy.models.loaded import LoadedModel

Ratios = Sequence[float | Sequence[float]]  # one per row: for all stages, or one for each
Facts = Mapping[Path, ModelInfo | None]


def as_elastic(model: LoadedModel | None, facts: Facts, ratios: Ratios | None) -> LoadedModel | None:
    """Return `model` elastic if a file is, or if `ratios` are given without files: then from one token to all.

    Raises UsageError if the network cannot be elastic.
    """
    if model is None or model.info.elastic:
        return model
    stages = next((info.elastic for info in facts.values() if info and info.elastic), ())
    if stages:
        return dataclasses.replace(model, info=dataclasses.replace(model.info, elastic=stages))
    if ratios is None or facts:
        return model
    from evodeploy.models.loaded import ANY_SHARE, with_elastic

    return with_elastic(model, ANY_SHARE)


def kept_by(info: ModelInfo | None, facts: Facts, ratios: Ratios | None, stated: Ratios = ()) -> tuple[Kept, ...]:
    """Return the tokens that the rows of the model in `info` keep, at `ratios`; nothing if nothing is elastic.

    By default these are the ratios in deploy files (`stated`) or the model's own, and also every token if all of its
    files support that. Raises InputError for ratios that the model, or one of its files, does not support.
    """
    if ratios is not None and (isinstance(ratios, str) or not isinstance(ratios, Sequence) or not ratios):
        raise UsageError(f"keeps are {brief(repr(ratios))}, expected keep ratios such as (1.0, 0.5)")
    if info is None or not (info.elastic or stated):
        return ()
    if ratios is None:
        asked = [
            *(info.ratios_of(each) for each in stated or (None,)),
            *([info.ratios_of(1.0)] if _reach_all(info, facts) else []),
        ]
    else:
        asked = [info.ratios_of(each) for each in ratios]
    for path, its in facts.items():
        for each in asked:
            try:
                _ = its.keep_of(each) if its and its.elastic else ()
            except InputError as error:
                raise InputError(f"{path}: {error}") from error
    return tuple(dict.fromkeys(Kept(each, info.keep_of(each)) for each in asked))


def refuse_static(facts: Facts, roles: Mapping[Path, Role], kept: tuple[Kept, ...], ratios: Ratios | None) -> None:
    """Raise UsageError for a file with a fixed share of tokens if `ratios` are given, or if other files are elastic.

    The dense twin of elastic files that do not reach 1.0 is allowed.
    """
    for path, info in facts.items():
        if info is not None and info.elastic:
            continue
        fixed = "does not say that it is elastic"
        if info is not None:
            fixed = f"keeps a fixed share of tokens ({ratios_in_words(info.keep_ratios)})"
        if ratios is not None:
            raise UsageError(f"{path} {fixed}: leave --keep out, or export the checkpoint with --elastic")
        if kept and (roles[path] == "evo" or any(each.dense for each in kept)):
            raise UsageError(
                f"{path} {fixed}, and the other files take a keep ratio in each run: bench them one by one"
            )


def _reach_all(info: ModelInfo, facts: Facts) -> bool:
    every = (info, *(its for its in facts.values() if its and its.elastic))
    return all(stage.high == stage.tokens for one in every for stage in one.elastic)
