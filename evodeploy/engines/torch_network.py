"""Loaded networks as engines."""

from __future__ import annotations

import copy
import dataclasses

from evodeploy.engines.torch_engine import TorchEngine, torch_dtype
from evodeploy.engines.torch_modes import TORCH_MODES
from evodeploy.models.deployed import Deployed
from evodeploy.models.loaded import LoadedModel
from evodeploy.specs import EngineOptions


def torch_engine(
    model: LoadedModel, *, tokens: bool = False, name: str = "torch", options: EngineOptions | None = None
) -> TorchEngine:
    """Return `model` as the PyTorch engine `name`, with the same outputs as its export.

    A reduced precision applies to a copy of the network. The computation of its token selections stays in float32.
    """
    dtype = torch_dtype(options.precision if options else None)
    if dtype is not None and not TORCH_MODES[name].autocast:
        model = dataclasses.replace(model, module=copy.deepcopy(model.module).to(dtype))
    deployed = Deployed(model, tokens)
    return TorchEngine(deployed, deployed.inputs, deployed.outputs, model.info, name=name, options=options)
