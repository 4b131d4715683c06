"""The sources of a checkpoint's preprocessing: options, hubs' files, the training run's own settings.

The first source that states a field decides it. A field that no source states is assumed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from evodeploy.errors import BadFileError, EvodeployError, UsageError
from evodeploy.specs import CropMode, Interpolation, Preprocessing, Rounding
from evodeploy.text import brief

OPTIONS = {
    "mean": "--mean",
    "std": "--std",
    "interpolation": "--interpolation",
    "crop_pct": "--crop-pct",
    "crop_mode": "--crop-mode",
}  # each field that a source may state, and the option of `evodeploy export` that states it
_CHOICES: dict[str, tuple[str, ...]] = {"interpolation": get_args(Interpolation), "crop_mode": get_args(CropMode)}
# Settings that the training code of DeiT, and of Evo-ViT, which is built on it, always writes; the second set is this
# package's own.
_DEIT = ({"input_size", "data_set"}, {"input_size", "keep_ratio"})
_PROCESSOR = "preprocessor_config.json"
_RESAMPLE: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_SHORTEST = ("Bit", "CLIP", "ConvNext")  # processors that take one number as the shorter side; others squash to it
_HUGE = 10**300  # a pickled integer may be too large for a float
_LARGEST = 5  # magnitude of a mean or deviation: larger ones are for channels in [0, 255]
_UNSIZED = 32  # DeiT's code neither resizes nor crops images of this size or less


@dataclass(frozen=True)
class Stated:
    """The preprocessing that one source states, unchecked; a field that it does not state is None.

    `rounding` belongs to `crop_pct`. `error` is the type raised for a value that is not supported.
    """

    source: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str | None = None
    crop_pct: float | None = None
    crop_mode: str | None = None
    rounding: Rounding = "timm"
    error: type[EvodeployError] = BadFileError

    def __bool__(self) -> bool:
        """Return whether any field is stated."""
        return any(getattr(self, name) is not None for name in OPTIONS)


def resolved(sources: Sequence[Stated]) -> Preprocessing:
    """Take each field from the first of `sources` that states it; raises the source's error for a bad value."""
    values: dict[str, Any] = {}
    assumed = []
    for name in OPTIONS:
        source = next((each for each in sources if getattr(each, name) is not None), None)
        if source is None:
            assumed.append(name)
            continue
        values[name] = _checked(name, source)
        if name == "crop_pct":
            values["rounding"] = source.rounding
    return Preprocessing(**values, assumed=tuple(assumed))


def completed(own: Preprocessing, other: Preprocessing) -> Preprocessing:
    """Return `own` with its assumed fields taken from `other`."""
    taken = {name: getattr(other, name) for name in own.assumed}
    if "crop_pct" in taken:
        taken["rounding"] = other.rounding
    left = tuple(name for name in own.assumed if name in other.assumed)
    return dataclasses.replace(own, **taken, assumed=left)


def stated_by_options(
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    interpolation: str | None,
    crop_pct: float | None,
    crop_mode: str | None,
) -> Stated:
    """Return what the arguments of `export` state."""
    return Stated("the arguments", mean, std, interpolation, crop_pct, crop_mode, error=UsageError)


def stated_by_settings(settings: Mapping[str, Any]) -> Stated:
    """Return what a training run's settings state: those of timm's train.py, or of DeiT's and Evo-ViT's code.

    timm writes None for a field if the model's default applies. The file does not hold that default, so the field is
    not stated.
    """
    source = "the checkpoint's settings"
    if "crop_pct" not in settings and any(names <= settings.keys() for names in _DEIT):
        return _of_deit(settings, source)
    return Stated(
        source,
        mean=_channels(settings.get("mean")),
        std=_channels(settings.get("std")),
        interpolation=_text(settings.get("interpolation")),
        crop_pct=_number(settings.get("crop_pct")) or None,
        crop_mode=_text(settings.get("crop_mode")),
        rounding="hugging-face" if settings.get("rounding") == "hugging-face" else "timm",
    )


def stated_by_timm(config: Mapping[str, Any]) -> Stated:
    """Return what timm's `pretrained_cfg` states; if it states anything, timm's defaults fill the other fields."""
    stated = Stated(
        "timm's config.json",
        mean=_channels(config.get("mean")),
        std=_channels(config.get("std")),
        interpolation=_text(config.get("interpolation")),
        crop_pct=_number(config.get("crop_pct")) or None,
        crop_mode="crop_border_pixels" if config.get("crop_border_pixels") else _text(config.get("crop_mode")),
    )
    if not stated:
        return stated
    usual = Preprocessing()
    missing = {name: getattr(usual, name) for name in OPTIONS if getattr(stated, name) is None}
    return dataclasses.replace(stated, **missing)


