"""Repositories as Triton reads them: against its own schema, and the manifests against Kubernetes'."""

from __future__ import annotations

import dataclasses
import json
import re

import kubernetes_validate
import onnx
import pytest
import yaml
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInstanceGroup

from evodeploy.engines.tensorrt.sidecar import PlanRecord, Profile, write_sidecar
from evodeploy.errors import BadFileError
from evodeploy.files import sha256
from evodeploy.onnx_files import info_of, input_spec, output_specs, read_onnx, set_info, write_onnx
from evodeploy.specs import ModelInfo, TensorSpec


@pytest.fixture
def folder(tmp_path, monkeypatch, small_onnx):
    """A folder with the small model, its classes named."""
    monkeypatch.chdir(tmp_path)
    model = read_onnx(small_onnx)
    names = tuple(f"digit\t{i}" for i in range(10))
    set_info(model, dataclasses.replace(info_of(model), class_names=names))
    write_onnx(model, tmp_path / "Net_v2.onnx")
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
    assert sorted(path.name for path in model.iterdir()) == ["1", "config.pbtxt", "labels.txt"]
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
    info = ModelInfo.from_json(read.parameters["evodeploy"].string_value)
    assert (info.model, info.image_size) == ("evo_deit_test", 64)


def test_nothing_is_written_outside_the_folder_named(cli, folder):
    before = sorted(folder.iterdir())
    code, out, _ = cli("package", "Net_v2.onnx", "--triton", "deep/out", "--json")
    assert code == 0
    assert sorted(folder.iterdir()) == sorted([*before, folder / "deep"])
    assert [path.name for path in (folder / "deep").iterdir()] == ["out"]
    assert sorted(path.name for path in (folder / "deep" / "out").iterdir()) == ["manifests", "models"]
    manifests = folder / "deep" / "out" / "manifests"
    names = ["net-v2.kserve.yaml", "net-v2.kubernetes.yaml"]
    assert json.loads(out)["manifests"] == [str(manifests / name) for name in names]
    assert sorted(path.name for path in manifests.iterdir()) == names


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
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
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


@pytest.mark.parametrize(("device", "limit"), [("cpu", None), ("gpu", "1")])
def test_the_manifests_fit_kubernetes(cli, folder, device, limit):
    cli("package", "Net_v2.onnx", "--triton", "out", "--device", device)
    deployment, service = yaml.safe_load_all((folder / "out" / "manifests" / "net-v2.kubernetes.yaml").read_text())
    for document in (deployment, service):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["args"][-1] == "--model-repository=/models/models"
    assert container["resources"]["limits"].get("nvidia.com/gpu") == limit
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
    served = yaml.safe_load((folder / "out" / "manifests" / "net-v2.kserve.yaml").read_text())
    assert (served["apiVersion"], served["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    model = served["spec"]["predictor"]["model"]
    assert (model["modelFormat"], model["storageUri"]) == ({"name": "triton"}, "s3://YOUR-BUCKET/models")
    assert model["resources"] == container["resources"]


def test_a_packaged_model_is_replaced_only_when_told(cli, folder):
    cli("package", "Net_v2.onnx", "--triton", "out")
    cli("package", "Net_v2.onnx", "--triton", "out", "--name", "other")
    (folder / "out" / "models" / "net-v2" / "2").mkdir()
    code, _, err = cli("package", "Net_v2.onnx", "--triton", "out")
    assert code == 2
    assert "net-v2 already exists: pass --force" in err
    assert cli("package", "Net_v2.onnx", "--triton", "out", "--force")[0] == 0
    assert sorted(str(path.relative_to(folder)) for path in folder.glob("out/models/*/[0-9]")) == [
        "out/models/net-v2/1", "out/models/other/1",
    ]  # fmt: skip


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
            "'x' is float8_e4m3fn, a type that Triton has not",
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
