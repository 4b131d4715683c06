"""Lower bounds for the time of an engine of TensorRT for RTX on GPUs that are not in this machine."""

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
    """Return a lower bound for the time of a batch of the file `engine` on each of `gpus`, such as "l4" or "h100".

    No GPU is needed. By default `batches` are those of 1, 8, 64 and 256 that the engine supports. An elastic engine
    keeps the share `keep_ratio` of the tokens, by default the one it was exported with. `kernels` adds the time of each
    kernel at the last batch. Raises UsageError if a card is unknown or lacks a precision that the engine needs, if the
    file is not an engine of TensorRT for RTX, or if it does not support a batch; InputError if it does not support the
    keep ratios; BadFileError if the engine was altered.
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
