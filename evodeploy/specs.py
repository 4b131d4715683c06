"""The facts that travel with a model through the pipeline, as frozen data: no torch, no onnx.

`ModelInfo` is written into the metadata of every ONNX file and into the sidecar of every engine, so that whatever
runs the artefact knows how to prepare images and how to name the classes.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from evodeploy.errors import UsageError
from evodeploy.machine.cores import most_threads
from evodeploy.text import brief

Selection = Literal["stage", "layer"]
Pooling = Literal["mean", "class"]
Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
Reduced = Literal["fp16", "bf16"]
Quantized = Literal["int8", "fp8"]
Converted = Literal["fp16", "bf16", "int8", "fp8"]  # what an FP32 export can be made into
InputFormat = Literal["float32", "uint8", "uint8-nchw"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
CropMode = Literal["center", "squash"]
Rounding = Literal["timm", "hugging-face"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of an engine: a None in `shape` is the batch axis where it is dynamic."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} ({', '.join('batch' if n is None else str(n) for n in self.shape)})"


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
    """What a runtime is told when it opens a file; None leaves the choice to the runtime.

    `threads` bounds the CPU threads of one run. `device` is cpu, cuda or cuda:N. `precision` is what an FP32 file is
    computed in, where the runtime can compute it in another. `cuda_graph` replays a recorded launch for each batch
    size. `cache` is a folder for what the runtime compiles, so that the next start is faster. `tf32` lets FP32
    products on a GPU round their factors to ten bits, which is faster there.
    """

    threads: int | None = None
    device: str | None = None
    precision: Precision | None = None
    cuda_graph: bool = False
    cache: Path | None = None
    tf32: bool | None = None

    def __post_init__(self) -> None:
        """Refuse what no runtime can honour: raises UsageError."""
        most = most_threads()
        if self.threads is not None and not (type(self.threads) is int and 1 <= self.threads <= most):
            raise UsageError(f"threads is {brief(repr(self.threads))}, expected a whole number from 1 to {most}")
        if self.precision not in (None, *get_args(Precision)):
            expected = ", ".join(get_args(Precision))
            raise UsageError(f"precision is {brief(repr(self.precision))}, expected one of {expected}")


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
    which each selecting stage begins, where the family lets them be chosen. A network without a classifier has
    `num_classes` 0.

    `input_format` is what the artefact takes: `float32` is (batch, 3, H, W), normalised; `uint8` is (batch, H, W, 3)
    and `uint8-nchw` (batch, 3, H, W), RGB from 0 to 255 that the graph itself normalises. With `top_k` the artefact
    gives the so many most probable classes in place of all logits.
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
    input_format: InputFormat = "float32"
    top_k: int | None = None
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def dense(self) -> bool:
        """Whether every token takes the slow path in every block."""
        return all(ratio == 1.0 for ratio in self.keep_ratios)

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

    def label(self, index: int) -> str:
        """The name of class `index`, or its number where no names are known."""
        return self.class_names[index] if index < len(self.class_names) else f"class {index}"

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, allow_nan=False)


def output_name(num_classes: int) -> str:
    """What the first output of a network of so many classes is called; none means that it has no classifier."""
    return "logits" if num_classes else "features"


METADATA_KEY = "evodeploy"  # the ONNX metadata property that holds ModelInfo as JSON

LARGEST_IMAGE_SIZE = 4096  # pixels of a side
LARGEST_NAME = 300  # characters of a class, a model or a source
