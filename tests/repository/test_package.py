"""Repositories as Triton reads them: against its own schema, and the manifests against Kubernetes'."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import shutil
import sys
import threading
from pathlib import Path

import kubernetes_validate
import numpy as np
import onnx
import pytest
import yaml
from cuda_shim.plans import write_elastic, write_plan
from data_kinds import contents, listing
from google.protobuf import text_format
from graphs import model_of, restated, sharded, value
from onnx import helper
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInstanceGroup

from evodeploy.engines.tensorrt.sidecar import PlanRecord, Profile, write_sidecar
from evodeploy.errors import BadFileError, UsageError
from evodeploy.files import sha256
from evodeploy.locks import owned
from evodeploy.onnx_files import info_of, input_spec, output_specs, read_onnx
from evodeploy.repository import swap
from evodeploy.repository.config import Serving
from evodeploy.repository.model import served_model
from evodeploy.repository.package import model_name, write_package
from evodeploy.spec_rules import read_model_info
from evodeploy.specs import TensorSpec
from evodeploy.text import brief


@pytest.fixture
def folder(tmp_path, monkeypatch, small_onnx):
    """A folder with the small model, its classes named."""
    monkeypatch.chdir(tmp_path)
    restated(small_onnx, tmp_path / "Net_v2.onnx", class_names=tuple(f"digit\t{i}" for i in range(10)))
    return tmp_path


def plan(folder, **changes):
    """An engine by its record; Triton's configuration needs no more of it."""
    model, path = read_onnx(folder / "Net_v2.onnx"), folder / "net.engine"
    path.write_bytes(b"a plan")
    record = PlanRecord(
        "tensorrt", "10.13.3", ("sm89",), "fp16", (Profile(1, 16, 64),), (input_spec(model),), output_specs(model),
        info_of(model), "net.onnx", "", sha256(path), 6,
    )  # fmt: skip
    write_sidecar(dataclasses.replace(record, **changes), path)
    return path


def config(path) -> ModelConfig:
    return text_format.Parse((path / "config.pbtxt").read_text(), ModelConfig())


def test_an_onnx_file_with_its_tokens(cli, folder):
    code, out, err = cli("package", "Net_v2.onnx", "--triton", "out")
    assert (code, err) == (0, "")
    assert f"next: tritonserver --model-repository={folder / 'out' / 'models'}" in out
    model = folder / "out" / "models" / "net-v2"
    assert listing(model) == ["1", "config.pbtxt", "labels.txt", "package.json"]
    assert (model / "1" / "model.onnx").read_bytes() == (folder / "Net_v2.onnx").read_bytes()
    assert (model / "labels.txt").read_text().splitlines() == [f"digit {i}" for i in range(10)]
    read = config(model)
    assert (read.name, read.backend, read.max_batch_size) == ("net-v2", "onnxruntime", 32)
    assert [(t.name, DataType.Name(t.data_type), list(t.dims)) for t in read.input] == [
        ("images", "TYPE_FP32", [3, 64, 64])
    ]
    assert [(t.name, DataType.Name(t.data_type), list(t.dims), t.label_filename) for t in read.output] == [
        ("logits", "TYPE_FP32", [10], "labels.txt"),
        ("selected_0", "TYPE_INT64", [32], ""), ("selected_1", "TYPE_INT64", [32], ""),
        ("scores_0", "TYPE_FP32", [64], ""), ("scores_1", "TYPE_FP32", [64], ""),
    ]  # fmt: skip
    assert read.instance_group[0].kind == ModelInstanceGroup.KIND_CPU
    assert [warm.batch_size for warm in read.model_warmup] == [1, 16, 32]
    assert list(read.model_warmup[0].inputs["images"].dims) == [3, 64, 64]
    info = read_model_info(read.parameters["evodeploy"].string_value)
    assert (info.model, info.image_size) == ("evo_deit_test", 64)


def test_nothing_is_written_outside_the_folder_named(cli, folder):
    before = sorted(folder.iterdir())
    code, out, _ = cli("package", "Net_v2.onnx", "--triton", "deep/out", "--json")
    assert code == 0
    assert sorted(folder.iterdir()) == sorted([*before, folder / "deep"])
    assert [path.name for path in (folder / "deep").iterdir()] == ["out"]
    assert listing(folder / "deep" / "out") == ["manifests", "models"]
    manifests = folder / "deep" / "out" / "manifests"
    names = ["net-v2.kserve.yaml", "net-v2.kubernetes.yaml"]
    assert json.loads(out)["manifests"] == [str(manifests / name) for name in names]
    assert listing(manifests) == names


