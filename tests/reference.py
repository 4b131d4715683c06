"""Evo-DeiT written a second time, plainly and in float64, from published tensor names: what the network is held to."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def evo_deit(state, images, *, heads, stages, keep_ratios, layerwise=False):
    """Return (logits, [sorted kept positions of each selection]) as float64 NumPy arrays."""
    state = {name: torch.as_tensor(np.asarray(t)).double() for name, t in state.items()}
    x = F.conv2d(
        torch.as_tensor(images).double(),
        state["patch_embed.proj.weight"],
        state["patch_embed.proj.bias"],
        stride=state["patch_embed.proj.weight"].shape[-1],
    )
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], 1) + state["pos_embed"]
    depth = sum(name.startswith("qks.") and name.endswith(".weight") for name in state)
    tokens = x.shape[1] - 1
    scores = torch.zeros(len(x), tokens, dtype=torch.float64)
    selections = []
    chosen = None
    for i in range(depth):
        stage = sum(i >= start for start in stages) - 1
        keep = tokens if stage < 0 else int(keep_ratios[stage] * tokens)
        if stage < 0 or keep == tokens:
            chosen = torch.arange(tokens).expand(len(x), -1)
        elif layerwise or i in stages:
            order = torch.argsort(-scores, dim=1, stable=True)
            chosen = order[:, :keep].sort(dim=1).values
            selections.append(chosen.numpy())
        t = 1.0 if i < stages[0] else 0.5
        new_x, new_scores = x.clone(), scores.clone()
        for b in range(len(x)):
            rows = torch.cat([torch.zeros(1, dtype=torch.int64), chosen[b] + 1])
            y, attention = _block(state, i, x[b, rows], heads)
            new_x[b, rows] = y
            new_scores[b, chosen[b]] = (1 - t) * scores[b, chosen[b]] + t * attention
        x, scores = new_x, new_scores
    pooled = x[:, 1:].mean(1)
    normed = F.layer_norm(pooled, pooled.shape[-1:], state["norm.weight"], state["norm.bias"], 1e-6)
    return (normed @ state["head.weight"].T + state["head.bias"]).numpy(), selections


def _block(state, i, x: Tensor, heads: int):
    rows, width = x.shape
    normed = F.layer_norm(x, (width,), state[f"norms.{i}.weight"], state[f"norms.{i}.bias"], 1e-6)
    qk = (normed @ state[f"qks.{i}.qk.weight"].T + state[f"qks.{i}.qk.bias"]).view(rows, 2, heads, width // heads)
    v = (normed @ state[f"vs.{i}.v.weight"].T + state[f"vs.{i}.v.bias"]).view(rows, heads, width // heads)
    matrix = torch.einsum("rhd,shd->hrs", qk[:, 0], qk[:, 1]) * (width // heads) ** -0.5
    matrix = matrix.softmax(-1)
    mixed = torch.einsum("hrs,shd->rhd", matrix, v).reshape(rows, width)
    x = x + mixed @ state[f"projs.{i}.weight"].T + state[f"projs.{i}.bias"]
    name = f"blocks.{i}"
    normed = F.layer_norm(x, (width,), state[f"{name}.norm2.weight"], state[f"{name}.norm2.bias"], 1e-6)
    hidden = F.gelu(normed @ state[f"{name}.mlp.fc1.weight"].T + state[f"{name}.mlp.fc1.bias"])
    return x + hidden @ state[f"{name}.mlp.fc2.weight"].T + state[f"{name}.mlp.fc2.bias"], matrix[:, 0, 1:].sum(0)
