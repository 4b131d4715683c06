"""One folder with a Triton model repository and Kubernetes manifests in it, written whole."""

from __future__ import annotations

import importlib.resources
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from string import Template

from evodeploy.errors import UsageError
from evodeploy.files import replacing
from evodeploy.repository.config import LABELS, Serving, config_text, has_labels
from evodeploy.repository.model import ServedModel

REPOSITORY = "models"
MANIFESTS = ("kserve", "kubernetes")
_RESOURCES = {"gpu": '{cpu: "2", memory: 4Gi, nvidia.com/gpu: "1"}', "cpu": '{cpu: "2", memory: 2Gi}'}


@dataclass(frozen=True)
class Packaged:
    """What was written: the model's folder in the repository, and the manifests."""

    folder: Path
    manifests: tuple[Path, ...]


def model_name(path: Path) -> str:
    """A name for the model in `path`, fit for Triton and Kubernetes: `Ckpt.fp16.onnx` is `ckpt-fp16`."""
    return re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:63]


def package(model: ServedModel, serving: Serving, output: Path, force: bool) -> Packaged:
    """Add the model to the Triton model repository `models` in the folder `output`, made where it is missing.

    `models/NAME/` gets `config.pbtxt`, `labels.txt` and `1/` with the model, `manifests/` the Kubernetes manifests
    `NAME.kserve.yaml` and `NAME.kubernetes.yaml`. Nothing is written outside `output`.
    Raises UsageError for a name that Kubernetes does not take, an output that exists and is not to be replaced by
    `force`, and what `config_text` refuses.
    """
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", serving.name):
        raise UsageError(
            f"the name is '{serving.name}', expected up to 63 of a-z, 0-9 and -, the first a letter: choose another by "
            "--name"
        )
    config = config_text(model, serving)
    output = output.absolute()
    folder = output / REPOSITORY / serving.name
    manifests = {kind: output / "manifests" / f"{serving.name}.{kind}.yaml" for kind in MANIFESTS}
    for path in (folder, *manifests.values()):
        if path.exists() and not force:
            raise UsageError(f"{path} already exists: pass --force to replace it, or choose another --name")
    try:
        for parent in (folder.parent, output / "manifests"):
            parent.mkdir(parents=True, exist_ok=True)
        _write_folder(model, config, folder)
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror or error}") from error
    for kind, path in manifests.items():
        with replacing(path) as draft:
            draft.write_text(_manifest(kind, model, serving), encoding="utf-8")
    return Packaged(folder, tuple(manifests.values()))


def _write_folder(model: ServedModel, config: str, folder: Path) -> None:
    draft = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        (draft / "1").mkdir(parents=True)
        shutil.copyfile(model.path, draft / "1" / model.file_name)
        (draft / "config.pbtxt").write_text(config, encoding="utf-8")
        if model.info and has_labels(model):
            names = [model.info.label(index) for index in range(model.info.num_classes)]
            (draft / LABELS).write_text("".join(f"{' '.join(name.split())}\n" for name in names), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _manifest(kind: str, model: ServedModel, serving: Serving) -> str:
    template = importlib.resources.files("evodeploy.repository").joinpath(f"{kind}.yaml").read_text(encoding="utf-8")
    return Template(template).substitute(
        name=serving.name,
        repository=REPOSITORY,
        made=f"The model: {model.made}.",
        release=" whose TensorRT is that version" if model.backend == "tensorrt" else "",
        resources=_RESOURCES[serving.device],
    )