def test_an_engine_is_batched_as_its_profile_says(cli, folder):
    code, _, _ = cli("package", plan(folder), "--triton", "out", "--instances", 2, "--max-queue-delay-us", 50)
    assert code == 0
    read = config(folder / "out" / "models" / "net")
    assert (read.backend, read.max_batch_size) == ("tensorrt", 64)
    assert list(read.dynamic_batching.preferred_batch_size) == [16, 64]
    assert read.dynamic_batching.max_queue_delay_microseconds == 50
    assert (read.instance_group[0].kind, read.instance_group[0].count) == (ModelInstanceGroup.KIND_GPU, 2)
    assert [warm.batch_size for warm in read.model_warmup] == [1, 16, 64]
    assert read.parameters["made_by"].string_value == "tensorrt 10.13.3 for sm89"
    assert (folder / "out" / "models" / "net" / "1" / "model.plan").read_bytes() == b"a plan"


@pytest.mark.parametrize("backend", ["tensorrt", "onnxruntime"])
def test_a_request_for_an_elastic_model_brings_its_numbers_of_kept_tokens(cli, folder, backend):
    """Triton would take the first of them for a batch size where it joins requests, so it joins none."""
    path = write_elastic(folder / "net.onnx")
    if backend == "tensorrt":
        path = write_plan(folder / "net.engine", path)
    for _ in range(2):  # replaced as a whole
        assert cli("package", path, "--triton", "out", "--force")[0] == 0
    for option in ("--max-batch", "--max-queue-delay-us"):
        code, _, err = cli("package", path, "--triton", "out", option, 8)
        assert (code, f"leave out {option}" in err) == (2, True)
    model = folder / "out" / "models" / "net"
    read = config(model)
    assert (read.backend, read.max_batch_size, read.HasField("dynamic_batching")) == (backend, 0, False)
    assert [(t.name, list(t.dims), t.is_shape_tensor) for t in read.input] == [
        ("images", [-1, 3, 64, 64], False), ("keep", [2], backend == "tensorrt"),
    ]  # fmt: skip
    assert [(tensor.name, list(tensor.dims)) for tensor in read.output] == [
        ("logits", [-1, 2]),
        ("selected_0", [-1, -1]),
    ]
    (warm,) = read.model_warmup
    assert (list(warm.inputs["images"].dims), warm.inputs["keep"].input_data_file) == ([1, 3, 64, 64], "keep")
    assert np.frombuffer((model / "warmup" / "keep").read_bytes(), "<i8").tolist() == [32, 16]
    assert read.parameters["default_keep"].string_value == "32 16"
    code, _, err = cli("package", path, "--triton", "other", "--max-batch", 8)
    assert (code, "runs each request separately" in " ".join(err.split())) == (2, True)


def test_a_smaller_batch_may_be_served(cli, folder):
    code, out, _ = cli("package", plan(folder), "--triton", "out", "--max-batch", 8, "--json")
    assert (code, json.loads(out)["max_batch"]) == (0, 8)
    assert list(config(folder / "out" / "models" / "net").dynamic_batching.preferred_batch_size) == [8]


def test_other_inputs_and_outputs_are_taken_as_they_are(cli, folder):
    outputs = TensorSpec("probabilities", "float32", (None, 5)), TensorSpec("classes", "int64", (None, 5))
    path = plan(folder, inputs=(TensorSpec("images", "uint8", (None, 64, 64, 3)),), outputs=outputs)
    cli("package", path, "--triton", "out")
    read = config(folder / "out" / "models" / "net")
    assert (DataType.Name(read.input[0].data_type), list(read.input[0].dims)) == ("TYPE_UINT8", [64, 64, 3])
    assert [(tensor.name, list(tensor.dims)) for tensor in read.output] == [("probabilities", [5]), ("classes", [5])]
    assert not (folder / "out" / "models" / "net" / "labels.txt").exists()


def test_a_fixed_batch_is_served_as_it_is(cli, folder):
    model = read_onnx(folder / "Net_v2.onnx")
    for each in (*model.graph.input, *model.graph.output):
        each.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, folder / "four.onnx")
    assert cli("package", "four.onnx", "--triton", "out")[0] == 0
    read = config(folder / "out" / "models" / "four")
    assert (read.max_batch_size, list(read.input[0].dims)) == (0, [4, 3, 64, 64])
    assert not read.HasField("dynamic_batching")
    assert "no other: leave out --max-batch" in cli("package", "four.onnx", "--triton", "m", "--max-batch", 8)[2]


