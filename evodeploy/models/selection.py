"""Pure functions for token selection by global class attention (Evo-ViT, section 3.2).

Shapes: B images, N patch tokens, K of them selected, C channels, h heads, d channels per head. A sequence holds the
class token in row 0, so patch token i is in row i + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Share = float | Tensor


@torch.library.custom_op("evodeploy::top_k", mutates_args=())
def _top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    values, indices = torch.sort(scores, dim=-1, descending=True, stable=True)
    return values[:, :k].contiguous(), indices[:, :k].contiguous()


@_top_k.register_fake
def _(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    return scores.new_empty(scores.shape[0], k), scores.new_empty(scores.shape[0], k, dtype=torch.int64)


def _keep_positions(ctx: Any, inputs: tuple[Tensor, int], output: tuple[Tensor, Tensor]) -> None:
    ctx.width = inputs[0].shape[1]
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


def _spread(ctx: Any, values: Tensor, _: Tensor) -> tuple[Tensor, None]:
    (indices,) = ctx.saved_tensors
    return values.new_zeros(values.shape[0], ctx.width).scatter(1, indices, values), None


torch.library.register_autograd("evodeploy::top_k", _spread, setup_context=_keep_positions)


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest of `scores` (B, N): values and int64 positions (B, k), largest first.

    Among equal scores the lower position comes first: ONNX TopK defines this, torch.topk does not. It is exported as
    one TopK node. The values are differentiable.
    """
    values, indices = _top_k(scores, k)
    return values, indices


def class_logits(query: Tensor, keys: Tensor, scale: float) -> Tensor:
    """Return the attention of the class token to all tokens, before the softmax: (B, h, N + 1).

    `query` (B, h, 1, d) is that of the class token, `keys` (B, h, N + 1, d) those of all tokens. This is a matrix
    product written as a sum: engines compute the sum in the kernel that writes the keys, while a product of one row
    would need a separate kernel, and its padding another.
    """
    logits = (query * keys).sum(dim=-1)
    return logits if scale == 1.0 else logits * scale


def widened(x: Tensor) -> Tensor:
    """Return `x` in float32 if its precision is reduced: rounding could make scores tie, and drop other tokens."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def class_attention(logits: Tensor) -> Tensor:
    """Return the class token's attention to patch tokens (B, N), summed over heads, from `logits` (B, h, N + 1)."""
    return widened(logits).softmax(dim=-1).sum(dim=1)[:, 1:]


def blend(scores: Tensor, attention: Tensor, tradeoff: float | Tensor) -> Tensor:
    """Return the new global class attention g ← (1 - t)·g + t·c."""
    return (1 - tradeoff) * scores + tradeoff * attention


def global_attention(
    scores: Tensor | None, logits: Sequence[Tensor], tradeoffs: Sequence[Share], head_share: float = 1.0
) -> Tensor:
    """Blend the class attention of consecutive blocks on the same tokens, with one softmax and one weighted sum.

    Returns g (B, N). c is the softmax of a block's class `logits` (B, h, ≥ N + 1), summed over heads, times
    `head_share`. `scores` is the previous g; if it is None, g begins as the first c.
    """
    past, *shares = shares_of(tradeoffs, begun=scores is not None)
    attention = widened(torch.cat([*logits], dim=1) if len(logits) > 1 else logits[0]).softmax(dim=-1)
    attention = attention[:, :, 1:] if scores is None else attention[:, :, 1 : scores.shape[1] + 1]
    heads = logits[0].shape[1]
    weights = [_repeated(share * head_share, heads, attention) for share in shares]
    gained = (attention * torch.cat(weights).unsqueeze(-1)).sum(dim=1)
    return gained if scores is None or _is_number(past, 0.0) else past * scores + gained


def shares_of(tradeoffs: Sequence[Share], begun: bool) -> list[Share]:
    """Return the shares of g, then of each c, after blending with all `tradeoffs`; unless `begun`, g is the first c."""
    shares: list[Share] = []
    left: Share = 1.0
    for tradeoff in reversed(tradeoffs if begun else tradeoffs[1:]):
        shares.append(left * tradeoff)
        left = left * (1.0 - tradeoff)
    if not begun:
        shares, left = [*shares, left], 0.0
    return [left, *reversed(shares)]


def _repeated(share: Share, heads: int, like: Tensor) -> Tensor:
    return share.expand(heads) if isinstance(share, Tensor) else like.new_full((heads,), share)


def _is_number(share: Share, number: float) -> bool:
    return not isinstance(share, Tensor) and share == number


def take_tokens(sequence: Tensor, positions: Tensor) -> Tensor:
    """Return the patch tokens of `sequence` (B, N + 1, C) at `positions` (B, K): (B, K, C)."""
    return take_rows(sequence, positions + 1)


def split_tokens(sequence: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slow path of `sequence` (B, N + 1, C): the class token and the patch tokens at `positions` (B, K).

    Returns the slow tokens (B, K + 1, C) and the rows (B, K + 1) that they came from.
    """
    rows = F.pad(positions + 1, (1, 0))
    return take_rows(sequence, rows), rows


def merge_tokens(sequence: Tensor, slow: Tensor, rows: Tensor) -> Tensor:
    """Return `sequence` (B, N + 1, C) with the `slow` tokens (B, K + 1, C) written to `rows`, the others unchanged."""
    return sequence.scatter(1, rows.unsqueeze(-1).expand(-1, -1, slow.shape[-1]), slow)


def representative_token(fast: Tensor, scores: Tensor) -> Tensor:
    """Return the average of the `fast` tokens (B, F, C), weighted by their `scores` (B, F), as one token: (B, 1, C)."""
    weights = scores / scores.sum(dim=1, keepdim=True)
    average = (weights.unsqueeze(-1) * fast).sum(dim=1, keepdim=True)
    return average if average.dtype == fast.dtype else average.to(fast.dtype)


def take_rows(sequence: Tensor, rows: Tensor) -> Tensor:
    """Return the `rows` (B, K) of `sequence` (B, N, C): (B, K, C)."""
    return sequence.gather(1, rows.unsqueeze(-1).expand(-1, -1, sequence.shape[-1]))
