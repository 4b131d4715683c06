"""The network as it is deployed: images in, named outputs out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from evodeploy.models.loaded import LoadedModel
from evodeploy.models.selection import top_k, widened
from evodeploy.specs import TensorSpec


class Deployed(nn.Module):
    """A network that takes images in the input format of its `info` and returns a flat tuple of outputs.

    The first output is `logits` (B, classes), or `features` (B, C) if the network has no classifier. If `info.top_k` is
    K, it is replaced by `probabilities` float32 (B, K), largest first, and `classes` int64 (B, K). With `tokens`, the
    results of each selection follow. `selected_0`, … int64 (B, K) are the positions kept, in the image's grid of
    patches. `scores_0`, … float32 (B, N) are the scores of the N tokens of the grid at that selection: global class
    attention, or how unlike the anchors a token is if fast tokens are merged. If they are, `owner_0`, … int64 (B, N)
    and `owner_margin_0`, … float32 (B, N) give the kept token that each token was merged into, and how much more like
    it the token was than like any other: see `Evolved`. In an elastic artefact every stage selects.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: LoadedModel, tokens: bool = False) -> None:
        super().__init__()
        self.network = model.module
        self.tokens = tokens
        self.input_format, self.top_k = model.info.input_format, model.info.top_k
        preprocessing = model.info.preprocessing
        self.register_buffer("mean", torch.tensor(preprocessing.mean), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std), persistent=False)
        config = model.config
        self.inputs = model.info.inputs
        elastic = bool(model.info.elastic)
        selecting = config.selecting_of(config.stage_tokens if elastic else None) if tokens else ()
        self.outputs = (
            TensorSpec(model.info.output, "float32", (None, self.top_k or config.output_width)),
            *([TensorSpec("classes", "int64", (None, self.top_k))] if self.top_k else []),
            *(
                TensorSpec(f"selected_{i}", "int64", (None, None if elastic else config.tokens_per_block[block]))
                for i, block in enumerate(selecting)
            ),
            *(
                TensorSpec(f"scores_{i}", "float32", (None, config.tokens_at(block)))
                for i, block in enumerate(selecting)
            ),
            *(
                TensorSpec(f"{name}_{i}", dtype, (None, config.tokens_at(block)))
                for name, dtype in (("owner", "int64"), ("owner_margin", "float32"))
                for i, block in enumerate(selecting if model.info.fast_path == "merge" else ())
            ),
        )

    def forward(self, images: Tensor, keep: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        """Map images, as described by `inputs`, to the tensors of `outputs`; an elastic model keeps `keep` tokens."""
        pictures, dtype = self._normalised(images), self.network.dtype
        evolved = self.network.evolve(pictures if pictures.dtype == dtype else pictures.to(dtype), keep)
        answer = self.network.classify(evolved)
        answers = top_k(widened(answer).softmax(dim=1), self.top_k) if self.top_k else (answer,)
        tokens = (*evolved.selected, *evolved.scores, *evolved.owners, *evolved.owner_margins) if self.tokens else ()
        return (*answers, *tokens)

    def _normalised(self, images: Tensor) -> Tensor:
        """Apply the float32 operations of `preprocess.normalise` in the same order, so that the results are equal."""
        if self.input_format == "float32":
            return images
        if self.input_format == "uint8-nchw":
            return (images.float() / 255 - self.mean[:, None, None]) / self.std[:, None, None]
        # Engines accept uint8 in a cast only, so the axes are moved after it.
        return ((images.float() / 255 - self.mean) / self.std).permute(0, 3, 1, 2)
