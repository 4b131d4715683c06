"""The network as it is deployed: images in, named outputs out."""

from __future__ import annotations

from torch import Tensor, nn

from evodeploy.engines.torch_engine import TorchEngine
from evodeploy.models.checkpoint import LoadedModel
from evodeploy.specs import EngineOptions, TensorSpec


def torch_engine(
    model: LoadedModel,
    *,
    tokens: bool = False,
    compiled: bool = False,
    options: EngineOptions | None = None,
) -> TorchEngine:
    """`model` in PyTorch, with the outputs that its export has."""
    deployed = Deployed(model, tokens)
    return TorchEngine(deployed, deployed.inputs, deployed.outputs, model.info, compiled=compiled, options=options)


class Deployed(nn.Module):
    """Wraps a network so that its outputs are a flat tuple: logits, then with `tokens` what each selection did.

    A network without a classifier gives `features` (B, C) in place of `logits`. What a selection did is `selected_0`, …
    int64 (B, K), the positions kept in the image's grid of patches, then `scores_0`, … float32 (B, N), the global class
    attention they were chosen by, over the N tokens of the grid at that selection.
    """

    def __init__(self, model: LoadedModel, tokens: bool = False) -> None:
        super().__init__()
        self.network = model.module
        self.tokens = tokens
        config = model.config
        self.inputs = (TensorSpec("images", "float32", (None, 3, config.image_size, config.image_size)),)
        selecting = config.selecting if tokens else ()
        self.outputs = (
            TensorSpec(model.info.output, "float32", (None, config.output_width)),
            *(
                TensorSpec(f"selected_{i}", "int64", (None, config.tokens_per_block[block]))
                for i, block in enumerate(selecting)
            ),
            *(
                TensorSpec(f"scores_{i}", "float32", (None, config.tokens_at(block)))
                for i, block in enumerate(selecting)
            ),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W), normalised, to the tensors that `outputs` names."""
        evolved = self.network.evolve(images)
        told = (*evolved.selected, *evolved.scores) if self.tokens else ()
        return (self.network.classify(evolved), *told)
