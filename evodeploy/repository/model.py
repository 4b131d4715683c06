"""The facts about an ONNX file or a plan that Triton needs, and checks of what it cannot serve."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from evodeploy.engines.tensorrt.sidecar import Profile, check_intact, read_sidecar
from evodeploy.errors import UsageError
from evodeploy.kinds import kind_of
from evodeploy.onnx_files import external_data, info_of, input_spec, opset_of, output_specs, read_onnx
from evodeploy.specs import ModelInfo, TensorSpec
from evodeploy.text import brief

ONNX_MAX_BATCH = 32


@dataclass(frozen=True)
class ServedModel:
    """A file that one of Triton's backends runs; `made` describes how it was made.

    `batches` is None if Triton joins no requests: the batch is fixed, or the model is elastic. Triton takes the first
    number of a shape tensor for the batch size, and cannot join inputs that have no batch axis.
    """

    path: Path
    backend: str
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    batches: Profile | None
    info: ModelInfo | None
    made: str

    @property
    def keep(self) -> TensorSpec | None:
        """The input with the numbers of kept tokens; None for a static model."""
        return self.info.inputs[1] if self.info and self.info.elastic else None

    @property
    def default_keep(self) -> tuple[int, ...]:
        """The value of `keep` for a client that does not choose one; empty for a static model."""
        return self.info.keep_of() if self.info else ()

    @property
    def file_name(self) -> str:
        """The file name that the backend expects."""
        return "model.plan" if self.backend == "tensorrt" else "model.onnx"


def served_model(path: Path, max_batch: int | None = None) -> ServedModel:
    """Read the facts of `path`, for batches of up to `max_batch`: by default the engine's largest, or 32 for ONNX.

    Raises UsageError for a checkpoint, an ONNX file with weights in other files, an engine of TensorRT for RTX, an
    engine that takes no single image, or a `max_batch` that the file does not take; BadFileError if it is damaged.
    """
    kind = kind_of(path)
    if kind == "checkpoint":
        raise UsageError(f"Triton runs ONNX files and engines, and {path} is a checkpoint: export it first")
    model = _onnx(path) if kind == "onnx" else _plan(path)
    if model.batches is None:
        if max_batch is not None and model.keep:
            raise UsageError(
                f"{path} is elastic, so Triton runs each request separately, with its own number of kept tokens: "
                "leave out --max-batch"
            )
        if max_batch is not None:
            raise UsageError(f"{path} takes batches of {model.input.shape[0]} and no other: leave out --max-batch")
        return model
    if model.batches.min > 1:
        raise UsageError(
            f"{path} takes {model.batches.min} images or more, but Triton also passes on single images: build "
            "it with --min-batch 1"
        )
    for spec in model.outputs:
        if spec.shape[:1] != (None,):
            raise UsageError(f"the output {spec} of {path} has no batch axis, so Triton cannot divide it up")
    if max_batch is None:
        return model
    if kind == "engine" and max_batch > model.batches.max:
        raise UsageError(f"{path} takes up to {model.batches.max} images, fewer than --max-batch {max_batch}")
    batches = _halved(max_batch) if kind == "onnx" else Profile(1, min(model.batches.opt, max_batch), max_batch)
    return dataclasses.replace(model, batches=batches)


def _onnx(path: Path) -> ServedModel:
    if others := external_data(path):
        raise UsageError(
            f"{path} keeps weights in other files ({brief(', '.join(others))}), but a package has only one "
            f"model file: write one with Python's onnx.save(onnx.load('{path.name}'), 'whole.onnx'), or package an "
            "engine built from it"
        )
    model = read_onnx(path)
    images, info = input_spec(model), info_of(model)
    joined = images.shape[0] is None and not (info and info.elastic)
    return ServedModel(
        path=path,
        backend="onnxruntime",
        input=images,
        outputs=output_specs(model),
        batches=_halved(ONNX_MAX_BATCH) if joined else None,
        info=info,
        made=f"ONNX of operator set {opset_of(model)} and IR version {model.ir_version}",
    )


def _plan(path: Path) -> ServedModel:
    record = read_sidecar(path)
    if record.runtime == "tensorrt-rtx":
        raise UsageError(
            f"{path} was built by TensorRT for RTX, whose engines Triton's tensorrt backend does not load: "
            f"package the ONNX it was built from ({record.source}), or build it with --runtime tensorrt"
        )
    check_intact(path, record)
    images = record.inputs[0]
    served = _served(record.profiles, path)
    return ServedModel(
        path=path,
        backend="tensorrt",
        input=images,
        outputs=record.outputs,
        batches=served if images.shape[0] is None and not record.elastic else None,
        info=record.model,
        made=f"{record.runtime} {record.runtime_version} for {', '.join(record.targets) or 'the GPU it was built on'}",
    )


def _served(profiles: tuple[Profile, ...], path: Path) -> Profile:
    """Return the only profile, for Triton's configuration: it uses the first unless an instance group names another."""
    if len(profiles) > 1:
        raise UsageError(f"{path} has {len(profiles)} optimization profiles: build it with one to serve it by Triton")
    return profiles[0]


def _halved(largest: int) -> Profile:
    """Return the batches of a file that runs any size equally well: above half the largest, waiting is not worth it."""
    return Profile(1, max(1, largest // 2), largest)
