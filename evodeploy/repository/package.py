"""The folder of a package: a model repository and manifests, written as a draft and then moved into place.

DIR/models/NAME/    config.pbtxt, labels.txt, 1/ with the model, warmup/ with inputs to warm up an elastic one;
package.json lists the files of this package, and `--force` removes no others
DIR/models/NAME-images, NAME-preprocess and NAME-postprocess/    the ensemble, if requested
DIR/manifests/      NAME.kserve.yaml and NAME.kubernetes.yaml
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from evodeploy.errors import BadFileError, UsageError, unwritten
from evodeploy.files import made_folder
from evodeploy.locks import draft_of, owned
from evodeploy.repository.config import LABELS, MODELS, Serving, config_text, has_labels
from evodeploy.repository.ensemble import ENSEMBLE, PLACEHOLDER, SUFFIXES, ensemble_files
from evodeploy.repository.manifests import KINDS, manifests
from evodeploy.repository.model import ServedModel
from evodeploy.repository.python_models import INFO
from evodeploy.repository.record import Packaged
from evodeploy.repository.swap import drafted, restore
from evodeploy.schema import SchemaError, document, mapping, matching, read_json_file, sequence, text, whole
from evodeploy.specs import KEEP

SCHEMA = 1
MANIFESTS = "manifests"
WARMUP = "warmup"
RECORD = "package.json"
VERSIONS = 1000  # of a package, at most
_TOP = "--top"


@dataclass(frozen=True)
class _Earlier:
    """The contents of an earlier package's record, with the facts that all its versions share.

    `files` are those of the `listed` files that still exist: versions may have been removed.
    """

    listed: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    common: dict[str, str] = field(default_factory=dict)

    def others(self, version: int) -> dict[str, int]:
        """Return the files of versions other than `version`, with their versions."""
        found = ((file, re.fullmatch(rf"{MODELS}/[^/]+/([0-9]+)/[^/]+", file)) for file in self.files)
        return {file: int(match[1]) for file, match in found if match and int(match[1]) != version}


def model_name(path: Path) -> str:
    """Return a name for the model in `path` that Triton and Kubernetes accept: `Ckpt.fp16.onnx` is `ckpt-fp16`."""
    return re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:63].strip("-")


def write_package(model: ServedModel, serving: Serving, output: Path, force: bool) -> Packaged:
    """Add the model to the package in `output`, which is made if it is missing. Nothing is written outside of it.

    Other versions in an earlier package of this name stay. With `force` the files of this version that its record lists
    are replaced. Raises UsageError for a name that Kubernetes does not accept, for existing files that may not be
    replaced, for other versions with different inputs or outputs, and the errors of `config_text`.
    """
    name, version = serving.name, serving.version
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name):
        raise UsageError(
            f"the name is '{name}', expected up to 63 of the characters a-z, 0-9 and -, beginning with a letter "
            "and not ending with -: choose another --name"
        )
    texts = {f"{MODELS}/{name}/config.pbtxt": config_text(model, serving)}
    if model.info and has_labels(model):
        labels = [model.info.label(index) for index in range(model.info.num_classes)]
        texts[f"{MODELS}/{name}/{LABELS}"] = "".join(f"{' '.join(label.split())}\n" for label in labels)
    if model.info and serving.top:
        ensemble = ensemble_files(model, serving, model.info, serving.top)
        texts |= {f"{MODELS}/{file}": content for file, content in ensemble.items()}
    made = {f"{MANIFESTS}/{name}.{kind}.yaml": content for kind, content in manifests(model, serving).items()}
    copied = f"{MODELS}/{name}/{version}/{model.file_name}"
    numbers = {f"{MODELS}/{name}/{WARMUP}/{KEEP}": np.array(model.default_keep, "<i8")} if model.keep else {}
    record = f"{MODELS}/{name}/{RECORD}"
    files, common = [*texts, copied, *numbers, *made, record], _common(model, serving)
    folder = output.absolute()
    models = [name, *(f"{name}-{suffix}" for suffix in SUFFIXES if serving.top)]
    with made_folder(folder), owned(folder / name):
        places = (*(f"{MODELS}/{each}" for each in models), *made)
        try:
            restore(draft_of(folder / name), folder, _places(name))  # of a run that was killed
            earlier = _earlier(folder / record, name)
            _check_earlier(folder, serving, earlier, model.path, force)
            kept = earlier.others(version)
            _check_versions(serving, earlier, kept, common)
            _check_left(name, earlier, places)
            texts |= made | {record: _record([*files, *kept], common)}
            with drafted(draft_of(folder / name), folder, places) as draft:
                for file in (*texts, copied, *numbers, *kept):
                    (draft / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(model.path, draft / copied)
                for file in kept:
                    shutil.copyfile(folder / file, draft / file)
                for file, content in texts.items():
                    (draft / file).write_text(content, encoding="utf-8")
                for file, values in numbers.items():
                    (draft / file).write_bytes(values.tobytes())
        except OSError as error:
            raise unwritten(f"the package {folder}", error) from error
    return Packaged(
        folder=folder / MODELS / name,
        version=version,
        manifests=tuple(folder / file for file in made),
        backend=model.backend,
        device=serving.device,
        max_batch=model.batches.max if model.batches else 0,
        batch=model.input.shape[0],
        ensemble=f"{name}-{ENSEMBLE}" if serving.top else None,
    )


def _record(files: list[str], common: dict[str, str]) -> str:
    return json.dumps({"schema": SCHEMA, "files": files, "common": common}, indent=1) + "\n"


def _common(model: ServedModel, serving: Serving) -> dict[str, str]:
    """Return the facts that all versions of a package must share, for they have one configuration and set of names."""
    info = model.info
    preprocessing = dataclasses.replace(info.preprocessing, assumed=()) if info else None
    tensors = ", ".join(map(str, filter(None, (model.input, model.keep, *model.outputs))))
    facts = {
        "backend": model.backend,
        "tensors": tensors,
        "batches": str(model.batches),
        "default keep": str(model.default_keep),
        "preprocessing": str(preprocessing),
        "classes": str(info.class_names) if info else "",
        "--device": serving.device,
        "--instances": str(serving.instances),
        "--max-queue-delay-us": str(serving.delay),
        "--accelerator": str(serving.accelerator),
        **({_TOP: str(serving.top)} if serving.top else {}),
    }
    return {name: hashlib.sha256(fact.encode("utf-8", "backslashreplace")).hexdigest() for name, fact in facts.items()}


def _check_versions(serving: Serving, earlier: _Earlier, kept: dict[str, int], common: dict[str, str]) -> None:
    """Raise UsageError if a version to keep differs in a fact that all versions must share."""
    name = serving.name
    differing = [
        what
        for what, fact in common.items()
        if earlier.common.get(what) != fact and (what != _TOP or what in earlier.common)  # an ensemble may be added
    ]
    if kept and differing:
        again = "give the same options, or " if all(what.startswith("--") for what in differing) else ""
        raise UsageError(
            f"version {min(kept.values())} of {name} has other {', '.join(differing)} than {serving.version}, "
            f"but all versions share one configuration: {again}choose another --name"
        )


def _check_left(name: str, earlier: _Earlier, places: tuple[str, ...]) -> None:
    """Raise UsageError if the package would leave files of an earlier one behind."""
    for file in earlier.files:
        if not any(file == place or file.startswith(f"{place}/") for place in places):
            hint = "pass --ensemble too" if file.startswith(f"{MODELS}/{name}-") else "remove it"
            raise UsageError(f"the earlier package {name} also has {file}: {hint}, or choose another --name")


def _check_earlier(folder: Path, serving: Serving, earlier: _Earlier, source: Path, force: bool) -> None:
    """Raise UsageError if anything but the listed files of an earlier package of this name would be replaced."""
    models = [folder / MODELS / name for name in _models(serving.name)]
    for place in (folder / MODELS, folder / MANIFESTS, *models):
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise UsageError(f"{place} is not a folder of a package: move it away, or choose another --triton")
    listed = {folder / file for file in earlier.listed}
    if not serving.top and not any(path.is_relative_to(models[1]) for path in listed):
        models = models[:1]  # other models may have such names
    manifests = [folder / MANIFESTS / f"{serving.name}.{kind}.yaml" for kind in KINDS]
    there = [path for path in (*models, *manifests) if path.exists() or path.is_symlink()]
    own = f"{MODELS}/{serving.name}/{serving.version}/"
    is_new = bool(earlier.files) and not any(file.startswith(own) for file in earlier.files)
    if there and not force and not is_new:
        raise UsageError(
            f"{there[0]} already exists: pass --force to replace it, or choose another --name or --version"
        )
    folders = {parent for path in listed for parent in path.parents}
    for path in (*(path for model in models for path in model.rglob("*")), *there):
        if path.is_symlink() or (path not in listed if path.is_file() else path not in folders):
            raise UsageError(f"{path} does not belong to an earlier package: move it away, or choose another --name")
        if path.is_file() and path.samefile(source):
            raise UsageError(f"{source} is the input and would be replaced: choose another --name or --triton")


def _models(name: str) -> list[str]:
    """Return the folders of a package in the repository, including those of an ensemble."""
    return [name, *(f"{name}-{suffix}" for suffix in SUFFIXES)]


def _places(name: str) -> tuple[str, ...]:
    """Return all folders and files that a package of this name may consist of."""
    return (*(f"{MODELS}/{each}" for each in _models(name)), *(f"{MANIFESTS}/{name}.{kind}.yaml" for kind in KINDS))


def _earlier(record: Path, name: str) -> _Earlier:
    """Read the record of an earlier package of this name; empty if there is no record."""
    if not record.is_file() or record.is_symlink():
        return _Earlier()
    version = "[1-9][0-9]{0,17}"
    file = (
        rf"{MODELS}/{name}/(config\.pbtxt|labels\.txt|package\.json|{WARMUP}/{KEEP}|{version}/model\.(plan|onnx))"
        rf"|{MODELS}/{name}-({'|'.join(SUFFIXES)})/(config\.pbtxt|{version}/({PLACEHOLDER}|model\.py|{INFO}))"
        rf"|{MANIFESTS}/{name}\.({'|'.join(KINDS)})\.yaml"
    )
    files = sequence(matching(file, "the name of a file of this package"), 1, 20 * VERSIONS)
    rule = document({"schema": whole(SCHEMA, SCHEMA), "files": files}, {"common": mapping(text(64), 20)})
    try:
        known = rule(read_json_file(record, "the record of a package"))
    except (BadFileError, SchemaError) as error:
        raise UsageError(f"{record} is not the record of a package ({error}): choose another --name") from error
    listed, folder = tuple(known["files"]), record.parents[2]
    return _Earlier(listed, tuple(file for file in listed if (folder / file).exists()), known.get("common", {}))
