"""The network as it is deployed: images in, named outputs out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from evodeploy.models.loaded import LoadedModel
from evodeploy.models.selection import top_k, widened
from evodeploy.specs import TensorSpec


class Deployed(nn.Module):
    """Wraps a network so that it takes images as its `info` says, and its outputs are a flat tuple.

    First `logits` (B, classes), or `features` (B, C) of a network without a classifier; where `info.top_k` is K,
    `probabilities` float32 (B, K), largest first, and `classes` int64 (B, K) instead. With `tokens` follows what each
    selection did: `selected_0`, … int64 (B, K), the positions kept in the image's grid of patches, then `scores_0`, …
    float32 (B, N), what they were chosen by, over the N tokens of the grid at that selection: global class attention,
    or where fast tokens are merged how unlike the anchors each is. There, `owner_0`, … int64 (B, N) and
    `owner_margin_0`, … float32 (B, N) say which kept token each went to, and by how much it was more like it than any
    other: see `Evolved`.
    Of an elastic artefact every stage selects.
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
        """Images, as `inputs` says, to the tensors that `outputs` names; an elastic artefact keeps `keep` tokens."""
        pictures, dtype = self._normalised(images), self.network.dtype
        evolved = self.network.evolve(pictures if pictures.dtype == dtype else pictures.to(dtype), keep)
        answer = self.network.classify(evolved)
        answers = top_k(widened(answer).softmax(dim=1), self.top_k) if self.top_k else (answer,)
        tokens = (*evolved.selected, *evolved.scores, *evolved.owners, *evolved.owner_margins) if self.tokens else ()
        return (*answers, *tokens)

    def _normalised(self, images: Tensor) -> Tensor:
        """The same float32 operations in the same order as `preprocess.normalise`, so that the pixels are the same."""
        if self.input_format == "float32":
            return images
        if self.input_format == "uint8-nchw":
            return (images.float() / 255 - self.mean[:, None, None]) / self.std[:, None, None]
        # Engines take bytes into a cast only, so the axes are moved after it.
        return ((images.float() / 255 - self.mean) / self.std).permute(0, 3, 1, 2)
