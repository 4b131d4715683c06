"""Opening an artefact for prediction."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evodeploy.arguments import checked
from evodeploy.engines.opener import open_engine, title_of
from evodeploy.inference.predictor import BATCH, Predictor
from evodeploy.specs import EngineOptions, Precision

if TYPE_CHECKING:
    from torch import nn

_log = logging.getLogger(__name__)


@checked
def load(
    source: str | os.PathLike[str] | nn.Module,
    engine: str | None = None,
    *,
    threads: int | None = None,
    device: str | None = None,
    precision: Precision | None = None,
    cuda_graph: bool = False,
    cache: str | os.PathLike[str] | None = None,
    tf32: bool | None = None,
    fixed_keep: float | Sequence[float] | None = None,
    max_batch: int = BATCH,
    max_wait: float = 0.002,
) -> Predictor:
    """Open a checkpoint, an ONNX file, an engine or a PyTorch module for prediction.

    `engine` names the runtime (torch, torch-compile; onnxruntime, openvino; tensorrt). By default it is the first
    installed one that fits; the predictor's `repr` and the log `evodeploy` show it. The next arguments, up to
    `fixed_keep`, are the `EngineOptions`. `submit` runs up to `max_batch` images together, and none of them waits
    longer than `max_wait` seconds for others.
    """
    folder = None if cache is None else Path(cache)
    options = EngineOptions(threads, device, precision, cuda_graph, folder, tf32, fixed_keep)
    opened = open_engine(source, engine, options)
    try:
        predictor = Predictor(opened, max_batch=max_batch, max_wait=max_wait)
    except BaseException:
        opened.close()
        raise
    _log.info("%s: %r", os.fspath(source) if isinstance(source, (str, os.PathLike)) else title_of(source), predictor)
    return predictor
