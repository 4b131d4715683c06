"""Token selection by global class attention, as pure functions (Evo-ViT, section 3.2).

Shapes: B images, N patch tokens, K of them selected, C channels, h heads, d channels a head. A sequence carries the
class token in row 0, so that patch token i is row i + 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.library.custom_op("evodeploy::top_k", mutates_args=())
def _top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    values, indices = torch.sort(scores, dim=-1, descending=True, stable=True)
    return values[:, :k].contiguous(), indices[:, :k].contiguous()


@_top_k.register_fake
def _(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    return scores.new_empty(scores.shape[0], k), scores.new_empty(scores.shape[0], k, dtype=torch.int64)


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of `scores` (B, N): values and int64 positions (B, k), largest first.

    Of equal scores the one at the lower position wins, as ONNX TopK defines and torch.topk does not; exports become
    one TopK node. Not differentiable.
    """
    values, indices = _top_k(scores.detach(), k)
    return values, indices


def class_attention(query: Tensor, keys: Tensor, scale: float | None = None) -> Tensor:
    """Attention of the class token over the patch tokens, summed over heads: (B, N).

    `query` (B, h, 1, d) is the class token's, `keys` (B, h, N + 1, d) are everyone's; the softmax runs over all
    N + 1 of them, at `scale`, or d^-1/2.
    """
    logits = (query * (scale or query.shape[-1] ** -0.5)) @ keys.transpose(-2, -1)
    summed: Tensor = logits.softmax(dim=-1).sum(dim=(1, 2))
    return summed[:, 1:]


def blend(scores: Tensor, attention: Tensor, tradeoff: float | Tensor) -> Tensor:
    """Global class attention g ← (1 - t)·g + t·c."""
    if isinstance(tradeoff, float) and tradeoff == 1.0:
        return attention
    return (1 - tradeoff) * scores + tradeoff * attention


def split_tokens(sequence: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """The slow path of `sequence` (B, N + 1, C): the class token and the patch tokens at `positions` (B, K).

    Returns the (B, K + 1, C) slow tokens and the (B, K + 1) rows that they came from.
    """
    rows = F.pad(positions + 1, (1, 0))
    return sequence.gather(1, rows.unsqueeze(-1).expand(-1, -1, sequence.shape[-1])), rows


def merge_tokens(sequence: Tensor, slow: Tensor, rows: Tensor) -> Tensor:
    """`sequence` (B, N + 1, C) with the slow tokens (B, K + 1, C) put back at their `rows`; the others keep theirs."""
    return sequence.scatter(1, rows.unsqueeze(-1).expand(-1, -1, slow.shape[-1]), slow)


def representative_token(sequence: Tensor, scores: Tensor, positions: Tensor) -> Tensor:
    """The fast tokens of `sequence` (B, N + 1, C), those not at `positions` (B, K), as one token: (B, 1, C).

    It is their average, weighted by their `scores` (B, N).
    """
    nothing = scores.gather(1, positions) * 0  # zeros (B, K) that no operator needs the batch size for
    fast = scores.scatter(1, positions, nothing)
    weights = fast / fast.sum(dim=1, keepdim=True)
    return F.pad(weights, (1, 0)).unsqueeze(1) @ sequence
