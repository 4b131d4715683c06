"""The networks of benchmarks/accuracy.py: one DINOv2, made faster in several ways."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
from numpy.typing import NDArray
from token_merging import TokenMerging, equal_work, gflops, onnx_from

from evodeploy.engines.base import Engine
from evodeploy.engines.torch_engine import TorchEngine
from evodeploy.engines.torch_network import torch_engine
from evodeploy.evaluation.statistics import wilson
from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.models.checkpoint import load_checkpoint
from evodeploy.models.cost import cost_of
from evodeploy.models.deployed import Deployed
from evodeploy.models.evo_deit import EvoDeiT
from evodeploy.models.loaded import LoadedModel
from evodeploy.models.zoo import EvoDeiTConfig
from evodeploy.specs import EngineOptions, FastPath

STAGES = (4, 8)
SIDE = 224  # pixels of all networks except the dense one on fewer
PROGRAMMED = 0.5  # the keep ratio whose networks' GPU programs are counted
METHODS: dict[FastPath, str] = {"rest": "Evo, tokens rest", "merge": "Evo, tokens merge"}


@dataclass(frozen=True)
class Entrant:
    """One network: `method` and `setting` for the tables, `gflops` of one image of `side` pixels.

    `network` names the computation, without the weights: entrants with the same name are equally fast. `keep` is the
    keep ratio with the same number of multiply-adds, None for the dense network and for those of equal time.
    `programmed` says whether its GPU program is counted. `depth` is its number of attentions. `torch` and `onnx` make
    the network.
    """

    method: str
    setting: str
    network: str
    gflops: float
    keep: float | None
    side: int
    depth: int
    programmed: bool
    torch: Callable[[EngineOptions], Engine]
    onnx: Callable[[], onnx.ModelProto]
    distilled: bool = False

    @property
    def name(self) -> str:
        """Method and setting."""
        return f"{self.method}, {self.setting}" if self.setting else self.method


def entrants_of(
    checkpoint: Path,
    distilled: Iterable[Path],
    keeps: Sequence[float],
    rates: Iterable[int],
    merging: ModuleType,
) -> list[Entrant]:
    """Return the dense network, then all methods at the work of each of `keeps`, then ToMe at the other `rates` (r)."""
    dense = loaded(checkpoint, 1.0)
    assert isinstance(dense.config, EvoDeiTConfig)
    found = [_ours(dense, "dense", "", "dense", None)]
    ours: dict[float, float] = {}
    for fast_path, method in METHODS.items():
        for keep in keeps:
            model = loaded(checkpoint, keep, fast_path)
            ours[keep] = cost_of(model.config).gflops
            found.append(_ours(model, method, f"keep {keep:g}", f"{fast_path} {keep:g}", keep))
    for path in distilled:
        for keep in keeps:
            model = loaded(path, keep)
            fast_path = model.info.fast_path
            entrant = _ours(model, f"{METHODS[fast_path]}, distilled", f"keep {keep:g}", f"{fast_path} {keep:g}", keep)
            found.append(dataclasses.replace(entrant, distilled=True))
    equal = {equal_work(dense.config, ours[keep]): keep for keep in keeps}
    found += [_token_merging(dense, r, merging, equal.get(r)) for r in sorted({*equal, *rates})]
    for keep in keeps:
        side = equal_side(dense.config, ours[keep])
        model = loaded(checkpoint, 1.0, image_size=side)
        found.append(_ours(model, "dense, fewer pixels", f"{side} px", f"{side} px", keep))
    return found


def loaded(path: Path, keep: float, fast_path: FastPath | None = None, image_size: int | None = None) -> LoadedModel:
    """Load the network of a checkpoint."""
    return load_checkpoint(path, keep_ratios=(keep,), stages=STAGES, fast_path=fast_path, image_size=image_size or SIDE)


def equal_side(config: EvoDeiTConfig, target: float) -> int:
    """Return the image size in pixels whose dense multiply-adds are nearest to `target`, in 1e9."""
    sides = range(config.patch_size, config.image_size + 1, config.patch_size)
    keep_all = (1.0,) * len(config.stages)
    twins = [dataclasses.replace(config, image_size=side, keep_ratios=keep_all) for side in sides]
    return min(twins, key=lambda twin: abs(cost_of(twin).gflops - target)).image_size


def labelled(entrant: Entrant, answers: NDArray[Any], labels: NDArray[Any], dense: NDArray[Any]) -> dict[str, Any]:
    """Return a row of the document: the answers of `entrant`, with the 95 % interval of its accuracy (Wilson)."""
    right = int((answers == labels).sum())
    low, high = wilson(right, len(labels))
    return {
        "method": entrant.method,
        "setting": entrant.setting,
        "network": entrant.network,
        "gflops": round(entrant.gflops, 3),
        "keep": entrant.keep,
        "accuracy": right / len(labels),
        "low": low,
        "high": high,
        "as_dense": float((answers == dense).mean()),
        "right": "".join("01"[int(hit)] for hit in answers == labels),
        "speed": {},
    }


def _ours(model: LoadedModel, method: str, setting: str, network: str, keep: float | None) -> Entrant:
    config = model.config
    return Entrant(
        method, setting, network, cost_of(config).gflops, keep, config.image_size, len(config.tokens_per_block),
        method in ("dense", *METHODS.values()) and keep in (None, PROGRAMMED),
        lambda options: torch_engine(model, options=options), lambda: onnx_from_model(model),
    )  # fmt: skip


def _token_merging(dense: LoadedModel, r: int, merging: ModuleType, keep: float | None) -> Entrant:
    network, deployed, side = dense.module, Deployed(dense), dense.config.image_size
    assert isinstance(network, EvoDeiT)
    module = TokenMerging(network, r, merging)
    return Entrant(
        "ToMe", f"r {r}", f"tome {r}", gflops(network.config, r), keep, side, network.config.depth, keep == PROGRAMMED,
        lambda options: TorchEngine(module, deployed.inputs, deployed.outputs, options=options),
        lambda: onnx_from(module, side, deployed.outputs[0].name),
    )  # fmt: skip
