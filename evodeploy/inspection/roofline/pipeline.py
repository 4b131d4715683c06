"""From an engine of TensorRT for RTX to what it needs at least on GPUs that are not here."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from evodeploy.arguments import checked
from evodeploy.errors import UsageError
from evodeploy.inspection.roofline.bound import bound, kernel_times
from evodeploy.inspection.roofline.cards import Card, card_named
from evodeploy.inspection.roofline.plan import PlanWork, plan_work
from evodeploy.inspection.roofline.report import CardBounds, KernelShare, Roofline

_log = logging.getLogger(__name__)


@checked
def roofline(
    engine: str | os.PathLike[str],
    gpus: str | Sequence[str],
    *,
    batches: Sequence[int] | None = None,
    keep_ratio: float | Sequence[float] | None = None,
    kernels: bool = False,
) -> Roofline:
    """The least time of a batch that the engine file `engine` can have on each of `gpus`, such as "l4" or "h100".

    No GPU is needed. `batches` are those of 1, 8, 64 and 256 that the engine takes, where nothing else is said; an
    elastic engine keeps tokens as `keep_ratio` says, by default as it was exported; `kernels` adds what each kernel
    takes at the last batch. Raises UsageError for a card that is not known or cannot multiply what the engine needs,
    for a file that is no engine of TensorRT for RTX, and for a batch that it does not take; InputError for keep ratios
    that it does not take; BadFileError for an engine that was altered.
    """
    cards = [card_named(name) for name in ([gpus] if isinstance(gpus, str) else gpus)]
    if not cards:
        raise UsageError("there are no GPUs: expected one or more, such as l4")
    work = plan_work(Path(engine), batches, keep_ratio)
    record = work.record
    built_for = record.targets or (record.architecture,)
    for card in cards:
        if card.architecture not in built_for:
            _log.warning(
                "the engine is built for %s, but %s is %s: TensorRT may choose other kernels there",
                ", ".join(built_for),
                card.name,
                card.architecture,
            )
    return Roofline(
        path=work.path,
        model=record.model.model if record.model else None,
        precision=record.precision,
        built_for=built_for,
        weights=work.weights,
        networks=work.networks,
        not_counted=work.missing,
        cards=tuple(_on(card, work, kernels) for card in cards),
        keep=work.keep,
    )


def _on(card: Card, work: PlanWork, kernels: bool) -> CardBounds:
    tf32 = work.record.tf32 is not False
    return CardBounds(
        card,
        peaks=dict(card.peak(rate, tf32=tf32) for rate in work.rates),
        bounds=tuple(bound(network, card, tf32=tf32) for network in work.networks),
        kernels=KernelShare.each(kernel_times(work.networks[-1], card, tf32=tf32)) if kernels else None,
    )
