"""`evodeploy export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evodeploy.cli.console import Force, Json, Stopwatch, blocks, note, ratios, result, result_json, size_of, working
from evodeploy.errors import UsageError, VerificationError, needs
from evodeploy.files import check_output, replacing
from evodeploy.specs import Selection


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A .pth, .pt or .safetensors file.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: beside the checkpoint.")] = None,
    model: Annotated[
        str | None, typer.Option(help="The published model it is; told from its tensors otherwise.")
    ] = None,
    batch: Annotated[str, typer.Option(help="'dynamic', or one fixed batch size.")] = "dynamic",
    opset: Annotated[int | None, typer.Option(help="ONNX operator set, 18 to 23.")] = None,
    keep_ratio: Annotated[
        str | None, typer.Option(help="Share of tokens kept: one for all stages, or 0.7,0.5. 1.0 is the dense twin.")
    ] = None,
    selection: Annotated[Selection | None, typer.Option(help="Select tokens per stage or per layer.")] = None,
    stages: Annotated[
        str | None, typer.Option(help="Blocks before which selecting stages begin, counted from 0: 4,8 for example.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Pixels a side, where not as trained: positions are interpolated.", min=1)
    ] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Add outputs with the positions that were kept.")] = False,
    ema: Annotated[bool, typer.Option("--ema", help="Take the checkpoint's averaged weights.")] = False,
    verify: Annotated[bool, typer.Option(help="Compare with PyTorch after export.")] = True,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Turn a checkpoint into one self-contained ONNX file, compared with PyTorch before it is kept."""
    clock = Stopwatch()
    path = output or checkpoint.with_suffix(".onnx")
    fixed = _fixed_batch(batch)
    asked, starts = ratios(keep_ratio), blocks(stages)
    with needs("export"):
        from evodeploy.export.to_onnx import DEFAULT_OPSET, onnx_from_model
        from evodeploy.models.checkpoint import load_checkpoint
        from evodeploy.onnx_files import write_onnx
    check_output(path, force, checkpoint)
    loaded = load_checkpoint(
        checkpoint, model=model, ema=ema, keep_ratios=asked, selection=selection, stages=starts, image_size=image_size
    )
    config = loaded.config
    kept = ", ".join(f"{ratio:g}" for ratio in config.keep_ratios)
    told = f"{config.num_classes} classes" if config.num_classes else "no classifier, so features are exported"
    note(f"{checkpoint}: {config.name}, {config.image_size} px, {told}, keep ratio {kept}")
    if loaded.trained_at:
        note(
            f"warning: position embeddings trained at {loaded.trained_at} px are interpolated for "
            f"{config.image_size} px: what that costs in accuracy is to be measured, no check of the export shows it"
        )
    with working("exporting"):
        proto = onnx_from_model(loaded, opset=opset or DEFAULT_OPSET, batch=fixed, tokens=tokens)
    checks = []
    with replacing(path) as draft:
        write_onnx(proto, draft)
        if verify:
            with needs("cpu"):
                from evodeploy.export.verify import verify_export
            note("comparing ONNX Runtime with PyTorch")
            for check in verify_export(loaded, draft):
                checks.append(check)
                note(f"  {'ok  ' if check.passed else 'FAIL'} batch {check.batch}: {check.output}, {check.detail}")
            failed = [check for check in checks if not check.passed]
            if failed:
                first = failed[0]
                raise VerificationError(
                    f"the ONNX does not compute what PyTorch does: {len(failed)} of {len(checks)} checks failed, first "
                    f"{first.output} at batch {first.batch} ({first.detail}); nothing was written"
                )
    if as_json:
        result_json(
            {
                "onnx": str(path),
                "bytes": path.stat().st_size,
                "seconds": clock.seconds,
                "model": config.name,
                "keep_ratios": list(config.keep_ratios),
                "nodes": len(proto.graph.node),
                "verified": verify,
                "checks": [{"output": c.output, "batch": c.batch, "error": c.error, "limit": c.limit} for c in checks],
            }
        )
        return
    told = f"all {len(checks)} checks passed" if verify else "not verified"
    result(f"{path}  {size_of(path)}  {clock.seconds:.1f} s  {told}")
    result(f"next: evodeploy build-engine {path} --fp16")
    result(f"      evodeploy bench {checkpoint} {path}")


def _fixed_batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    if not text.isdigit() or text == "0":
        raise UsageError(f"--batch is '{text}', expected 'dynamic' or a batch size such as 8")
    return int(text)
