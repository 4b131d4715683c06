"""The facts that accompany a model through the pipeline, as frozen data: no torch, no onnx.

`ModelInfo` is written into the metadata of every ONNX file and into the record of every engine, so that any program
that runs the artefact knows how to prepare images and what the classes are called.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from evodeploy.elastic import ElasticStage, checked_keep, stage_ratios
from evodeploy.errors import InputError, UsageError
from evodeploy.machine.cores import most_threads
from evodeploy.text import brief

Selection = Literal["stage", "layer"]
Pooling = Literal["mean", "class"]
FastPath = Literal["rest", "merge"]
Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
Reduced = Literal["fp16", "bf16"]
Quantized = Literal["int8", "fp8"]
InputFormat = Literal["float32", "uint8", "uint8-nchw"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
CropMode = Literal["center", "squash"]
Rounding = Literal["timm", "hugging-face"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raise UsageError if `value` is neither None nor one of `choices`, a Literal."""
    if value is not None and value not in get_args(choices):
        raise UsageError(f"{name} is {brief(repr(value))}, expected one of {', '.join(get_args(choices))}")


def lowest(precisions: Collection[Precision]) -> Precision:
    """Return the one of `precisions` that rounds most: `Precision` lists them in that order."""
    return max(precisions, key=get_args(Precision).index)


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of an engine. A None in `shape` is a dynamic axis; the first axis is the batch."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        sizes = (str(n) if n is not None else "kept" if axis else "batch" for axis, n in enumerate(self.shape))
        return f"{self.name} {self.dtype} ({', '.join(sizes)})"


@dataclass(frozen=True)
class BatchRange:
    """The batch sizes that an engine accepts, including both ends. `max=None` means no maximum."""

    min: int = 1
    max: int | None = None

    def __contains__(self, batch: object) -> bool:
        return isinstance(batch, int) and self.min <= batch and (self.max is None or batch <= self.max)

    def __str__(self) -> str:
        if self.min == self.max:
            return str(self.min)
        return f"{self.min} or more" if self.max is None else f"{self.min} to {self.max}"


