"""Networks that are already in memory: modules of timm, of transformers, and of this package.

They are rebuilt from their tensors, as from a file. Modules of other packages are then compared with the result, and
refused if they compute something else from the same tensors.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import torch
from torch import Tensor, nn

from evodeploy.errors import UsageError
from evodeploy.models.checkpoint_file import RawCheckpoint
from evodeploy.models.hub_config import hints_of
from evodeploy.models.layout import Hints, State
from evodeploy.models.layouts import to_published
from evodeploy.models.network import Network
from evodeploy.text import brief, reason

DIFFERENCE = 1e-6  # of float64 outputs, relative to the largest: rounding gives 1e-13, another activation >= 1e-4


def name_of(module: nn.Module) -> str:
    """Return the name of `module` in error messages."""
    return f"the {type(module).__name__}"


def raw_from(module: nn.Module) -> RawCheckpoint:
    """Return the tensors of `module`, copied to the CPU, and its metadata.

    Raises BadFileError if the metadata names something that the network does not compute, UsageError if a tensor is
    quantized, sparse, or on the meta device.
    """
    state = _copied(module.state_dict(), module)
    return RawCheckpoint(
        {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()},
        _hints(module),
        None,
        False,
    )


def raw_from_network(network: Network) -> RawCheckpoint:
    """Return the same for a network of this package, with the tensor names of published checkpoints."""
    config = network.config
    hints = Hints(
        model=config.name,
        num_heads=config.heads,
        selection=config.selection,
        keep_ratios=config.keep_ratios,
        **config.settings,
    )
    return RawCheckpoint(to_published(config, _copied(network.state_dict(), network)), hints, None, False)


def _copied(state: State, module: nn.Module) -> State:
    copies = {}
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor) or tensor.is_meta or tensor.is_quantized or tensor.layout != torch.strided:
            raise UsageError(
                f"{name_of(module)} has no plain tensor as {brief(name)}: expected a module that is neither quantized, "
                "nor sparse, nor on the meta device"
            )
        copies[name] = tensor.detach().cpu().clone()
    return copies


def check_same(module: nn.Module, network: Network, size: int) -> None:
    """Raise UsageError if `module` and `network`, which keeps every token, differ on images of `size` pixels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, size, size, generator=generator, dtype=torch.float64)
    ours = _computed(network, images)
    try:
        theirs = _computed(module, images)
    except Exception as error:  # the module may be any code
        raise UsageError(
            f"{name_of(module)} does not run on images of {size} x {size} pixels ({reason(error)}), so it cannot be "
            "compared with what is exported"
        ) from error
    if theirs.shape != ours.shape:
        raise UsageError(f"{name_of(module)} gives outputs {tuple(theirs.shape)}, expected {tuple(ours.shape)}")
    difference = float((ours - theirs).abs().max() / theirs.abs().max())
    if not difference <= DIFFERENCE:
        raise UsageError(
            f"{name_of(module)} cannot be converted exactly: its tensors are those of a plain vision transformer, but "
            f"its outputs differ by {difference:.1e} of their largest (another activation, epsilon or pooling)"
        )


def _computed(module: nn.Module, images: Tensor) -> Tensor:
    """Run a copy of `module` in float64 and return its logits or features (N, C)."""
    with torch.inference_mode():
        output: Any = copy.deepcopy(module).cpu().double().eval()(images)
    if hasattr(output, "logits"):
        output = output.logits
    elif hasattr(output, "last_hidden_state"):
        output = output.last_hidden_state
    found: Tensor = output[0] if isinstance(output, (tuple, list)) else output
    return found[:, 0] if found.ndim == 3 else found  # the class token


def _hints(module: nn.Module) -> Hints:
    described = getattr(module, "config", None)
    timm = getattr(module, "pretrained_cfg", None)
    config: dict[str, Any] = {}
    if isinstance(timm, dict):
        config = {"architecture": timm.get("architecture") or type(module).__name__, "pretrained_cfg": timm}
        config |= {"label_names": timm.get("label_names")} if timm.get("label_names") else {}
    elif described is not None and hasattr(described, "to_dict"):
        config = described.to_dict()
    plain = json.loads(json.dumps(config, default=str))  # the values that a file would hold
    hints = hints_of(plain, name_of(module))
    heads = hints.num_heads or next(
        (found for each in module.modules() if isinstance(found := getattr(each, "num_heads", None), int)), None
    )
    eps = hints.norm_eps or next((each.eps for each in module.modules() if isinstance(each, nn.LayerNorm)), None)
    return dataclasses.replace(hints, num_heads=heads, norm_eps=eps)
