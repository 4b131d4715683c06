"""Rules for the facts of `specs` when they are read from a file, one for each field."""

from __future__ import annotations

import itertools
import math
from typing import Any, get_args

from evodeploy.elastic import ElasticStage
from evodeploy.errors import InputError
from evodeploy.schema import (
    Rule,
    SchemaError,
    boolean,
    document,
    mapping,
    number,
    one_of,
    optional,
    read_json,
    record,
    sequence,
    text,
    whole,
)
from evodeploy.specs import (
    LARGEST_IMAGE_SIZE,
    LARGEST_NAME,
    CropMode,
    FastPath,
    InputFormat,
    Interpolation,
    ModelInfo,
    Pooling,
    Precision,
    Preprocessing,
    Rounding,
    Selection,
    TensorSpec,
)


def read_model_info(line: str) -> ModelInfo:
    """Read a line that `ModelInfo.to_json` wrote. Raises ValueError (of `schema`) if it is anything else."""
    return MODEL_INFO(read_json(line))


def _model_info(**values: Any) -> ModelInfo:
    """Return the facts as ModelInfo. Raises SchemaError if they contradict each other."""
    info = ModelInfo(**values)
    if info.patch_size > info.image_size:
        raise SchemaError("patch_size", info.patch_size, f"at most the image size, {info.image_size}")
    if info.class_names and len(info.class_names) != info.num_classes:
        raise SchemaError("class_names", info.class_names, f"one for each of {info.num_classes} classes, or none")
    if info.top_k is not None and info.top_k > info.num_classes:
        raise SchemaError("top_k", info.top_k, f"at most the number of classes, {info.num_classes}")
    if any(a >= b for a, b in itertools.pairwise(info.stages)):
        raise SchemaError("stages", info.stages, "blocks in rising order")
    if info.elastic and len(info.elastic) != len(info.keep_ratios):
        raise SchemaError("elastic", info.elastic, f"an entry for each of {len(info.keep_ratios)} keep ratios")
    for index, stage in enumerate(info.elastic):
        if not stage.low <= stage.high <= stage.tokens:
            sizes = [stage.low, stage.high, stage.tokens]
            raise SchemaError(f"elastic[{index}]", sizes, "low, high and tokens in rising order")
    try:
        info.keep_of()
    except InputError as error:
        raise SchemaError("keep_ratios", info.keep_ratios, f"ratios within elastic's bounds: {error}") from error
    return info


def _upgraded(values: Any, field: str) -> Any:
    """Convert what an older version wrote to this version's form, with the same meaning. Raises SchemaError."""
    document({"image_size": _SIZE, "preprocessing": document({})})(values, field)
    preprocessing = dict(values["preprocessing"])
    if "resize_ratio" not in preprocessing:
        return values
    ratio = number(1, 4)(preprocessing.pop("resize_ratio"), "preprocessing.resize_ratio")
    preprocessing["crop_pct"] = _crop_pct(ratio, values["image_size"])
    return values | {"preprocessing": preprocessing}


def _crop_pct(resize_ratio: float, image_size: int) -> float:
    """Return the crop share that resizes `image_size` to int(ratio · size), as the first version did."""
    shorter = int(resize_ratio * image_size)
    shares = (round(1 / resize_ratio, 6), 1 / resize_ratio)  # the first is the stated value: 1 / (1 / 0.9) is not 0.9
    found = next((share for share in shares if math.floor(image_size / share) == shorter), None)
    return found or math.nextafter(image_size / shorter, 0)


_NAME = text(LARGEST_NAME)
_FLOATS = ("float8_e4m3fn", "float16", "bfloat16", "float32", "float64")
_WHOLE = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPE = one_of(*_FLOATS, *_WHOLE, words="a type of numbers such as float32")
TENSOR_SPEC = record(
    TensorSpec, name=text(LARGEST_NAME, least=1), dtype=DTYPE, shape=sequence(optional(whole(1, 2**31)), 1, 8)
)
_SIZE = whole(1, LARGEST_IMAGE_SIZE)
_TOKENS = whole(1, LARGEST_IMAGE_SIZE**2)
PREPROCESSING = record(
    Preprocessing,
    strict=True,  # an unknown field could change images in an unknown way
    mean=sequence(number(-1e4, 1e4), 3, 3),
    std=sequence(number(1e-4, 1e4), 3, 3),
    interpolation=one_of(*get_args(Interpolation)),
    crop_pct=number(0.25, 1),
    crop_mode=one_of(*get_args(CropMode)),
    rounding=one_of(*get_args(Rounding)),
    assumed=sequence(text(30), 0, 8),
)
_MODEL_INFO = record(
    ModelInfo,
    _model_info,
    model=_NAME,
    image_size=_SIZE,
    patch_size=_SIZE,
    num_classes=whole(0, 1_000_000),
    selection=one_of(*get_args(Selection)),
    keep_ratios=sequence(number(0, 1, above=True), 0, 64),
    precision=one_of(*get_args(Precision)),
    preprocessing=PREPROCESSING,
    class_names=sequence(_NAME, 0, 1_000_000),
    source=_NAME,
    source_sha256=text(64),
    pooling=one_of(*get_args(Pooling)),
    stages=sequence(whole(0, 1000), 0, 64),
    fast_path=one_of(*get_args(FastPath)),
    input_format=one_of(*get_args(InputFormat)),
    top_k=optional(whole(1, 1_000_000)),
    elastic=sequence(record(ElasticStage, tokens=_TOKENS, low=_TOKENS, high=_TOKENS), 0, 64),
    ema=boolean(),
    versions=mapping(text(100), 64),
)
MODEL_INFO: Rule[ModelInfo] = Rule(
    _MODEL_INFO.expected, lambda value, field: _MODEL_INFO(_upgraded(value, field), field)
)
