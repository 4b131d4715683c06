"""Export of a sweep's candidates, and measurement of their accuracy: each once, even after interruptions."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evodeploy.engines.finite import PROBLEM
from evodeploy.errors import EvodeployError, UsageError, VerificationError
from evodeploy.evaluation.pipeline import evaluate
from evodeploy.exporter.pipeline import export
from evodeploy.files import sha256
from evodeploy.onnx_files import info_of, read_onnx
from evodeploy.specs import ModelInfo
from evodeploy.sweeper.request import SweepRequest
from evodeploy.sweeper.space import Candidate
from evodeploy.sweeper.state import State

_log = logging.getLogger(__name__)


class Judge:
    """Exports and evaluates candidates, unless `state`, where the results are kept, has both already."""

    def __init__(self, request: SweepRequest, state: State) -> None:
        self._request, self._state = request, state
        self._files: dict[str, ModelInfo | EvodeployError] = {}  # by name: its metadata, or why there is none

    def knows(self, candidate: Candidate) -> bool:
        """Return whether the candidate is finished."""
        there = (self._request.folder / self._request.file_of(candidate)).exists()
        return there and (self._request.data is None or str(candidate) in self._state.accuracies)

    def judge(self, candidate: Candidate) -> None:
        """Export the candidate's file and measure its accuracy. Raises an error if either fails."""
        info = self._info(candidate)
        if self._request.elastic:
            info.keep_of(candidate.keep)
        if self._request.data is not None and str(candidate) not in self._state.accuracies:
            _log.info(f"evaluating {candidate}")
            self._state.accuracies[str(candidate)] = self._accuracy(candidate, self._request.data)
        self._state.write()

    def _info(self, candidate: Candidate) -> ModelInfo:
        """Return the metadata of the candidate's file, exported if it is missing. A failed export is not repeated."""
        name = self._request.file_of(candidate)
        if name not in self._files:
            try:
                self._files[name] = self._exported(candidate, self._request.folder / name)
            except EvodeployError as error:
                self._files[name] = error
        found = self._files[name]
        if isinstance(found, EvodeployError):
            raise found
        return found

    def _exported(self, candidate: Candidate, path: Path) -> ModelInfo:
        from evodeploy.models.loaded import ANY_SHARE

        request, name = self._request, self._request.file_of(candidate)
        if path.exists():
            info = info_of(read_onnx(path))
            if info is not None and info.source_sha256 == sha256(request.checkpoint):
                return info
            if name not in self._state.files:
                raise UsageError(f"{path} is not from this sweep: remove it, or name another folder with -o")
        self._state.add_file(name)
        _log.info(f"exporting {path.name}")
        with _unlogged():
            return export(
                request.checkpoint,
                path,
                keep_ratio=None if request.elastic else candidate.keep,
                elastic=ANY_SHARE if request.elastic else None,
                fast_path=request.fast_path,
                precision=candidate.stored,
                verify=candidate.stored != "int8" or not self._compared(candidate),
                images=(request.images or request.data) if candidate.stored == "int8" else None,
                force=True,
            ).info

    def _compared(self, candidate: Candidate) -> bool:
        """Return whether the FP32 file that the candidate's own file is made from agreed with PyTorch."""
        twin = self._request.file_of(dataclasses.replace(candidate, precision="fp32"))
        return isinstance(self._files.get(twin), ModelInfo)

    def _accuracy(self, candidate: Candidate, data: Path) -> list[float]:
        """Return top-1 and its bounds. Raises VerificationError if the model returned NaN or infinity for an image."""
        request = self._request
        path = request.folder / request.file_of(candidate)
        journal = path.with_name(f"{path.name}.{candidate.dashed}.{candidate.engine}.{candidate.precision}.part")
        with _unlogged():
            report = evaluate(
                path,
                data,
                labels=request.labels,
                class_map=request.class_map,
                limit=request.limit,
                engine=candidate.engine,
                options=candidate.options(request.threads),
                keep_ratio=candidate.keep if request.elastic else None,
                journal=journal,
            )
        journal.unlink()
        lost = [f"{name}: {reason}" for name, reason in report.broken]
        if wrong := [each for each in lost if PROBLEM in each]:
            raise VerificationError(f"{len(wrong)} of {report.images + len(lost)} images have no answer: {wrong[0]}")
        if lost:
            _log.warning(f"{len(lost)} images cannot be read, and do not count; the first: {lost[0]}")
        top1 = report.scores[0].top1
        return [top1.value, top1.low, top1.high]


@contextmanager
def _unlogged() -> Iterator[None]:
    """Keep the steps of a candidate's stages out of the log, which has one line for each candidate.

    This applies to the whole process: other threads that run these stages meanwhile do not log either.
    """
    loggers = [logging.getLogger(f"evodeploy.{part}") for part in ("exporter", "evaluation")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
