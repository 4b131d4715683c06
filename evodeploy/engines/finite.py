"""Detection of outputs with NaN or infinity, which are never returned as an answer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from evodeploy.engines.base import Array

PROBLEM = (
    "the model's output for this image is not finite (NaN or infinite): check the artefact with `evodeploy verify`"
)


def not_finite(outputs: Mapping[str, Array]) -> NDArray[np.bool_]:
    """Return which images have a NaN or an infinity in one of their outputs: (N,) for outputs of N images."""
    found = [
        ~np.isfinite(value).reshape(len(value), -1).all(axis=1)
        for value in outputs.values()
        if value.dtype.kind == "f" and len(value)
    ]
    return np.any(found, axis=0) if found else np.zeros(len(next(iter(outputs.values()), ())), bool)
