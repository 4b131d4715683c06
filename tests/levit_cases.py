"""Small Evo-LeViTs, and the network once more: written from its description, image by image."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from cases import golden_tags, published, recipe

from evodeploy.models.evo_levit import EvoLeViT
from evodeploy.models.evo_levit_config import EvoLeViTConfig
from evodeploy.models.evo_levit_layout import LAYOUT

TAGS = golden_tags("EvoLeViT")


def small(**changes):
    """A configuration whose grids are 7, 4 and 2 tokens wide."""
    sizes = {"widths": (32, 48, 64), "heads": (2, 3, 2), "depths": (3, 2, 2), "key_width": 8, "image_size": 112}
    return EvoLeViTConfig("small", **(sizes | {"num_classes": 10} | changes))


def weights(config):
    """Published tensors, `blocks.*` only, in double precision: the batch norms' statistics are no identity."""
    shapes = LAYOUT.required(config)
    return {name: torch.from_numpy(np.array(recipe.weight(name, shape))).double() for name, shape in shapes.items()}


def network(config, state):
    model = EvoLeViT(config).double().eval()
    model.load_state_dict(LAYOUT.to_module(state))
    return model


def published_network(config):
    """The network of `config` with the recipe's weights under their published names, in single precision."""
    state = LAYOUT.canonical(published(config.name))
    return network(config, {name: state[name] for name in LAYOUT.required(config)}).float()


def random_images(config, batch=3):
    generator = torch.Generator().manual_seed(0)
    size = config.image_size
    return torch.randn(batch, 3, size, size, generator=generator, dtype=torch.float64)


def relative_error(got, expected):
    return float((got - expected).abs().max() / expected.abs().max())


class Answer(NamedTuple):
    logits: torch.Tensor
    selected: list[list[int]]
    scores: list[torch.Tensor]
    class_token: torch.Tensor


class Oracle:
    """Evo-LeViT for one image at a time; tokens are (1 + n, C) with the class token first, g is (n,)."""

    def __init__(self, config, state):
        self.config, self.state = config, state

    def __call__(self, image):
        config = self.config
        x = self.stem(image)
        g, selected, scores, listed, done, unit = None, [], [], 0, 0, 0
        places = torch.arange(config.tokens)
        side = config.image_size // 16
        for stage, depth in enumerate(config.depths):
            if stage > 0:
                x, g, places, side = self.subsample(f"blocks.{listed}", x, g, places, side)
                x = x + self.mlp(f"blocks.{listed + 1}.m", x)
                listed += 2
            dense = max(0, min(depth, 2 - done))
            names = [f"blocks.{listed + i}" for i in range(depth)]
            for name in names[:dense]:
                x, g, _ = self.run([name], x, g)
            rest = names[dense:]
            if rest:
                ratio = config.keep_ratios[unit]
                unit += 1
                for group in [rest] if config.selection == "stage" else [[name] for name in rest]:
                    keep = int(ratio * (side * side))
                    if keep < side * side:
                        scores.append(g)
                        x, g, kept = self.slow_fast(group, x, g, keep)
                        selected.append(sorted(places[kept].tolist()))
                    else:
                        x, g, _ = self.run(group, x, g)
            listed, done = listed + depth, done + depth
        mean = x[1:].mean(0)
        return Answer((self.head("head", mean) + self.head("head_dist", mean)) / 2, selected, scores, x[0])

    def slow_fast(self, group, x, g, keep):
        order = sorted(range(len(g)), key=lambda i: -float(g[i]))
        slow, fast = order[:keep], order[keep:]
        share = g[fast] / g[fast].sum()
        representative = (share[:, None] * x[1:][fast]).sum(0, keepdim=True)
        y = torch.cat([x[:1], x[1:][slow], representative])
        y, g_slow, gained = self.run(group, y, g[slow])
        patches, g = x[1:].clone(), g.clone()
        patches[slow], patches[fast], g[slow] = y[1:-1], patches[fast] + gained, g_slow
        return torch.cat([y[:1], patches]), g, slow

    def run(self, names, x, g):
        """All residuals of the blocks called `names`, and the sum of them at the last token."""
        gained = torch.zeros_like(x[-1])
        for name in names:
            residual, g = self.attention(f"{name}.m1.m", x, g)
            x, gained = x + residual, gained + residual[-1]
            residual = self.mlp(f"{name}.m2.m", x)
            x, gained = x + residual, gained + residual[-1]
        return x, g, gained

    def norm(self, name, x):
        mean, var, gain, bias = (
            self.state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * gain + bias

    def linear(self, name, x):
        return self.norm(f"{name}.bn", x @ self.state[f"{name}.c.weight"].T)

    def head(self, name, x):
        return self.state[f"{name}.l.weight"] @ self.norm(f"{name}.bn", x) + self.state[f"{name}.l.bias"]

    def mlp(self, name, x):
        return self.linear(f"{name}.2", F.hardswish(self.linear(f"{name}.0", x)))

    def stem(self, image):
        for i in (0, 2, 4, 6):
            image = F.conv2d(image[None], self.state[f"patch_embed.{i}.c.weight"], stride=2, padding=1)[0]
            image = self.norm(f"patch_embed.{i}.bn", image.permute(1, 2, 0)).permute(2, 0, 1)
            image = F.hardswish(image) if i < 6 else image
        return torch.cat([self.state["cls_token"][0], image.flatten(1).T]) + self.state["poss"][0]

    def blend(self, name, g, c):
        t = torch.sigmoid(self.state[f"{name}.learn_tradeoff"])
        return c if g is None else (1 - t) * g + t * c

    def attention(self, name, x, g):
        width = self.config.key_width
        heads, c, outputs = self.state[f"{name}.qkv.c.weight"].shape[0] // (4 * width), 0, []
        for part in self.linear(f"{name}.qkv", x).chunk(heads, dim=1):
            q, k, v = part[:, :width], part[:, width : 2 * width], part[:, 2 * width :]
            a = torch.softmax(q @ k.T / width**0.5, dim=1)
            outputs.append(a @ v)
            c = c + a[0, 1:] / heads
        g = self.blend(name, g, c if g is None else c[: len(g)])
        return self.linear(f"{name}.proj.1", F.hardswish(torch.cat(outputs, dim=1))), g

    def subsample(self, name, x, g, places, side):
        width = self.config.key_width
        x = x + self.state[f"{name}.poss"][0]
        taken = [r * side + c for r in range(0, side, 2) for c in range(0, side, 2)]
        heads, c, outputs = x.shape[1] // width, 0, []
        queries = self.linear(f"{name}.q.1", x[[0, *(1 + i for i in taken)]])
        for q, kv in zip(queries.chunk(heads, dim=1), self.linear(f"{name}.kv", x).chunk(heads, dim=1), strict=True):
            a = torch.softmax(q @ kv[:, :width].T / width**0.5, dim=1)
            outputs.append(a @ kv[:, width:])
            c = c + a[0, 1:] / heads
        x = self.linear(f"{name}.proj.1", F.hardswish(torch.cat(outputs, dim=1)))
        blended = self.blend(name, g[taken], c[taken])
        return x, blended * g.sum() / blended.sum(), places[taken], (side + 1) // 2
