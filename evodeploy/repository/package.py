"""The folder of a package: a model repository and manifests, written as a draft and then moved into place.

DIR/models/NAME/    config.pbtxt, labels.txt, 1/ with the model, warmup/ with what an elastic one is warmed up with;
package.json lists the files of this package, which are all that `--force` removes
DIR/manifests/      NAME.kserve.yaml and NAME.kubernetes.yaml
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evodeploy.errors import BadFileError, UsageError
from evodeploy.files import made_folder
from evodeploy.locks import draft_of, owned
from evodeploy.repository.config import LABELS, Serving, config_text, has_labels
from evodeploy.repository.manifests import MODELS, manifests
from evodeploy.repository.model import ServedModel
from evodeploy.repository.swap import drafted, restore
from evodeploy.schema import SchemaError, document, matching, read_json_file, sequence, whole
from evodeploy.specs import KEEP

SCHEMA = 1
MANIFESTS = "manifests"
WARMUP = "warmup"
RECORD = "package.json"


@dataclass(frozen=True)
class Packaged:
    """What was written: the model's folder in the repository, and the manifests."""

    folder: Path
    manifests: tuple[Path, ...]


def model_name(path: Path) -> str:
    """A name for the model in `path`, fit for Triton and Kubernetes: `Ckpt.fp16.onnx` is `ckpt-fp16`."""
    return re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:63].strip("-")


def package(model: ServedModel, serving: Serving, output: Path, force: bool) -> Packaged:
    """Add the model to the package in `output`, made where it is missing; nothing is written outside of it.

    With `force` an earlier package of this name is replaced: the files that its record lists. Raises UsageError for a
    name that Kubernetes does not take, for files that exist and are not to be replaced, and what `config_text` refuses.
    """
    name = serving.name
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name):
        raise UsageError(
            f"the name is '{name}', expected up to 63 of a-z, 0-9 and -, the first a letter and the last no -: choose "
            "another by --name"
        )
    texts = {f"{MODELS}/{name}/config.pbtxt": config_text(model, serving)}
    if model.info and has_labels(model):
        labels = [model.info.label(index) for index in range(model.info.num_classes)]
        texts[f"{MODELS}/{name}/{LABELS}"] = "".join(f"{' '.join(label.split())}\n" for label in labels)
    made = {f"{MANIFESTS}/{name}.{kind}.yaml": text for kind, text in manifests(model, serving).items()}
    record = f"{MODELS}/{name}/{RECORD}"
    copied = f"{MODELS}/{name}/1/{model.file_name}"
    numbers = {f"{MODELS}/{name}/{WARMUP}/{KEEP}": np.array(model.default_keep, "<i8")} if model.keep else {}
    files = [*texts, copied, *numbers, *made, record]
    texts |= made | {record: json.dumps({"schema": SCHEMA, "files": files}, indent=1) + "\n"}
    folder = output.absolute()
    with made_folder(folder), owned(folder / name):
        places = (f"{MODELS}/{name}", *made)
        try:
            restore(draft_of(folder / name), folder, places)  # a killed run's
            _check_earlier(folder, name, model.path, force)
            with drafted(draft_of(folder / name), folder, places) as draft:
                (draft / copied).parent.mkdir(parents=True)
                shutil.copyfile(model.path, draft / copied)
                for file, text in texts.items():
                    (draft / file).parent.mkdir(parents=True, exist_ok=True)
                    (draft / file).write_text(text, encoding="utf-8")
                for file, values in numbers.items():
                    (draft / file).parent.mkdir()
                    (draft / file).write_bytes(values.tobytes())
        except OSError as error:
            raise UsageError(f"cannot write the package {folder}: {error.strerror or error}") from error
    return Packaged(folder / MODELS / name, tuple(folder / file for file in made))


def _check_earlier(folder: Path, name: str, source: Path, force: bool) -> None:
    """Refuse to replace anything but the files that an earlier package of this name lists: raises UsageError."""
    model = folder / MODELS / name
    for place in (folder / MODELS, folder / MANIFESTS, model):
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise UsageError(f"{place} is not a folder of a package: move it away, or choose another --triton")
    manifests = [folder / MANIFESTS / f"{name}.{kind}.yaml" for kind in ("kserve", "kubernetes")]
    there = [path for path in (model, *manifests) if path.exists() or path.is_symlink()]
    if there and not force:
        raise UsageError(f"{there[0]} already exists: pass --force to replace it, or choose another --name")
    listed = {folder / file for file in _listed(model / RECORD, name)}
    folders = (model, model / "1", model / WARMUP)
    for path in (*model.rglob("*"), *there):
        if path.is_symlink() or (path not in listed if path.is_file() else path not in folders):
            raise UsageError(f"{path} is not of an earlier package: move it away, or choose another --name")
        if path.is_file() and path.samefile(source):
            raise UsageError(f"{source} is the input and would be replaced: choose another --name or --triton")


def _listed(record: Path, name: str) -> tuple[str, ...]:
    """The files that the record of an earlier package of this name lists; none where there is no record."""
    if not record.is_file() or record.is_symlink():
        return ()
    file = (
        rf"{MODELS}/{name}/(config\.pbtxt|labels\.txt|package\.json|{WARMUP}/{KEEP}|1/model\.(plan|onnx))"
        rf"|{MANIFESTS}/{name}\.(kserve|kubernetes)\.yaml"
    )
    files = sequence(matching(file, "the name of a file of this package"), 1, 9)
    rule = document({"schema": whole(SCHEMA, SCHEMA), "files": files})
    try:
        known = rule(read_json_file(record, "the record of a package"))
    except (BadFileError, SchemaError) as error:
        raise UsageError(f"{record} is not the record of a package ({error}): choose another --name") from error
    return tuple(known["files"])