@dataclass(frozen=True)
class EngineOptions:
    """The options with which a runtime opens a file. None leaves the choice to the runtime.

    `threads` bounds the CPU threads of one run. `device` is cpu, cuda or cuda:N. `precision` is the one in which an
    FP32 file is computed, if the runtime can use another. `cuda_graph` replays a recorded launch for each batch size.
    `cache` is a folder for what the runtime compiles, so that the next start is faster. `tf32` lets FP32 products on a
    GPU round their factors to ten bits, which is faster there. `fixed_keep` opens an elastic file as a static one with
    these keep ratios, one for all stages or one for each; it then accepts no others.
    """

    threads: int | None = None
    device: str | None = None
    precision: Precision | None = None
    cuda_graph: bool = False
    cache: Path | None = None
    tf32: bool | None = None
    fixed_keep: float | Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Convert `cache` to a path and check the options. Raises UsageError for those that no runtime can satisfy."""
        if self.cache is not None:
            object.__setattr__(self, "cache", Path(self.cache))
        most = most_threads()
        if self.threads is not None and not (type(self.threads) is int and 1 <= self.threads <= most):
            raise UsageError(f"threads is {brief(repr(self.threads))}, expected a whole number from 1 to {most}")
        if not isinstance(self.device, str | None):
            raise UsageError(f"device is {brief(repr(self.device))}, expected cpu, cuda or cuda:N")
        check_choice("precision", self.precision, Precision)


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a tensor: resize, crop the centre, scale to [0, 1], normalise.

    `crop_mode` center resizes the shorter side and keeps the aspect ratio; squash resizes both sides to one length.
    `crop_pct` is the share of the resized side that the crop keeps. `rounding` names the library whose rule turns
    shares into pixels. `assumed` names the fields that no source states; comparisons ignore it.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: Interpolation = "bicubic"
    crop_pct: float = 0.875
    crop_mode: CropMode = "center"
    rounding: Rounding = "timm"
    assumed: tuple[str, ...] = field(default=(), compare=False)

    def resized(self, image_size: int) -> int:
        """Return the pixels of the shorter side before the crop: at 0.875, 256 for 224 and 438 for 384."""
        exact = image_size / self.crop_pct
        return round(exact) if self.rounding == "hugging-face" else math.floor(exact)

    def offset(self, side: int, image_size: int) -> int:
        """Return the pixel at which the crop begins on a side of `side` pixels."""
        return (side - image_size) // 2 if self.rounding == "hugging-face" else round((side - image_size) / 2)


@dataclass(frozen=True)
class ModelInfo:
    """The facts of a deployed model.

    `precision` is the one of its weights. `keep_ratios` has one entry per selecting stage; all 1.0 is the dense twin.
    `pooling` is what the head reads: the mean of the patch tokens, or the class token. `stages` holds the block at
    which each selecting stage begins, if the family lets them be chosen. `fast_path` is what happens to tokens that are
    not selected: they rest, or each is merged into the most similar kept token. With merging, the selection keeps the
    tokens that no other could represent. A network without a classifier has `num_classes` 0. `ema`: averaged weights.

    `input_format` is the input of the artefact: `float32` is (batch, 3, H, W), normalised; `uint8` is (batch, H, W, 3)
    and `uint8-nchw` (batch, 3, H, W), RGB from 0 to 255, which the graph itself normalises. With `top_k` the artefact
    returns that number of most probable classes instead of all logits.

    An elastic artefact has one entry per selecting stage in `elastic` and a second input, `keep`: the number of tokens
    that each stage keeps in that run. Its `keep_ratios` are the default of a run.
    """

    model: str
    image_size: int
    patch_size: int
    num_classes: int
    selection: Selection
    keep_ratios: tuple[float, ...]
    precision: Precision = "fp32"
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    class_names: tuple[str, ...] = ()
    source: str = ""
    source_sha256: str = ""
    pooling: Pooling = "mean"
    stages: tuple[int, ...] = ()
    fast_path: FastPath = "rest"
    input_format: InputFormat = "float32"
    top_k: int | None = None
    elastic: tuple[ElasticStage, ...] = ()
    ema: bool = False
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def dense(self) -> bool:
        """Whether every token takes the slow path in every block of every run."""
        return not self.elastic and all(ratio == 1.0 for ratio in self.keep_ratios)

    @property
    def output(self) -> str:
        """Name of the first output: `logits`, `features` without a classifier, or `probabilities` with `top_k`."""
        return "probabilities" if self.top_k else output_name(self.num_classes)

    @property
    def input(self) -> TensorSpec:
        """The image input, with a dynamic batch."""
        side = self.image_size
        shape = (None, side, side, 3) if self.input_format == "uint8" else (None, 3, side, side)
        return TensorSpec("images", "float32" if self.input_format == "float32" else "uint8", shape)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The images and, for an elastic artefact, the numbers of tokens that the stages keep."""
        return (self.input, TensorSpec(KEEP, "int64", (len(self.elastic),))) if self.elastic else (self.input,)

    def ratios_of(self, ratios: float | Sequence[float] | None = None) -> tuple[float, ...]:
        """Return a keep ratio for each stage: `ratios`, one for all or one for each, or by default `keep_ratios`.

        Raises InputError if the artefact is not elastic, a ratio is outside (0, 1], or the number of ratios is wrong.
        """
        if ratios is None:
            return self.keep_ratios
        self._check_elastic()
        return stage_ratios(ratios, len(self.elastic))

    def keep_of(self, ratios: float | Sequence[float] | None = None) -> tuple[int, ...]:
        """Return K = int(ratio · N), the tokens that each stage keeps at `ratios_of(ratios)`; () for a static artefact.

        Raises the same errors as `ratios_of`, and InputError outside the artefact's bounds.
        """
        given = self.ratios_of(ratios)
        if not self.elastic:
            return ()
        return self.checked([int(ratio * stage.tokens) for ratio, stage in zip(given, self.elastic, strict=True)])

    def checked(self, keep: Sequence[int]) -> tuple[int, ...]:
        """Return `keep`, the tokens of each stage. Raises InputError if they are outside the artefact's bounds."""
        self._check_elastic()
        return checked_keep(keep, self.elastic)

    def _check_elastic(self) -> None:
        if not self.elastic:
            kept = ", ".join(f"{ratio:g}" for ratio in self.keep_ratios)
            raise InputError(
                f"this artefact keeps a fixed share of tokens ({kept}): leave the keep ratio out, or export the "
                "checkpoint with --elastic"
            )

    def label(self, index: int) -> str:
        """Return the name of class `index`, or its number if no names are known."""
        return self.class_names[index] if index < len(self.class_names) else f"class {index}"

    def to_json(self) -> str:
        """Return the facts as one line of JSON."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, allow_nan=False)


def output_name(num_classes: int) -> str:
    """Return the name of the first output of a network of `num_classes`; 0 means that it has no classifier."""
    return "logits" if num_classes else "features"


NO_METADATA = "carries no evodeploy metadata: export its checkpoint with `evodeploy export`"
METADATA_KEY = "evodeploy"  # the ONNX metadata property that holds ModelInfo as JSON
ASKED = "asked for"  # the reason for a node that stayed in FP32 because `keep_fp32` names it
KEEP = "keep"  # the input with the number of tokens that each stage keeps

FP16_LARGEST = 65504.0  # the largest magnitude in FP16
LARGEST_IMAGE_SIZE = 4096  # pixels per side
LARGEST_NAME = 300  # characters of the name of a class, a model or a source