def test_an_accelerator_is_handed_to_onnx_runtime(cli, folder):
    cli("package", "Net_v2.onnx", "--triton", "out", "--device", "gpu", "--accelerator", "tensorrt")
    read = config(folder / "out" / "models" / "net-v2")
    assert read.instance_group[0].kind == ModelInstanceGroup.KIND_GPU
    assert [x.name for x in read.optimization.execution_accelerators.gpu_execution_accelerator] == ["tensorrt"]


@pytest.mark.parametrize(
    ("options", "limit", "registry"),
    [
        (["--device", "cpu"], None, "nvcr.io/nvidia"),
        (["--device", "gpu"], "1", "nvcr.io/nvidia"),
        (["--ensemble"], None, "YOUR-REGISTRY"),
    ],
)
def test_the_manifests_fit_kubernetes(cli, folder, options, limit, registry):
    cli("package", "Net_v2.onnx", "--triton", "out", *options)
    deployment, service = yaml.safe_load_all((folder / "out" / "manifests" / "net-v2.kubernetes.yaml").read_text())
    for document in (deployment, service):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["args"][-1] == "--model-repository=/mnt/models/models"
    assert container["resources"]["limits"].get("nvidia.com/gpu") == limit
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
    served = yaml.safe_load((folder / "out" / "manifests" / "net-v2.kserve.yaml").read_text())
    assert (served["apiVersion"], served["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    model = served["spec"]["predictor"]["model"]
    assert (model["modelFormat"], model["storageUri"]) == ({"name": "triton"}, "s3://YOUR-BUCKET/models")
    assert model["resources"] == container["resources"]
    assert container["image"] == f"{registry}/tritonserver:YY.MM-py3"
    own = registry == "YOUR-REGISTRY"
    assert model.get("image") == (container["image"] if own else None)
    assert ("/dev/shm" in [each["mountPath"] for each in container["volumeMounts"]]) == own


PACKAGED = ("1/model.onnx", "config.pbtxt", "labels.txt", "package.json")


def test_a_packaged_model_is_replaced_only_with_force(cli, folder):
    before = contents(folder)
    assert cli("package", "Net_v2.onnx", "--triton", "out", "--instances", 2)[0] == 0
    assert cli("package", "Net_v2.onnx", "--triton", "out", "--name", "other")[0] == 0
    assert sorted(contents(folder).keys() - before.keys()) == [
        *(f"out/manifests/{name}.{kind}.yaml" for name in ("net-v2", "other") for kind in ("kserve", "kubernetes")),
        *(f"out/models/net-v2/{file}" for file in PACKAGED), *(f"out/models/other/{file}" for file in PACKAGED),
    ]  # fmt: skip
    packaged = contents(folder)
    code, _, err = cli("package", "Net_v2.onnx", "--triton", "out")
    assert (code, "net-v2 already exists: pass --force" in err) == (2, True)
    assert contents(folder) == packaged
    assert cli("package", "Net_v2.onnx", "--triton", "out", "--force")[0] == 0
    changed = {name for name, content in contents(folder).items() if packaged.get(name) != content}
    assert changed == {"out/models/net-v2/config.pbtxt", "out/models/net-v2/package.json"}  # which knows the options
    assert config(folder / "out" / "models" / "net-v2").instance_group[0].count == 1


@pytest.mark.parametrize("name", ["models/net-v2/photo.png", "models/net-v2/1/photo.png", "models/net-v2/2/model.onnx"])
def test_force_removes_nothing_that_is_not_listed(cli, folder, name):
    cli("package", "Net_v2.onnx", "--triton", "out")
    path = folder / "out" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"a photograph")
    before = contents(folder)
    code, _, err = cli("package", "Net_v2.onnx", "--triton", "out", "--force")
    assert (code, "does not belong to an earlier package: move it away" in err) == (2, True)
    assert contents(folder) == before


@pytest.mark.parametrize(
    "record",
    [
        None,
        "not JSON",
        {"schema": 1, "files": ["models/other/config.pbtxt"]},
        {"schema": 1, "files": ["models/net-v2/../../Net_v2.onnx"]},
        {"name": "of another program"},
    ],
)
def test_a_package_without_its_record_is_not_replaced(cli, folder, record):
    cli("package", "Net_v2.onnx", "--triton", "out")
    path = folder / "out" / "models" / "net-v2" / "package.json"
    path.unlink() if record is None else path.write_text(record if isinstance(record, str) else json.dumps(record))
    before = contents(folder)
    assert cli("package", "Net_v2.onnx", "--triton", "out", "--force")[0] == 2
    assert contents(folder) == before


def test_links_and_inputs_are_not_replaced(cli, folder):
    cli("package", "Net_v2.onnx", "--triton", "out")
    before = contents(folder)
    packaged = folder / "out" / "models" / "net-v2" / "1" / "model.onnx"
    code, _, err = cli("package", packaged, "--triton", "out", "--name", "net-v2", "--force")
    assert (code, "is the input and would be replaced" in err) == (2, True)
    (folder / "out" / "models").rename(folder / "elsewhere")
    (folder / "out" / "models").symlink_to(folder / "elsewhere")
    code, _, err = cli("package", "Net_v2.onnx", "--triton", "out", "--force")
    assert (code, "is not a folder of a package" in err) == (2, True)
    assert contents(folder / "elsewhere") == {
        name.removeprefix("out/models/"): content for name, content in before.items() if name.startswith("out/models")
    }


HOSTILE = "10.1\n---\napiVersion: v1\nkind: Pod\x85\u2028}\nmodel_operations { op_library_filename: 'x.so' }\n\"#\ud800"


def test_text_of_a_record_stays_text(folder):
    model = dataclasses.replace(served_model(folder / "Net_v2.onnx"), made=HOSTILE)
    odd = folder / "a: b #'\"\n---\nkind: Pod"
    write_package(model, Serving("net", "cpu"), odd, force=False)
    documents = list(yaml.safe_load_all((odd / "manifests" / "net.kubernetes.yaml").read_text()))
    assert [document["kind"] for document in documents] == ["Deployment", "Service"]
    (service,) = yaml.safe_load_all((odd / "manifests" / "net.kserve.yaml").read_text())
    assert [each["metadata"]["annotations"]["made-by"] for each in (documents[0], service)] == [
        brief(HOSTILE),
        brief(HOSTILE),
    ]
    read = config(odd / "models" / "net")
    assert read.parameters["made_by"].string_value == brief(HOSTILE)
    assert not read.HasField("model_operations")
    assert "Pod" not in (odd / "models" / "net" / "package.json").read_text()


def test_the_name_of_a_file_adds_nothing_to_the_configuration(cli, folder):
    name = 'x\nmodel_operations { op_library_filename: "x.so" }\n.onnx'
    (folder / "Net_v2.onnx").rename(folder / name)
    assert cli("package", folder / name, "--triton", "out", "--name", "net")[0] == 0
    assert not config(folder / "out" / "models" / "net").HasField("model_operations")


@pytest.mark.parametrize("name", ["-a", "a-", "A", "1a", "a.b", "a_b", "a" * 64, "a\n", "../a", "ä"])
def test_names_that_kubernetes_does_not_take_are_refused(cli, folder, name):
    before = contents(folder)
    code, _, err = cli("package", "Net_v2.onnx", "--triton", "out", f"--name={name}")
    assert (code, "expected up to 63 of the characters a-z, 0-9 and -" in err) == (2, True)
    assert contents(folder) == before
    assert not (folder / "out").exists()


def test_a_name_made_of_a_file_s_is_one_that_is_taken():
    assert model_name(Path("Ckpt.fp16.onnx")) == "ckpt-fp16"
    assert model_name(Path("x" * 62 + "-y.onnx")) == "x" * 62


def test_manifests_need_pyyaml(cli, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    code, _, err = cli("package", "Net_v2.onnx", "--triton", "out")
    assert (code, 'pip install "evodeploy[package]"' in err) == (3, True)
    assert not (folder / "out").exists()


def test_a_full_disk_leaves_the_earlier_package(cli, folder, monkeypatch):
    cli("package", "Net_v2.onnx", "--triton", "out")
    before = contents(folder)

    def full(source, target):
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", full)
    for options in (("--force",), ("--name", "new")):
        code, _, err = cli("package", "Net_v2.onnx", "--triton", "out", *options)
        assert (code, "No space left on device" in err) == (3, True)
        assert contents(folder) == before
    assert cli("package", "Net_v2.onnx", "--triton", "fresh")[0] == 3
    assert not (folder / "fresh").exists()


@pytest.mark.parametrize("steps", range(7))
@pytest.mark.parametrize("end", [KeyboardInterrupt, OSError, "kill"])
def test_an_interrupted_move_loses_no_earlier_package(cli, folder, monkeypatch, steps, end):
    """At each of its renames: six, each of them the earlier or the new one of three; then one that ends it."""

    class Killed(BaseException):
        """The process is gone: nothing is cleaned up."""

    left = steps

    def rename(path, target, rename=Path.rename):
        nonlocal left
        left -= 1
        if left == -1 or (left < 0 and end == "kill"):
            raise Killed if end == "kill" else end
        return rename(path, target)

    def remove(place, remove=swap._remove):
        if left >= 0 or end != "kill":
            remove(place)

    cli("package", "Net_v2.onnx", "--triton", "out", "--instances", 2)
    before = contents(folder)
    model, serving = served_model(folder / "Net_v2.onnx"), Serving("net-v2", "cpu")
    raised = {OSError: UsageError, "kill": Killed}.get(end, end)
    with monkeypatch.context() as patched, pytest.raises(raised):
        patched.setattr(Path, "rename", rename)
        patched.setattr(swap, "_remove", remove)
        write_package(model, serving, folder / "out", force=True)
    assert cli("package", "Net_v2.onnx", "--triton", "out")[0] == 2  # there is one, so it wants --force
    assert {name: text for name, text in contents(folder).items() if "draft" not in name} == before
    assert cli("package", "Net_v2.onnx", "--triton", "out", "--force")[0] == 0
    assert listing(folder / "out") == ["manifests", "models"]


def test_an_interrupted_first_package_leaves_none(cli, folder, monkeypatch):
    def rename(path, target, rename=Path.rename):
        if target.suffix == ".yaml":
            raise KeyboardInterrupt
        return rename(path, target)

    before = contents(folder)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", rename)
        assert cli("package", "Net_v2.onnx", "--triton", "out")[0] == 130
    assert contents(folder) == before


def test_the_draft_of_a_killed_run_is_cleared(cli, folder):
    draft = folder / "out" / ".net-v2.evodeploy-draft"
    (draft / "models").mkdir(parents=True)
    (draft / "models" / "half").touch()
    (folder / "out" / ".net-v2.evodeploy-lock").touch()
    assert cli("package", "Net_v2.onnx", "--triton", "out")[0] == 0
    assert listing(folder / "out") == ["manifests", "models"]


def test_the_second_of_two_at_once_is_refused(cli, folder):
    refused = []
    (folder / "out").mkdir()
    with owned(folder / "out" / "net-v2"):
        thread = threading.Thread(target=lambda: refused.append(cli("package", "Net_v2.onnx", "--triton", "out")))
        thread.start()
        thread.join()
    assert (refused[0][0], "another run is writing" in refused[0][2]) == (2, True)
    assert list((folder / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"runtime": "tensorrt-rtx"}, [], "TensorRT for RTX, .* package the ONNX it was built from \\(net.onnx\\)"),
        ({"profiles": (Profile(4, 8, 8),)}, [], "takes 4 images or more"),
        ({"profiles": (Profile(1, 1, 1), Profile(2, 8, 8))}, [], "has 2 optimization profiles: build it with one"),
        ({"outputs": (TensorSpec("x", "float32", (10,)),)}, [], "has no batch axis"),
        (
            {"outputs": (TensorSpec("x", "float8_e4m3fn", (None, 10)),)},
            [],
            "'x' is float8_e4m3fn, a type that Triton does not have",
        ),
        ({}, ["--max-batch", 65], "takes up to 64 images, fewer than --max-batch 65"),
        ({}, ["--device", "cpu"], "runs on a GPU as it is: leave out --device cpu"),
        ({}, ["--accelerator", "tensorrt"], "leave out --accelerator"),
        ({}, ["--name", "Net v2"], "the name is 'Net v2'"),
    ],
)
def test_what_triton_could_not_serve_is_refused(cli, folder, changes, options, message):
    code, _, err = cli("package", plan(folder, **changes), "--triton", "out", *options)
    assert code == 2
    assert re.search(message, err)
    assert not (folder / "out").exists()


def test_an_altered_engine_and_a_checkpoint_are_refused(cli, folder, small_checkpoint):
    path = plan(folder)
    path.write_bytes(b"another")
    code, _, err = cli("package", path, "--triton", "out")
    assert code == BadFileError.exit_code
    assert "differs from its record" in err
    assert "is a checkpoint: export it first" in cli("package", small_checkpoint, "--triton", "out")[2]


def test_weights_in_other_files_are_refused(cli, folder, small_onnx):
    path, _ = sharded(small_onnx, folder)
    code, _, err = cli("package", path, "--triton", "out")
    assert code == 2
    assert "model.onnx keeps weights in other files (weights.bin), but a package has only one model file" in err
    assert not (folder / "out").exists()


def test_a_file_of_operators_of_others_alone_is_packaged(cli, folder):
    node = helper.make_node("FastGelu", ["x"], ["y"], domain="com.microsoft")
    model = model_of([node], [value("x")], [value("y")])
    model.opset_import[0].CopyFrom(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, folder / "others.onnx")
    assert cli("package", "others.onnx", "--triton", "out")[0] == 0
