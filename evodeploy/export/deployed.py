"""The network as it is deployed: images in, named outputs out."""

from __future__ import annotations

from torch import Tensor, nn

from evodeploy.models.checkpoint import LoadedModel
from evodeploy.specs import TensorSpec


class Deployed(nn.Module):
    """Wraps a network so that its outputs are a flat tuple: logits, then what each selection kept where asked for.

    A network without a classifier gives `features` (B, C) in place of `logits`.
    """

    def __init__(self, model: LoadedModel, tokens: bool = False) -> None:
        super().__init__()
        self.network = model.module
        self.tokens = tokens
        config = model.config
        self.inputs = (TensorSpec("images", "float32", (None, 3, config.image_size, config.image_size)),)
        kept = [config.tokens_per_block[block] for block in config.selecting] if tokens else []
        self.outputs = (
            TensorSpec(model.info.output, "float32", (None, config.output_width)),
            *(TensorSpec(f"selected_{i}", "int64", (None, keep)) for i, keep in enumerate(kept)),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W), normalised, to logits (B, classes) and int64 positions (B, K) of each selection."""
        evolved = self.network.evolve(images)
        return (self.network.classify(evolved), *(evolved.selected if self.tokens else ()))
