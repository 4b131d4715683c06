"""The facts that travel with a model through the pipeline, as frozen data: no torch, no onnx.

`ModelInfo` is written into the metadata of every ONNX file and into the sidecar of every engine, so that whatever
runs the artefact knows how to prepare images and how to name the classes.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
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
    """Raise UsageError for a `value` that is neither None nor one of `choices`, a Literal."""
    if value is not None and value not in get_args(choices):
        raise UsageError(f"{name} is {brief(repr(value))}, expected one of {', '.join(get_args(choices))}")


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of an engine: a None in `shape` is a dynamic axis, in front that of the batch."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        sizes = (str(n) if n is not None else "kept" if axis else "batch" for axis, n in enumerate(self.shape))
        return f"{self.name} {self.dtype} ({', '.join(sizes)})"


@dataclass(frozen=True)
class BatchRange:
    """The batch sizes an engine takes, both ends included; no maximum is `max=None`."""

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
    """The options of a runtime when it opens a file; None leaves the choice to the runtime.

    `threads` bounds the CPU threads of one run. `device` is cpu, cuda or cuda:N. `precision` is what an FP32 file is
    computed in, where the runtime can compute it in another. `cuda_graph` replays a recorded launch for each batch
    size. `cache` is a folder for what the runtime compiles, so that the next start is faster. `tf32` lets FP32
    products on a GPU round their factors to ten bits, which is faster there. `fixed_keep` opens an elastic file as a
    static one of these keep ratios, one for all stages or one for each: it takes no others then.
    """

    threads: int | None = None
    device: str | None = None
    precision: Precision | None = None
    cuda_graph: bool = False
    cache: Path | None = None
    tf32: bool | None = None
    fixed_keep: float | Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Take `cache` as a path, and refuse what no runtime can honour: raises UsageError."""
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

    `crop_mode` center resizes the shorter side and keeps the aspect ratio; squash resizes both sides alike. `crop_pct`
    is the share of the resized side that the crop keeps. `rounding` says whose rule turns shares into pixels. `assumed`
    names the fields that no source states; two preprocessings that differ in it alone are equal.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: Interpolation = "bicubic"
    crop_pct: float = 0.875
    crop_mode: CropMode = "center"
    rounding: Rounding = "timm"
    assumed: tuple[str, ...] = field(default=(), compare=False)

    def resized(self, image_size: int) -> int:
        """Pixels of the shorter side before the crop: at 0.875, 256 for 224 and 438 for 384."""
        exact = image_size / self.crop_pct
        return round(exact) if self.rounding == "hugging-face" else math.floor(exact)

    def offset(self, side: int, image_size: int) -> int:
        """Where on a side of `side` pixels the crop begins."""
        return (side - image_size) // 2 if self.rounding == "hugging-face" else round((side - image_size) / 2)


@dataclass(frozen=True)
class ModelInfo:
    """What a deployed model is.

    `precision` is that of its weights. `keep_ratios` has one entry per selecting stage; all 1.0 is the dense twin.
    `pooling` says what the head reads: the mean of the patch tokens, or the class token. `stages` holds the block at
    which each selecting stage begins, where the family lets them be chosen. `fast_path` says what becomes of tokens
    that a selection does not keep: they rest, or each is merged into the kept token most like it, and then those are
    kept that no other could represent. A network without a classifier has `num_classes` 0. `ema` says whether its
    weights are the averaged ones of the source.

    `input_format` is what the artefact takes: `float32` is (batch, 3, H, W), normalised; `uint8` is (batch, H, W, 3)
    and `uint8-nchw` (batch, 3, H, W), RGB from 0 to 255 that the graph itself normalises. With `top_k` the artefact
    gives that many most probable classes in place of all logits.

    An elastic artefact has one entry per selecting stage in `elastic` and a second input, `keep`: the tokens that each
    stage keeps in that run. Its `keep_ratios` are what a run gets that asks for none.
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
        """Whether every token takes the slow path in every block, in every run."""
        return not self.elastic and all(ratio == 1.0 for ratio in self.keep_ratios)

    @property
    def output(self) -> str:
        """The first output's name: `logits`, `features` without a classifier, or with `top_k` `probabilities`."""
        return "probabilities" if self.top_k else output_name(self.num_classes)

    @property
    def input(self) -> TensorSpec:
        """The input with a dynamic batch."""
        side = self.image_size
        shape = (None, side, side, 3) if self.input_format == "uint8" else (None, 3, side, side)
        return TensorSpec("images", "float32" if self.input_format == "float32" else "uint8", shape)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The images, and of an elastic artefact the tokens that each stage keeps."""
        return (self.input, TensorSpec(KEEP, "int64", (len(self.elastic),))) if self.elastic else (self.input,)

    def ratios_of(self, ratios: float | Sequence[float] | None = None) -> tuple[float, ...]:
        """Return a keep ratio for each stage: `ratios`, one for all or one for each, or by default `keep_ratios`.

        Raises InputError where the artefact is not elastic, and for ratios outside (0, 1] or of another number.
        """
        if ratios is None:
            return self.keep_ratios
        self._check_elastic()
        return stage_ratios(ratios, len(self.elastic))

    def keep_of(self, ratios: float | Sequence[float] | None = None) -> tuple[int, ...]:
        """K = int(ratio · N), the tokens that each stage keeps at `ratios_of(ratios)`; none of a static artefact.

        Raises InputError as `ratios_of` does, and outside the artefact's bounds.
        """
        given = self.ratios_of(ratios)
        if not self.elastic:
            return ()
        return self.checked([int(ratio * stage.tokens) for ratio, stage in zip(given, self.elastic, strict=True)])

    def checked(self, keep: Sequence[int]) -> tuple[int, ...]:
        """`keep`, tokens for each stage, where they are within the artefact's bounds; raises InputError."""
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
        """Return the name of class `index`, or its number where no names are known."""
        return self.class_names[index] if index < len(self.class_names) else f"class {index}"

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, allow_nan=False)


def output_name(num_classes: int) -> str:
    """Return what the first output of a network of that many classes is called; 0 means that it has no classifier."""
    return "logits" if num_classes else "features"


NO_METADATA = "carries no evodeploy metadata: export its checkpoint with `evodeploy export`"
METADATA_KEY = "evodeploy"  # the ONNX metadata property that holds ModelInfo as JSON

ASKED = "asked for"  # why a node stayed in FP32 that `keep_fp32` names

KEEP = "keep"  # the input that says how many tokens each stage keeps

FP16_LARGEST = 65504.0  # magnitude that FP16 holds
LARGEST_IMAGE_SIZE = 4096  # pixels of a side
LARGEST_NAME = 300  # characters of a class, a model or a source
