"""The table of published models, and the configuration of Evo-DeiT models of any size."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evodeploy.errors import UsageError
from evodeploy.models.evo_levit_config import EVO_LEVIT, EvoLeViTConfig
from evodeploy.models.segment import Segment, check_keep
from evodeploy.specs import FastPath, Pooling, Selection


@dataclass(frozen=True)
class EvoDeiTConfig:
    """An Evo-DeiT: a plain vision transformer whose later blocks run on selected tokens.

    `stages` holds the block at which each selecting stage begins; a stage lasts until the next one, or the end.
    `keep_ratios` has one entry per stage: the share of patch tokens that take the slow path there.
    `pooling` is the input of the last norm and the head: the mean of the patch tokens, as in the published models, or
    the class token, as in most other vision transformers. With `num_classes` 0 there is no head, and the output is the
    normalised pooled vector. `norm_eps` is the epsilon of every LayerNorm. With `fast_path` "rest", tokens that are not
    selected skip the blocks, as in the published models; with "merge", each is merged into the selected token most like
    it.
    """

    name: str
    width: int
    heads: int
    depth: int = 12
    image_size: int = 224
    patch_size: int = 16
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    selection: Selection = "stage"
    stages: tuple[int, ...] = (4, 8)
    keep_ratios: tuple[float, ...] = (0.5, 0.5)
    pooling: Pooling = "mean"
    norm_eps: float = 1e-6
    fast_path: FastPath = "rest"

    def __post_init__(self) -> None:
        if self.width % self.heads or self.image_size < 1 or self.image_size % self.patch_size:
            raise UsageError(
                f"{self.name}: width {self.width} must be a multiple of the {self.heads} heads, and image size "
                f"{self.image_size} a positive multiple of the patch size {self.patch_size}"
            )
        if sorted({0, *self.stages, self.depth}) != [0, *self.stages, self.depth]:
            raise UsageError(f"{self.name}: stages {self.stages} must begin, in order, after block 0 of {self.depth}")
        if len(self.keep_ratios) != len(self.stages):
            raise UsageError(
                f"{len(self.keep_ratios)} keep ratios given, but {self.name} has {len(self.stages)} selecting stages"
            )
        for ratio in self.keep_ratios:
            if not 0 < ratio <= 1 or self.kept(ratio) < 1:
                raise UsageError(
                    f"keep ratio {ratio:g} of {self.tokens} tokens keeps none or too many: expected one in (0, 1] that "
                    "keeps at least one token"
                )

    @property
    def settings(self) -> dict[str, Any]:
        """The family's settings, by name, other than sizes, keep ratios and selection mode."""
        return {"stages": self.stages, "pooling": self.pooling, "norm_eps": self.norm_eps, "fast_path": self.fast_path}

    @property
    def output_width(self) -> int:
        """Columns of the output: one for each class, or the width if there is no head."""
        return self.num_classes or self.width

    @property
    def grid(self) -> int:
        """Patches along one side of the image."""
        return self.image_size // self.patch_size

    @property
    def tokens(self) -> int:
        """Patch tokens N."""
        return self.grid**2

    def kept(self, ratio: float) -> int:
        """Return K = int(ratio · N), the number of tokens on the slow path."""
        return int(ratio * self.tokens)

    def tokens_at(self, block: int) -> int:
        """Return the number of patch tokens at `block`, slow and fast."""
        return self.tokens

    @property
    def stage_tokens(self) -> tuple[int, ...]:
        """Patch tokens N that each selecting stage selects from."""
        return (self.tokens,) * len(self.stages)

    def segments_of(self, keep: Sequence[int] | None = None) -> tuple[Segment, ...]:
        """Return the blocks in runs that share one set of slow tokens, in order.

        Each stage keeps its number of `keep` tokens, and selects even if these are all tokens. By default the
        configured keep ratios apply. Raises InputError unless `keep` has a number from 1 to N for each stage.
        """
        if keep is None:
            stages = [(self.kept(ratio), self.kept(ratio) < self.tokens) for ratio in self.keep_ratios]
        else:
            check_keep(keep, self.stage_tokens)
            stages = [(kept, True) for kept in keep]
        ends = (*self.stages, self.depth)
        runs = [Segment(tuple(range(ends[0])), self.tokens, False)]
        for start, end, (kept, selects) in zip(self.stages, ends[1:], stages, strict=True):
            blocks = tuple(range(start, end))
            groups = [blocks] if self.selection == "stage" else [(block,) for block in blocks]
            runs += [Segment(group, kept, selects) for group in groups]
        return tuple(runs)

    def tradeoff(self, block: int) -> float:
        """Return t, the share of the global class attention that the block's own replaces (paper, section 3.2)."""
        return 1.0 if block < self.stages[0] else 0.5

    def selecting_of(self, keep: Sequence[int] | None = None) -> tuple[int, ...]:
        """Return the blocks before which tokens are selected. `keep` is the same as in `segments_of`."""
        return tuple(run.blocks[0] for run in self.segments_of(keep) if run.selects)

    def scored_for(self, segments: Sequence[Segment]) -> frozenset[int]:
        """Return the blocks whose class attention can still influence a selection of `segments`.

        There are none if tokens are merged, because these are chosen by likeness. Selecting before block j reads g
        after block j-1. g depends on blocks back to the last one with t = 1, which replaces all of the past. With the
        published settings these are blocks 3 to 7.
        """
        if self.fast_path == "merge":
            return frozenset()
        needed: set[int] = set()
        for block in (run.blocks[0] for run in segments if run.selects):
            for earlier in reversed(range(block)):
                needed.add(earlier)
                if self.tradeoff(earlier) == 1.0:
                    break
        return frozenset(needed)

    @property
    def tokens_per_block(self) -> tuple[int, ...]:
        """Patch tokens that each block computes on."""
        return tuple(run.keep for run in self.segments_of() for _ in run.blocks)


