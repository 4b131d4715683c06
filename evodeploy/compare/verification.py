"""Opening two artefacts, running them on the same images and comparing the outputs."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evodeploy.arguments import checked
from evodeploy.compare.agreement import Agreement, agreement
from evodeploy.compare.keeps import elastic_keeps
from evodeploy.compare.parity import Expected, expect
from evodeploy.compare.tolerance import TOLERANCES, Tolerance, tolerance_of
from evodeploy.datasets.sources import images_of
from evodeploy.elastic import ElasticStage
from evodeploy.engines.base import Array, Engine, run_all
from evodeploy.engines.finite import not_finite
from evodeploy.engines.opener import Source, kind_of_source, open_engine, resolved, title_of
from evodeploy.engines.torch_engine import TorchEngine
from evodeploy.errors import UsageError, VerificationError
from evodeploy.images import Images
from evodeploy.preprocess import as_input, assumption, difference, pictures, random_pictures
from evodeploy.specs import NO_METADATA, EngineOptions, ModelInfo

if TYPE_CHECKING:
    from torch import nn

_log = logging.getLogger(__name__)


@checked
def verify(
    reference: Source,
    candidate: Source,
    *,
    images: Images | None = None,
    count: int = 32,
    seed: int = 0,
    rtol: float | None = None,
    atol: float = 0.0,
    score_tolerance: float | None = None,
    engine: str | None = None,
    options: EngineOptions | None = None,
) -> Agreement:
    """Run two artefacts of a model on the same images, and compare logits, top-1 and the tokens that they keep.

    Each is a checkpoint, an ONNX file, an engine, a deploy file, a name of the hub or a module. `images` are a folder
    or several images; by default `count` random ones, drawn with `seed`. `rtol` is the largest error of a logit that
    passes, relative to the largest magnitude; `atol` is an absolute error that passes in addition. `score_tolerance` is
    how near to the threshold, relative to it, a token's score must be if only one of the two keeps the token. The
    defaults of `rtol` and `score_tolerance` follow from the lower precision of the artefacts. `engine` and `options`
    apply to the candidate; the reference uses the same number of threads.

    A checkpoint selects in the same way as the other artefact, and computes on the CPU unless `options` name a device
    for the candidate. If FP32 is compared with a checkpoint on the CPU, images with large float32 errors get wider
    limits, as in `compare.parity`.

    Two elastic artefacts are compared at their keep ratios, at five from the lowest to the highest that both accept and
    at two random ones, with a line in the log for each. A checkpoint is elastic if the other artefact is. The first
    comparison that fails is returned, with its tokens named in the reason of its tolerance, or else the one at their
    own keep ratios.

    Raises UsageError if the two are not of one model, VerificationError if an output is NaN or infinite. Artefacts that
    disagree raise no error, see `Agreement.passed`.
    """
    if count < 1 or seed < 0:
        raise UsageError(f"count is {count} and seed {seed}, expected 1 or more and 0 or more")
    for name, value in (("rtol", rtol), ("atol", atol), ("score_tolerance", score_tolerance)):
        if value is not None and not value >= 0:
            raise UsageError(f"{name} is {value}, expected 0 or more")
    options = options or EngineOptions()
    reference, candidate = resolved(reference), resolved(candidate)
    with _opened(reference, candidate, engine, options) as (first, second):
        info = _one_model(first, second, reference, candidate)
        if warning := assumption(info):
            _log.warning(warning)
        seen = random_pictures(info, count, seed) if images is None else pictures(images_of(images), info)
        _log.info(f"running {first.name} and {second.name} on {len(seen)} images")
        default = _tolerance(first, second)
        stated = rtol is not None or score_tolerance is not None
        tolerance = dataclasses.replace(
            default,
            logits=default.logits if rtol is None else rtol,
            score=default.score if score_tolerance is None else score_tolerance,
            absolute=atol,
            reason=f"{default.reason}, except where stated" if stated else default.reason,
        )
        verdict = _judged(first, second, reference, candidate, seen, tolerance, stated)
        for keep in elastic_keeps(dataclasses.replace(info, elastic=_shared(first, second)), seed):
            at = _judged(first, second, reference, candidate, seen, tolerance, stated, keep)
            kept = f"{'/'.join(map(str, keep))} tokens kept"
            error = f"logits differ by {at.logits.max_error:.1e} of the largest"
            _log.info(f"  {'ok  ' if at.passed else 'FAIL'} {kept}: {error}")
            if verdict.passed and not at.passed:
                reason = f"{at.tolerance.reason}; at {kept}"
                verdict = dataclasses.replace(at, tolerance=dataclasses.replace(at.tolerance, reason=reason))
        return verdict


def _shared(first: Engine, second: Engine) -> tuple[ElasticStage, ...]:
    """Return the stages with the numbers of tokens that both accept; () if one is static, or if they share none."""
    assert first.info is not None and second.info is not None  # checked before
    pairs = zip(first.info.elastic, second.info.elastic, strict=False)
    stages = tuple(ElasticStage(one.tokens, max(one.low, two.low), min(one.high, two.high)) for one, two in pairs)
    return stages if all(stage.low <= stage.high for stage in stages) else ()


def _judged(
    first: Engine,
    second: Engine,
    reference: Path | nn.Module,
    candidate: Path | nn.Module,
    seen: NDArray[np.uint8],
    tolerance: Tolerance,
    stated: bool,
    keep: tuple[int, ...] | None = None,
) -> Agreement:
    """Compare at `keep`, with wider limits for badly conditioned images unless a tolerance is `stated`."""
    info = first.info
    assert info is not None  # checked before
    expected, got = _outputs(first, seen, reference, keep), _outputs(second, seen, candidate, keep)
    grid = info.image_size // info.patch_size
    verdict = agreement(expected, got, tolerance, grid)
    if verdict.passed or stated or tolerance.logits > TOLERANCES["fp32"].logits:
        return verdict
    exact = _expected(first, second, seen, keep)
    if exact is None or not exact.comparable(info.output).any():
        return verdict
    limits = {name: exact.limits(name) for name in exact.losses}
    right = exact.outputs if kind_of_source(reference) == "checkpoint" else expected
    reason = f"{tolerance.reason}; wider for images of which float32 itself loses much"
    return agreement(right, got, dataclasses.replace(tolerance, reason=reason), grid, limits)


def _tolerance(first: Engine, second: Engine) -> Tolerance:
    """Return the tolerance for the precisions of both, and for products in TF32."""
    precisions = {opened.precision for opened in (first, second) if opened.precision}
    return tolerance_of(precisions, " and ".join(f"{e.name} on {e.device}" for e in (first, second) if e.tf32))


def _expected(first: Engine, second: Engine, seen: NDArray[np.uint8], keep: tuple[int, ...] | None) -> Expected | None:
    """Run the checkpoint among the two in float64; return None if there is none on the CPU."""
    for engine in (first, second):
        if isinstance(engine, TorchEngine) and engine.device == "cpu" and engine.info:
            _log.info("running PyTorch in float64, to see what float32 itself loses")
            return expect(engine, as_input(seen, engine.info), keep=keep)
    return None


@contextlib.contextmanager
def _opened(
    reference: Path | nn.Module, candidate: Path | nn.Module, engine: str | None, options: EngineOptions
) -> Iterator[tuple[Engine, Engine]]:
    """Open both engines, the candidate with `options`; a checkpoint is opened last, to select as the other does."""
    host = EngineOptions(threads=options.threads)
    on_cpu = dataclasses.replace(host, device="cpu")  # float32 on a GPU may mean TF32
    if kind_of_source(candidate) == "checkpoint" and options.device is None:
        options = dataclasses.replace(options, device="cpu")
    if kind_of_source(reference) == "checkpoint":
        with (
            open_engine(candidate, engine, options, tokens=True) as second,
            open_engine(reference, options=on_cpu, tokens=True, like=second.info) as first,
        ):
            yield first, second
    else:
        with (
            open_engine(reference, options=host) as first,
            open_engine(candidate, engine, options, tokens=True, like=first.info) as second,
        ):
            yield first, second


def _one_model(first: Engine, second: Engine, reference: Path | nn.Module, candidate: Path | nn.Module) -> ModelInfo:
    names = title_of(reference), title_of(candidate)
    for opened, name in zip((first, second), names, strict=True):
        if opened.info is None:
            raise UsageError(f"{name} {NO_METADATA}")
    ours, theirs = first.info, second.info
    assert ours is not None and theirs is not None  # checked above
    fast = () if ours.dense and theirs.dense else ("fast_path",)  # dense networks do not use it
    shared = ("image_size", "patch_size", "num_classes", "pooling", "selection", "keep_ratios", "stages", *fast)
    for what in (*shared, "top_k"):
        if getattr(ours, what) != getattr(theirs, what):
            raise UsageError(
                f"{names[0]} and {names[1]} are different models: {what.replace('_', ' ')} {getattr(ours, what)} and "
                f"{getattr(theirs, what)}"
            )
    if unlike := difference(ours, theirs):
        raise UsageError(
            f"{names[0]} and {names[1]} prepare images differently ({unlike}), so what they compute cannot be "
            "compared: export both with the same --mean, --std, --crop-pct, --crop-mode and --interpolation"
        )
    return ours


def _outputs(
    engine: Engine, seen: NDArray[np.uint8], source: Path | nn.Module, keep: tuple[int, ...] | None
) -> dict[str, Array]:
    assert engine.info is not None  # checked above
    outputs = run_all(engine, as_input(seen, engine.info), keep=keep)
    bad = int(not_finite(outputs).sum())
    if bad:
        raise VerificationError(
            f"the outputs of {title_of(source)} are not finite (NaN or infinite) for {bad} of {len(seen)} images"
        )
    return outputs
