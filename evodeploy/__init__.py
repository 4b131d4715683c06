"""Deploy Evo-ViT, the vision transformers that spend full computation on the tokens that matter.

    checkpoint ──▶ network ──▶ ONNX ──────────▶ engine file ──▶ predictor, bench, service
     models/       models/    exporter/, graph/  builder/        engines/, inference/, benchmark/, serving/

The ONNX file is the dividing line: code that runs an ONNX file or an engine needs no torch. Names are imported lazily.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evodeploy.benchmark.pipeline import bench as bench
    from evodeploy.benchmark.report.report import Report as Report
    from evodeploy.builder.pipeline import build as build
    from evodeploy.builder.record import Build as Build
    from evodeploy.builder.record import Refit as Refit
    from evodeploy.builder.refit import refit as refit
    from evodeploy.compare.agreement import Agreement as Agreement
    from evodeploy.compare.margins import Margins as Margins
    from evodeploy.compare.margins import margins as margins
    from evodeploy.compare.verification import verify as verify
    from evodeploy.debugging.bisection import Bisection as Bisection
    from evodeploy.debugging.bisection import bisect as bisect
    from evodeploy.debugging.pipeline import debug as debug
    from evodeploy.debugging.report import DebugReport as DebugReport
    from evodeploy.distillation.pipeline import distill as distill
    from evodeploy.distillation.report import Distilled as Distilled
    from evodeploy.engines.base import Engine as Engine
    from evodeploy.engines.opener import open_engine as open_engine
    from evodeploy.errors import BadFileError as BadFileError
    from evodeploy.errors import EvodeployError as EvodeployError
    from evodeploy.errors import InputError as InputError
    from evodeploy.errors import MissingExtraError as MissingExtraError
    from evodeploy.errors import OutOfMemoryError as OutOfMemoryError
    from evodeploy.errors import RuntimeFailedError as RuntimeFailedError
    from evodeploy.errors import UnavailableError as UnavailableError
    from evodeploy.errors import UsageError as UsageError
    from evodeploy.errors import VerificationError as VerificationError
    from evodeploy.evaluation.pipeline import evaluate as evaluate
    from evodeploy.evaluation.report import Evaluation as Evaluation
    from evodeploy.exporter.pipeline import export as export
    from evodeploy.exporter.record import Export as Export
    from evodeploy.inference.loading import load as load
    from evodeploy.inference.predictor import Predictor as Predictor
    from evodeploy.inference.records import Failure as Failure
    from evodeploy.inference.records import Label as Label
    from evodeploy.inference.records import Prediction as Prediction
    from evodeploy.inference.records import Timing as Timing
    from evodeploy.inference.records import Written as Written
    from evodeploy.inspection.roofline.pipeline import roofline as roofline
    from evodeploy.inspection.roofline.report import Roofline as Roofline
    from evodeploy.load_testing.records import LoadTest as LoadTest
    from evodeploy.load_testing.run import load_test as load_test
    from evodeploy.profiling.pipeline import profile as profile
    from evodeploy.profiling.record import Profile as Profile
    from evodeploy.repository.pipeline import package as package
    from evodeploy.repository.record import Packaged as Packaged
    from evodeploy.specs import EngineOptions as EngineOptions
    from evodeploy.specs import ModelInfo as ModelInfo
    from evodeploy.sweeper.pipeline import sweep as sweep
    from evodeploy.sweeper.result import Sweep as Sweep
    from evodeploy.visualization.pipeline import Visualization as Visualization
    from evodeploy.visualization.pipeline import visualize as visualize

__version__ = "0.2.0"

_HOMES = {
    "evodeploy.benchmark.pipeline": ("bench",),
    "evodeploy.benchmark.report.report": ("Report",),
    "evodeploy.builder.pipeline": ("build",),
    "evodeploy.builder.record": ("Build", "Refit"),
    "evodeploy.builder.refit": ("refit",),
    "evodeploy.compare.agreement": ("Agreement",),
    "evodeploy.compare.margins": ("Margins", "margins"),
    "evodeploy.compare.verification": ("verify",),
    "evodeploy.debugging.bisection": ("Bisection", "bisect"),
    "evodeploy.debugging.pipeline": ("debug",),
    "evodeploy.debugging.report": ("DebugReport",),
    "evodeploy.distillation.report": ("Distilled",),
    "evodeploy.distillation.pipeline": ("distill",),
    "evodeploy.engines.base": ("Engine",),
    "evodeploy.engines.opener": ("open_engine",),
    "evodeploy.errors": (
        "BadFileError",
        "EvodeployError",
        "InputError",
        "MissingExtraError",
        "OutOfMemoryError",
        "RuntimeFailedError",
        "UnavailableError",
        "UsageError",
        "VerificationError",
    ),
    "evodeploy.exporter.pipeline": ("export",),
    "evodeploy.exporter.record": ("Export",),
    "evodeploy.evaluation.pipeline": ("evaluate",),
    "evodeploy.evaluation.report": ("Evaluation",),
    "evodeploy.inference.loading": ("load",),
    "evodeploy.inference.predictor": ("Predictor",),
    "evodeploy.inference.records": ("Failure", "Label", "Prediction", "Timing", "Written"),
    "evodeploy.inspection.roofline.pipeline": ("roofline",),
    "evodeploy.inspection.roofline.report": ("Roofline",),
    "evodeploy.load_testing.records": ("LoadTest",),
    "evodeploy.load_testing.run": ("load_test",),
    "evodeploy.profiling.pipeline": ("profile",),
    "evodeploy.profiling.record": ("Profile",),
    "evodeploy.repository.pipeline": ("package",),
    "evodeploy.repository.record": ("Packaged",),
    "evodeploy.specs": ("EngineOptions", "ModelInfo"),
    "evodeploy.sweeper.pipeline": ("sweep",),
    "evodeploy.sweeper.result": ("Sweep",),
    "evodeploy.visualization.pipeline": ("Visualization", "visualize"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]


def __dir__() -> list[str]:
    """Return the public names as well, which may not be imported yet, for completion in a notebook."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'evodeploy' has no attribute '{name}'")
