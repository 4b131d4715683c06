"""`evodeploy verify`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import evodeploy
from evodeploy.cli import options, values
from evodeploy.cli.console import Json, result, result_json
from evodeploy.cli.values import real, whole
from evodeploy.errors import VerificationError
from evodeploy.specs import EngineOptions


@options.opens_engine
def verify(
    reference: Annotated[Path, values.artefact("Reference: a checkpoint, an ONNX file, an engine or a deploy file.")],
    candidate: Annotated[Path, values.artefact("What is compared with it: the same kinds.")],
    images: options.Images = None,
    random: Annotated[int, whole("--random", 1, values.RANDOM, "Number of random images.")] = 32,
    seed: Annotated[int, whole("--seed", 0, values.SEED, "Seed of the random images and keep ratios.")] = 0,
    rtol: Annotated[
        float | None,
        real(
            "--rtol", 0, math.inf, "Largest allowed error of a logit, relative to the largest. Default: by precision."
        ),
    ] = None,
    atol: Annotated[float, real("--atol", 0, math.inf, "Absolute error of a logit that always passes.")] = 0.0,
    score_tol: Annotated[
        float | None,
        real("--score-tol", 0, math.inf, "How near the threshold a differing score must be. Default: by precision."),
    ] = None,
    engine: options.EngineName = None,
    how: EngineOptions = options.ENGINE_OPTIONS,
    as_json: Json = False,
) -> None:
    """Compare two artefacts of a model: logits and kept tokens.

    The options of the runtime are the candidate's; the reference takes --threads alone.
    """
    verdict = evodeploy.verify(
        reference,
        candidate,
        images=images,
        count=random,
        seed=seed,
        rtol=rtol,
        atol=atol,
        score_tolerance=score_tol,
        engine=engine,
        options=how,
    )
    if as_json:
        result_json(verdict.to_dict())
    else:
        result(f"{candidate} against {reference}, {verdict}")
    if not verdict.passed:
        raise VerificationError(f"{candidate} does not agree with {reference}")
