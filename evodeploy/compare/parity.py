"""Checking an engine against the network in float64, output by output, on the same images.

Float32 rounds differently in every engine, and a network may amplify that on some images. So an engine may differ by a
multiple of PyTorch's own float32 error on an image, and by `FP32_TOLERANCE` on any image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evodeploy.compare.relative import relative_errors, relative_margins
from evodeploy.engines.base import Array, Engine
from evodeploy.engines.torch_engine import TorchEngine

FP32_TOLERANCE = 1e-4  # the limit of a well conditioned image
MULTIPLE = 8  # of PyTorch's own error; measured errors of ONNX Runtime and OpenVINO were below 4 times that
OWNERS_TOLERANCE = 1e-5  # of a correlation that decides where a token is merged; the float32 error is about 3e-7
LOOSEST = 1e-2  # an image with a wider limit is not compared, because it could hide a fault
_CHUNK = 16  # images in memory at once, in float64


@dataclass(frozen=True)
class Expected:
    """The outputs of a network for N images in float64, and the errors of float32.

    `losses` (N,) of each floating-point output are PyTorch's errors in float32, the largest of several runs. Errors are
    relative to the largest magnitude of the image's output. Those of `scores_i` are relative to the score itself, or to
    the last one that is kept if that is larger: softmax turns an absolute error of its logits into a relative one, and
    a selection compares scores near the last one kept.
    """

    outputs: dict[str, Array]
    losses: dict[str, NDArray[np.float64]]
    spare_ranks: int = 0  # extra last `classes` and `probabilities`, which an engine's last ones may tie with

    def given(self, output: str) -> Array:
        """Return `output` without the spare ranks, as an engine returns it."""
        value = self.outputs[output]
        spare = self.spare_ranks if output in ("classes", "probabilities") else 0
        return value[:, : value.shape[1] - spare]

    def __getitem__(self, images: Any) -> Expected:
        """Return the same for some images; `images` is a slice or an array of indices."""
        return Expected(
            {name: value[images] for name, value in self.outputs.items()},
            {name: value[images] for name, value in self.losses.items()},
            self.spare_ranks,
        )

    def limits(self, output: str) -> NDArray[np.float64]:
        """Return the largest error of `output` that passes for each image: (N,)."""
        limits: NDArray[np.float64] = np.maximum(FP32_TOLERANCE, MULTIPLE * self.losses[output])
        return limits

    def comparable(self, output: str) -> NDArray[np.bool_]:
        """Return the images, as a mask (N,), on which `output` can be compared.

        Their limits are tight enough, and all selections and owners that lead to the output have clear margins: if two
        scores nearly tie, rounding alone may decide.
        """
        kind, _, index = output.rpartition("_")
        before = int(index) if kind in ("selected", "scores", "owner", "owner_margin") else self.selections
        fit = np.ones(len(next(iter(self.outputs.values()))), bool)
        for i in range(before):
            fit &= self._clearly_selected(i) & self._clearly_owned(i)
        if kind in ("selected", "owner", "owner_margin"):
            fit &= self._clearly_selected(before)
        if kind == "owner":
            fit &= self._clearly_owned(before)
        return fit & (self.limits(output) <= LOOSEST) if output in self.losses else fit

    def _clearly_selected(self, selection: int) -> NDArray[np.bool_]:
        return self.margins(selection) >= self.limits(f"scores_{selection}")

    def _clearly_owned(self, selection: int) -> NDArray[np.bool_]:
        name = f"owner_margin_{selection}"
        if name not in self.outputs:
            return np.ones(1, bool)
        smallest: NDArray[np.float64] = self.outputs[name].min(axis=1)
        return smallest >= np.maximum(OWNERS_TOLERANCE, MULTIPLE * self.losses[name])

    def looseness(self) -> NDArray[np.float64]:
        """Return the largest limit of any output for each image: (N,), infinite if an output cannot be compared."""
        largest = np.max([self.limits(name) for name in self.losses], axis=0)
        fit = np.all([self.comparable(name) for name in self.outputs], axis=0)
        looseness: NDArray[np.float64] = np.where(fit, largest, np.inf)
        return looseness

    @property
    def selections(self) -> int:
        """The number of selections that the network makes."""
        return sum(name.startswith("selected_") for name in self.outputs)

    def margins(self, selection: int) -> NDArray[np.float64]:
        """Return the `relative_margins` of a selection: (N,)."""
        return relative_margins(self.outputs[f"scores_{selection}"], self.outputs[f"selected_{selection}"].shape[1])


@dataclass(frozen=True)
class Check:
    """One output compared at one batch size.

    `error` and `limit` are those of the image whose error is largest relative to its limit, see `Expected`; for
    selections and classes, `error` is the share of images that differ.
    """

    output: str
    batch: int
    error: float
    limit: float
    detail: str

    @property
    def passed(self) -> bool:
        """Whether the error is within the limit; NaN and infinity never pass."""
        return bool(np.isfinite(self.error)) and self.error <= self.limit


def expect(reference: TorchEngine, images: Array, spare_ranks: int = 0, keep: Sequence[int] | None = None) -> Expected:
    """Run `reference` on `images` in float64, and in float32 on them and on their nearest neighbours in float32.

    The neighbours differ by one unit in the last place, so that the float32 error does not depend on one lucky run.
    Images of bytes have no neighbours.
    """
    chunks = [images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK)]
    return dataclasses.replace(joined(_expect(reference, chunk, keep) for chunk in chunks), spare_ranks=spare_ranks)


def _expect(reference: TorchEngine, images: Array, keep: Sequence[int] | None) -> Expected:
    exact = reference.run_in_float64(images, keep)
    runs = [reference.run(each, keep) for each in _nearest(images)]
    floats = [name for name, value in exact.items() if value.dtype.kind == "f"]
    return Expected(exact, {name: np.max([_errors(name, exact, run) for run in runs], axis=0) for name in floats})


def _nearest(images: Array) -> Iterator[Array]:
    yield images
    if images.dtype.kind == "f":
        for way in (np.inf, -np.inf):
            yield np.nextafter(images, images.dtype.type(way))


def joined(parts: Iterable[Expected]) -> Expected:
    """Join the images of all `parts`, in order."""
    parts = list(parts)
    return Expected(
        {name: np.concatenate([part.outputs[name] for part in parts]) for name in parts[0].outputs},
        {name: np.concatenate([part.losses[name] for part in parts]) for name in parts[0].losses},
        parts[0].spare_ranks,
    )


def compare(
    expected: Expected, candidate: Engine, images: Array, keep: Sequence[int] | None = None, *, common: bool = False
) -> Iterator[Check]:
    """Run `candidate` on `images`, for which the network's outputs are `expected`, and compare each of its outputs.

    With `common`, outputs that the network lacks are skipped: a dense network makes no selections, an elastic one does.
    """
    got = candidate.run(images, keep)
    for name, value in got.items():
        if common and name not in expected.outputs:
            continue
        ours = expected.given(name)
        if ours.shape != value.shape:
            yield Check(name, len(ours), np.inf, 0.0, f"shape {value.shape}, expected {ours.shape}")
        elif not expected.comparable(name).any():
            detail = "no image can be compared: in each a selection nearly ties, or float32 loses too much"
            yield Check(name, len(ours), np.inf, 0.0, detail)
        elif name == "classes":
            yield _classes(expected, value)
        elif value.dtype.kind == "i" and name.startswith("owner_"):
            yield _owners(name, expected, value)
        else:
            yield _selections(name, expected, value) if name.startswith("selected_") else _numbers(name, expected, got)


def _errors(name: str, expected: dict[str, Array], got: dict[str, Array]) -> NDArray[np.float64]:
    """Return the largest error of output `name` in each image: (N,), relative as described in `Expected`."""
    ours = expected[name]
    magnitudes = np.abs(ours)
    if name.startswith("scores_"):
        kept = expected[name.replace("scores", "selected")].shape[1]
        scale = np.maximum(magnitudes, -np.sort(-magnitudes, axis=1)[:, kept - 1 : kept])
    else:
        scale = magnitudes.max(axis=1, keepdims=True)
    return relative_errors(ours, got[name], scale)


def _numbers(name: str, expected: Expected, got: dict[str, Array]) -> Check:
    errors = _errors(name, {**expected.outputs, name: expected.given(name)}, got)
    limits, fit = expected.limits(name), expected.comparable(name)
    finite = np.isfinite(errors)
    excess = np.where(finite, -1.0, np.inf)  # a value that is not finite is wrong on any image
    worst = int(np.divide(errors, limits, out=excess, where=fit & finite).argmax())
    error, limit = float(errors[worst]), float(limits[worst])
    relative = "of each score" if name.startswith("scores_") else "of the largest magnitude"
    detail = f"largest difference {error:.1e} {relative}, limit {limit:.0e}"
    if limit > FP32_TOLERANCE:
        detail += f" because float32 itself loses {expected.losses[name][worst]:.1e} (badly conditioned)"
    if not error <= limit:
        detail += f"; worst at image {worst}"
    return Check(name, len(errors), error, limit, detail + _left_out(fit))


def _classes(expected: Expected, got: Array) -> Check:
    """Check the ranked classes with clear ranks: if two probabilities nearly tie, either class may come first."""
    ours, probabilities = expected.given("classes"), expected.outputs["probabilities"]
    limits = expected.limits("probabilities") * probabilities.max(axis=1)
    tied = np.abs(np.diff(probabilities, axis=1)) <= limits[:, None]
    # A rank is clear if it ties with neither neighbour; nothing comes before the first or after the last class.
    edge = np.zeros((len(ours), 1), bool)
    clear = ~(np.concatenate([tied, edge], axis=1) | np.concatenate([edge, tied], axis=1))[:, : ours.shape[1]]
    fit = expected.comparable("probabilities")
    differ = ((ours != got) & clear).any(axis=1) & fit
    detail = "the same classes" if not differ.any() else f"other classes in {int(differ.sum())} images"
    return Check("classes", len(ours), float(differ.mean()), 0.0, detail + _left_out(fit))


def _selections(name: str, expected: Expected, got: Array) -> Check:
    ours, fit = expected.outputs[name], expected.comparable(name)
    differ = (np.sort(ours, axis=1) != np.sort(got, axis=1)).any(axis=1) & fit
    detail = "the same tokens kept"
    if differ.any():
        image = int(differ.argmax())
        lost, won = set(ours[image]) - set(got[image]), set(got[image]) - set(ours[image])
        detail = f"other tokens kept in {int(differ.sum())} images; image {image}: {len(won)} others for {len(lost)}"
    return Check(name, len(ours), float(differ.mean()), 0.0, detail + _left_out(fit))


def _owners(name: str, expected: Expected, got: Array) -> Check:
    ours, fit = expected.outputs[name], expected.comparable(name)
    differ = (ours != got).any(axis=1) & fit
    detail = "the same tokens merged"
    if differ.any():
        image = int(differ.argmax())
        moved = int((ours[image] != got[image]).sum())
        detail = f"tokens merged otherwise in {int(differ.sum())} images; image {image}: {moved} with another owner"
    return Check(name, len(ours), float(differ.mean()), 0.0, detail + _left_out(fit))


def _left_out(fit: NDArray[np.bool_]) -> str:
    return "" if fit.all() else f"; {int((~fit).sum())} of {len(fit)} images cannot be compared"
