"""`evodeploy package`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from evodeploy.cli import values
from evodeploy.cli.console import Force, Json, result, result_json
from evodeploy.cli.values import whole

if TYPE_CHECKING:
    from evodeploy.repository.config import Accelerator, Device


def package(
    artefact: Annotated[Path, typer.Argument(help="An ONNX file or a TensorRT engine.")],
    triton: Annotated[Path, typer.Option(help="The folder for models/ and manifests/; other models in it stay.")],
    name: Annotated[str | None, typer.Option(help="The model's name; the file's by default.")] = None,
    device: Annotated[
        Literal["cpu", "gpu"] | None, typer.Option(help="Where an ONNX file is run, cpu by default; engines on gpu.")
    ] = None,
    instances: Annotated[int, whole("--instances", 1, 1024, "Copies of the model on each device.")] = 1,
    max_batch: Annotated[
        int | None,
        whole("--max-batch", 1, values.BATCH, "Largest batch; the engine's, or 32 of an ONNX file, by default."),
    ] = None,
    max_queue_delay_us: Annotated[
        int,
        whole("--max-queue-delay-us", 0, 10**8, "Microseconds a request may wait for others to fill a batch."),
    ] = 500,
    accelerator: Annotated[
        Literal["tensorrt", "openvino"] | None,
        typer.Option(help="What ONNX Runtime hands an ONNX file to: tensorrt with --device gpu, openvino with cpu."),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a model repository for Triton Inference Server, and Kubernetes manifests, into one folder."""
    from evodeploy.repository.config import Serving
    from evodeploy.repository.model import served_model
    from evodeploy.repository.package import model_name
    from evodeploy.repository.package import package as write

    model = served_model(artefact, max_batch)
    place: Device = device or ("gpu" if model.backend == "tensorrt" else "cpu")
    runner: Accelerator | None = accelerator
    serving = Serving(model_name(artefact) if name is None else name, place, instances, max_queue_delay_us, runner)
    written = write(model, serving, triton, force)
    if as_json:
        result_json(
            {
                "folder": str(written.folder),
                "manifests": [str(path) for path in written.manifests],
                "backend": model.backend,
                "max_batch": model.batches.max if model.batches else 0,
            }
        )
        return
    taken = f"up to {model.batches.max}" if model.batches else f"of {model.input.shape[0]} only"
    result(f"{written.folder}  {model.backend} on {place}, batches {taken}")
    for path in written.manifests:
        result(str(path))
    result(f"next: tritonserver --model-repository={written.folder.parent}")