ModelConfig = EvoDeiTConfig | EvoLeViTConfig


def _zoo() -> dict[str, ModelConfig]:
    sizes = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}
    images = {"tiny": (224,), "small": (224, 384), "base": (224, 384)}
    table = (
        EvoDeiTConfig(f"evo_deit_{size}_patch16_{pixels}", width, heads, image_size=pixels)
        for size, (width, heads) in sizes.items()
        for pixels in images[size]
    )
    return {config.name: config for config in table} | EVO_LEVIT


ZOO = _zoo()


def named(name: str) -> ModelConfig:
    """Return the published model called `name`. Raises UsageError, with the nearest name, if there is none."""
    if name in ZOO:
        return ZOO[name]
    near = difflib.get_close_matches(name, ZOO, n=1)
    hint = f"did you mean {near[0]}?" if near else "`evodeploy models` lists them"
    raise UsageError(f"no model is called '{name}': {hint}")


def default_stages(depth: int) -> tuple[int, ...]:
    """Return the blocks at which the stages of a network with `depth` blocks begin by default: at its thirds."""
    return tuple(sorted({depth // 3, 2 * depth // 3} - {0}))


def with_selection(
    config: ModelConfig,
    keep_ratios: tuple[float, ...] | None = None,
    selection: Selection | None = None,
    stages: tuple[int, ...] | None = None,
    fast_path: FastPath | None = None,
) -> ModelConfig:
    """Return `config` with other keep ratios (one for all stages, or one each), selection mode, stages, or fast path.

    If the stages change and all old ones have the same keep ratio, the new ones get it too.
    """
    changes: dict[str, Any] = {} if selection is None else {"selection": selection}
    if stages is not None:
        if "stages" not in config.settings:
            raise UsageError(f"the stages of {config.name} are part of its network: leave out --stages")
        changes["stages"] = stages
        if keep_ratios is None and len(set(config.keep_ratios)) == 1:
            keep_ratios = config.keep_ratios[:1]
    if "fast_path" in config.settings and fast_path is not None:
        changes["fast_path"] = fast_path
    elif fast_path == "merge":
        raise UsageError(f"{config.name} sums up all dropped tokens in one, so it merges none: leave out --fast-path")
    if keep_ratios is not None:
        count = len(config.stages if stages is None else stages)
        changes["keep_ratios"] = keep_ratios * count if len(keep_ratios) == 1 else keep_ratios
    return dataclasses.replace(config, **changes)


def dense_twin(config: ModelConfig) -> ModelConfig:
    """Return the same network and weights with keep ratio 1.0: every token is computed in full in every block."""
    return with_selection(config, (1.0,))
