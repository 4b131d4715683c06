"""Descriptions of the pipeline's files, as plain values for display and for JSON."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path
from typing import Any

from evodeploy.engines.deploy_file import read_deploy_file
from evodeploy.engines.tensorrt.sidecar import PlanRecord, read_sidecar
from evodeploy.errors import needs
from evodeploy.files import sha256
from evodeploy.inspection.operations import gflop_per_image
from evodeploy.inspection.program import read_program
from evodeploy.kinds import is_deploy_file, kind_of
from evodeploy.onnx_files import info_of, opset_of, precision_of, read_onnx
from evodeploy.specs import ModelInfo, Preprocessing


def describe(path: Path) -> dict[str, Any]:
    """Describe a checkpoint, an ONNX file, an engine or a deploy file; raises the errors of reading it."""
    if is_deploy_file(path):
        return {"file": str(path), "kind": "deploy file", **_deploy_file(path)}
    kind = kind_of(path)
    facts = {"checkpoint": _checkpoint, "onnx": _onnx, "engine": _engine}[kind](path)
    return {"file": str(path), "kind": kind, "bytes": path.stat().st_size, **facts}


def _deploy_file(path: Path) -> dict[str, Any]:
    """Return the settings that `path` states for its artefact, and whether the artefact is still the same file."""
    stated = dataclasses.asdict(read_deploy_file(path))
    artefact = path.parent / stated["artefact"]
    del stated["schema"]
    return {"bytes": path.stat().st_size, **stated, "intact": sha256(artefact) == stated["sha256"]}


def _checkpoint(path: Path) -> dict[str, Any]:
    with needs("export"):
        from evodeploy.models.checkpoint import load_checkpoint
        from evodeploy.models.checkpoint_file import read_checkpoint
    raw = read_checkpoint(path)
    model = load_checkpoint(path)
    heads = model.config.heads
    return {
        **_model(model.info),
        "heads": list(heads) if isinstance(heads, tuple) else heads,
        "trained_to_select": model.trained_to_select,
        "parameters": sum(parameter.numel() for parameter in model.module.parameters()),
        "tensors": len(raw.state),
        "epoch": raw.epoch,
        "ema": raw.has_ema,
    }


def _onnx(path: Path) -> dict[str, Any]:
    model = read_onnx(path)
    info = info_of(model)
    operators = collections.Counter(node.op_type for node in model.graph.node)
    return {
        **_model(info),
        "precision": precision_of(model),
        "opset": opset_of(model) or None,
        "inputs": [value.name for value in model.graph.input],
        "outputs": [value.name for value in model.graph.output],
        "nodes": len(model.graph.node),
        "operators": dict(operators.most_common()),
        "gflop_per_image": gflop_per_image(model, info) if info else None,
        "versions": info.versions if info else {},
    }


def _engine(path: Path) -> dict[str, Any]:
    record = read_sidecar(path)
    return {
        **_model(record.model),
        "runtime": f"{record.runtime} {record.runtime_version}",
        "targets": list(record.targets) or ["the GPU it was built on"],
        "precision": record.precision,
        **({"rest": record.rest} if record.rest else {}),
        "batch": [dataclasses.asdict(profile) for profile in record.profiles],
        "inputs": [str(spec) for spec in record.inputs],
        "outputs": [str(spec) for spec in record.outputs],
        "weights_bytes": record.weights_bytes,
        "activation_bytes": record.activation_bytes,
        **_program(path, record),
        "kept_fp32": len(record.kept_fp32),
        "source": record.source,
        "intact": sha256(path) == record.plan_sha256,
    }


def _program(path: Path, record: PlanRecord) -> dict[str, Any]:
    """Return the kernels that a GPU would run, if the plan shows them."""
    program = read_program(path, len(record.profiles))
    if program is None:
        return {}
    fused = f"{program.attentions} of {record.attentions}" if record.attentions else str(program.attentions)
    return {"kernels": {"total": program.total, **program.kernels}, "attention_fused": fused}


def _preprocessing(how: Preprocessing) -> dict[str, Any]:
    """Return the preprocessing of images, and which of its fields no source stated."""
    facts = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(how).items()}
    return {"assumed": facts.pop("assumed"), "preprocessing": facts}


def _model(info: ModelInfo | None) -> dict[str, Any]:
    if info is None:
        return {"model": None}
    return {
        "model": info.model,
        "image_size": info.image_size,
        "classes": info.num_classes,
        "selection": info.selection,
        "keep_ratios": list(info.keep_ratios),
        "elastic": [dataclasses.asdict(stage) for stage in info.elastic],
        "stages": list(info.stages),
        "fast_path": info.fast_path,
        "pooling": info.pooling,
        "input": info.input_format,
        "output": info.output,
        "top_k": info.top_k,
        **_preprocessing(info.preprocessing),
        "made_from": info.source,
    }