def stated_by_hugging_face(config: Mapping[str, Any]) -> Stated:
    """Return what a `preprocessor_config.json` states, as read by transformers' ViT, DeiT and BiT processors.

    Scaling other than to [0, 1] is folded into mean and deviation: (f·x - m) / s is (x/255 - m/255f) / (s/255f).
    """
    if not config:
        return Stated(_PROCESSOR)
    mean, std = _channels(config.get("image_mean")), _channels(config.get("image_std"))
    if config.get("do_normalize") is False:
        mean, std = (0.0,) * 3, (1.0,) * 3
    factor = 1.0
    if config.get("do_rescale", True):
        factor = _number(config.get("rescale_factor")) or 1 / 255
    if not math.isclose(factor, 1 / 255):
        mean = mean and tuple(number / (255 * factor) for number in mean)
        std = std and tuple(number / (255 * factor) for number in std)
    resample = config.get("resample")
    crop_mode, crop_pct = _geometry(config)
    return Stated(
        _PROCESSOR,
        mean,
        std,
        _RESAMPLE.get(resample, f"filter {resample}") if isinstance(resample, int) else _text(resample),
        crop_pct,
        crop_mode,
        rounding="hugging-face",
    )


def _geometry(config: Mapping[str, Any]) -> tuple[str | None, float | None]:
    """Return the crop mode and share for a processor's sizes; an unsupported setting is returned as the mode."""
    if config.get("do_resize") is False:
        return "do_resize false", None
    if config.get("do_pad"):
        return "do_pad", None
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    size, crop = config.get("size"), config.get("crop_size")
    if isinstance(size, int):
        size = {"shortest_edge": size} if kind.startswith(_SHORTEST) else {"height": size, "width": size}
    if isinstance(crop, int):
        crop = {"height": crop, "width": crop}
    if not isinstance(size, dict):
        return None, None
    short, square = _side(size, "shortest_edge"), _side(size, "height", "width")
    resized = short or square
    if resized is None or (short is not None and "longest_edge" in size):
        return f"size {dict(size)}", None
    if not config.get("do_center_crop", crop is not None):
        return ("squash", 1.0) if square else (f"size {dict(size)} without a crop", None)
    side = _side(crop, "height", "width") if isinstance(crop, dict) else None
    if side is None:
        return f"crop_size {crop}", None
    return "squash" if square else "center", side / resized


def _side(size: Mapping[str, Any], *names: str) -> int | None:
    """Return the number of pixels that all `names` have in `size`."""
    found = {size.get(name) for name in names if not isinstance(size.get(name), (dict, list))}
    pixels = found.pop() if len(found) == 1 else None
    return pixels if isinstance(pixels, int) and pixels > 0 else None


def settings_of(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return `preprocessing` as settings that `stated_by_settings` reads back, with None for assumed fields."""
    values = {name: getattr(preprocessing, name) for name in OPTIONS}
    known = {name: None if name in preprocessing.assumed else value for name, value in values.items()}
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in known.items()}
    return {**lists, "rounding": preprocessing.rounding}


def _of_deit(settings: Mapping[str, Any], source: str) -> Stated:
    """Return the evaluation settings of DeiT's code, which are fixed except for the crop share of newer versions."""
    usual, size = Preprocessing(), settings["input_size"]
    if not isinstance(size, int) or ("data_set" in settings and size <= _UNSIZED):
        return Stated(source, usual.mean, usual.std)
    share = _number(settings.get("eval_crop_ratio")) or usual.crop_pct
    return Stated(source, usual.mean, usual.std, usual.interpolation, share, usual.crop_mode)


def _checked(name: str, source: Stated) -> Any:
    """Return the field `name` of `source`; raises the source's error if the value is not supported."""
    value = getattr(source, name)
    if name in _CHOICES:
        fits, expected = value in _CHOICES[name], f"one of {', '.join(_CHOICES[name])}"
    elif name == "crop_pct":
        fits, expected = 0.25 <= value <= 1, "0.25 to 1"
    else:
        least = -_LARGEST if name == "mean" else 1e-4
        fits = len(value) == 3 and all(least <= each <= _LARGEST for each in value)
        expected = f"three numbers from {least:g} to {_LARGEST:g} of channels in [0, 1]"
        if any(abs(each) > _LARGEST for each in value):
            expected += " (divide values for channels in [0, 255] by 255)"
    if not fits:
        numbers = value if isinstance(value, tuple) else (value,)
        got = brief(value if isinstance(value, str) else ", ".join(f"{number:g}" for number in numbers))
        raise source.error(f"{name} is {got} in {source.source}, expected {expected}: state it with {OPTIONS[name]}")
    return value


def _channels(value: Any) -> tuple[float, ...] | None:
    """Return a mean or deviation: three numbers, or one for all channels."""
    if not isinstance(value, (list, tuple)) or not value:
        return None
    numbers = tuple(number for number in map(_number, value) if number is not None)
    return numbers * 3 if len(numbers) == 1 else numbers


def _number(value: Any) -> float | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return math.inf if isinstance(value, int) and abs(value) > _HUGE else float(value)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
