"""The table of published Evo-LeViT variants, and the configuration of models of any size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evodeploy.errors import UsageError
from evodeploy.models.segment import Segment, check_keep
from evodeploy.specs import Selection

ALWAYS_DENSE = 2  # the network's first blocks, which run on all tokens in every variant
STEM_STRIDE = 16  # four convolutions of stride 2 make one token of 16×16 pixels


def selecting_stages(depths: tuple[int, ...]) -> tuple[int, ...]:
    """Return the selecting stages: those with blocks after the first ones, which always run on all tokens."""
    return tuple(stage for stage in range(len(depths)) if sum(depths[: stage + 1]) > ALWAYS_DENSE)


@dataclass(frozen=True)
class EvoLeViTConfig:
    """An Evo-LeViT: stages of blocks on increasingly coarse grids, whose blocks run on selected tokens.

    `widths`, `heads` and `depths` have one entry per stage. `key_width` is the width of one head's query and key, and
    half the width of its value. Blocks are numbered through all stages; the subsampling between stages is not a block.
    `keep_ratios` has one entry per selecting stage: the share of its grid's tokens that take the slow path.
    """

    name: str
    widths: tuple[int, ...]
    heads: tuple[int, ...]
    depths: tuple[int, ...]
    key_width: int
    image_size: int = 224
    num_classes: int = 1000
    selection: Selection = "stage"
    keep_ratios: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        if not len(self.widths) == len(self.heads) == len(self.depths) or 0 in self.depths:
            raise UsageError(f"{self.name} needs a width, a number of heads and at least one block for every stage")
        if self.image_size % STEM_STRIDE:
            raise UsageError(f"{self.name} takes image sizes that are multiples of 16, not {self.image_size}")
        if any(width % 8 for width in self.widths[:1]) or any(width % self.key_width for width in self.widths[:-1]):
            raise UsageError(
                f"the widths {self.widths} of {self.name} must be multiples of its key width {self.key_width}, "
                "and the first a multiple of 8"
            )
        if len(self.keep_ratios) != len(self.stages):
            raise UsageError(
                f"{len(self.keep_ratios)} keep ratios given, but {self.name} has {len(self.stages)} selecting stages"
            )
        for ratio, stage in zip(self.keep_ratios, selecting_stages(self.depths), strict=True):
            if not 0 < ratio <= 1:
                raise UsageError(f"keep ratio {ratio:g} is outside (0, 1]")
            if self.kept(ratio, stage) < 1:
                raise UsageError(
                    f"keep ratio {ratio:g} keeps none of the {self.grids[stage] ** 2} tokens that "
                    f"{self.name} has in stage {stage}"
                )

    @property
    def patch_size(self) -> int:
        """Pixels along one side of the patch that a token of the first grid represents."""
        return STEM_STRIDE

    @property
    def settings(self) -> dict[str, Any]:
        """The family's settings other than sizes, keep ratios and selection mode: there are none."""
        return {}

    @property
    def output_width(self) -> int:
        """Columns of the output, one for each class."""
        return self.num_classes

    @property
    def grid(self) -> int:
        """Tokens along one side of the first grid."""
        return self.image_size // STEM_STRIDE

    @property
    def grids(self) -> tuple[int, ...]:
        """Tokens along one side of each stage's grid, which has every second row and column of the previous one."""
        grids = [self.grid]
        for _ in self.depths[1:]:
            grids.append((grids[-1] + 1) // 2)
        return tuple(grids)

    @property
    def tokens(self) -> int:
        """Patch tokens N of the first grid."""
        return self.grid**2

    def kept(self, ratio: float, stage: int = 0) -> int:
        """Return K = int(ratio · N), the number of tokens on the slow path, of the N in the grid of `stage`."""
        return int(ratio * self.grids[stage] ** 2)

    def origins(self, stage: int) -> tuple[int, ...]:
        """Return the position in the first grid of each token in the grid of `stage`."""
        stride, side = 2**stage, range(self.grids[stage])
        return tuple(stride * (row * self.grid + column) for row in side for column in side)

    @property
    def stages(self) -> tuple[int, ...]:
        """The block at which each selecting stage begins selecting; a stage with dense blocks alone does not count."""
        return tuple(max(sum(self.depths[:stage]), ALWAYS_DENSE) for stage in selecting_stages(self.depths))

    @property
    def stage_tokens(self) -> tuple[int, ...]:
        """Patch tokens N that each selecting stage selects from: all tokens of its grid."""
        return tuple(self.kept(1.0, stage) for stage in selecting_stages(self.depths))

    def segments_of(self, keep: Sequence[int] | None = None) -> tuple[tuple[Segment, ...], ...]:
        """Return each stage's blocks in runs that share one set of slow tokens, in order.

        Each selecting stage keeps its number of `keep` tokens, and selects even if these are all tokens. By default the
        configured keep ratios apply. Raises InputError unless `keep` has a number from 1 to N for each selecting stage.
        """
        stages = selecting_stages(self.depths)
        if keep is None:
            kept = [self.kept(ratio, stage) for ratio, stage in zip(self.keep_ratios, stages, strict=True)]
            chosen = {stage: (k, k < self.kept(1.0, stage)) for stage, k in zip(stages, kept, strict=True)}
        else:
            check_keep(keep, self.stage_tokens)
            chosen = {stage: (k, True) for stage, k in zip(stages, keep, strict=True)}
        return tuple(self._segments(stage, *chosen.get(stage, (0, False))) for stage in range(len(self.depths)))

    def _segments(self, stage: int, kept: int, selects: bool) -> tuple[Segment, ...]:
        start = sum(self.depths[:stage])
        blocks = tuple(range(start, start + self.depths[stage]))
        dense = tuple(block for block in blocks if block < ALWAYS_DENSE)
        rest = blocks[len(dense) :]
        groups = [rest] if self.selection == "stage" else [(block,) for block in rest]
        runs = (Segment(dense, self.kept(1.0, stage), False), *(Segment(group, kept, selects) for group in groups))
        return tuple(run for run in runs if run.blocks)

    def selecting_of(self, keep: Sequence[int] | None = None) -> tuple[int, ...]:
        """Return the blocks before which tokens are selected. `keep` is the same as in `segments_of`."""
        return _selecting(self.segments_of(keep))

    def scored_for(self, segments: Sequence[Sequence[Segment]]) -> frozenset[int]:
        """Return the blocks whose class attention can still influence a selection, or a representative token.

        These are all blocks before the last selection: t is learnt and below 1, so it never replaces all of the past.
        """
        return frozenset(range(max(_selecting(segments), default=0)))

    def tokens_at(self, block: int) -> int:
        """Return the number of patch tokens at `block`, slow and fast: all tokens of its stage's grid."""
        stage = next(i for i in range(len(self.depths)) if block < sum(self.depths[: i + 1]))
        return self.kept(1.0, stage)

    @property
    def tokens_per_block(self) -> tuple[int, ...]:
        """Patch tokens that each block computes on, without the representative token."""
        return tuple(run.keep for runs in self.segments_of() for run in runs for _ in run.blocks)


def _selecting(segments: Sequence[Sequence[Segment]]) -> tuple[int, ...]:
    return tuple(run.blocks[0] for runs in segments for run in runs if run.selects)


def _variants() -> dict[str, EvoLeViTConfig]:
    sizes = {
        "128S": ((128, 256, 384), (4, 6, 8), (2, 3, 4), 16),
        "128": ((128, 256, 384), (4, 8, 12), (4, 4, 4), 16),
        "192": ((192, 288, 384), (3, 5, 6), (4, 4, 4), 32),
        "256": ((256, 384, 512), (4, 6, 8), (4, 4, 4), 32),
        "384": ((384, 512, 768), (6, 9, 12), (4, 4, 4), 32),
    }
    images = {224: "", 384: "_384"}
    table = (
        EvoLeViTConfig(
            f"EvoLeViT_{size}{suffix}",
            *shape,
            image_size=pixels,
            keep_ratios=(0.5, 0.5) if size == "128S" else (0.5, 0.5, 0.5),
        )
        for size, shape in sizes.items()
        for pixels, suffix in images.items()
    )
    return {config.name: config for config in table}


EVO_LEVIT = _variants()
