"""The number of attention heads of a vision transformer, which its tensor shapes do not show."""

from __future__ import annotations

import re

from evodeploy.errors import UsageError
from evodeploy.models.layout import Hints
from evodeploy.models.zoo import ZOO, EvoDeiTConfig, ModelConfig
from evodeploy.text import brief

_USUAL = 64  # channels of a head
_OF_WIDTH = {1152: 16, 1280: 16, 1408: 16, 1664: 16}  # the known sizes whose heads are not 64 wide
_OF_NAME = {"test_vit": 2}  # timm's, whose heads are not 64 wide either
# Widths in the files that DeiT, DINO, DINOv2 and MAE publish without a name in them.
_PUBLISHED = {192, 384, 768, 1024, *_OF_WIDTH}
_EVO_DEIT = {config.width for config in ZOO.values() if isinstance(config, EvoDeiTConfig)}
# The names that timm, DeiT, DINO, DINOv2, MAE and Evo-ViT give their networks. `vit_small` alone is ambiguous: it has 6
# heads in DINO and 12 in MoCo v3.
_KNOWN = re.compile(r"(evo_)?(vit|deit3?)_\w+_patch\d+\w*|(flexivit|dino|dinov2)_\w+|vit_(tiny|base|large|huge)")


def heads_of(width: int, hints: Hints) -> int:
    """Return the heads that `hints` state, else those implied by the name or `width`; raises UsageError without any."""
    implied = _OF_NAME.get(_name(hints)) or _OF_WIDTH.get(width) or (0 if width % _USUAL else width // _USUAL)
    if isinstance(hints.num_heads, tuple):
        raise UsageError(
            f"the checkpoint states num_heads {brief(str([*hints.num_heads]))}, expected one number for a vision "
            "transformer: only an Evo-LeViT has one for each stage"
        )
    heads = hints.num_heads or implied
    if heads == 0 or width % heads:
        raise UsageError(
            f"cannot infer the attention heads of width {width} from the tensors: expected 'num_heads', a "
            "divisor of the width, in the checkpoint's args, or a config.json next to model.safetensors"
        )
    return heads


def assumption(config: ModelConfig, hints: Hints, *, selects: bool) -> str | None:
    """Return a warning if the heads of `config` are a guess: no `hints`, known name or published size states them.

    `selects` states that its family is trained with selection: an Evo-DeiT of a published width may have any name.
    """
    if hints.num_heads is not None or config.name in ZOO or not isinstance(config, EvoDeiTConfig):
        return None
    name = _name(hints)
    published = (selects and config.width in _EVO_DEIT) or (not name and config.width in _PUBLISHED)
    if published or name in _OF_NAME or _KNOWN.fullmatch(name):
        return None
    return (
        f"nothing states the number of attention heads, and {config.heads} of {config.width // config.heads} channels "
        "each are assumed: with another number all answers are wrong; state it as 'num_heads' in the checkpoint's args"
    )


def _name(hints: Hints) -> str:
    """Return the architecture without timm's tag for the weights: vit_small_patch14_dinov2 for vit_small_….lvd142m."""
    return (hints.model or "").partition(".")[0]
