"""An ensemble answers image files as `Predictor` does: run here step by step, in place of Triton by `fake_triton`."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
import struct
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import fake_triton
import numpy as np
import pytest
import tritonclient.http
import typer
import yaml
from fake_triton import Repository, TritonError
from graphs import restated
from PIL import Image
from tritonclient.utils import deserialize_bytes_tensor

import evodeploy
from evodeploy.cli import app
from evodeploy.cli.values import ratio_range
from evodeploy.elastic import ElasticStage, shortest_ratio
from evodeploy.errors import UsageError
from evodeploy.onnx_files import info_of, read_onnx, write_onnx
from evodeploy.repository.config import Serving
from evodeploy.repository.manifests import manifests
from evodeploy.repository.model import served_model

GENERATOR = np.random.default_rng(0)


def picture(width=90, height=70, kind="PNG"):
    """A file of noise."""
    file = io.BytesIO()
    Image.fromarray(GENERATOR.integers(0, 256, (height, width, 3), np.uint8)).save(file, kind)
    return file.getvalue()


FILES = [picture(), picture(64, 200, "JPEG"), picture(33, 64, "WEBP")]


def sent(files, *axes):
    return np.array(files, np.object_).reshape(len(files), *axes)


@pytest.fixture
def repository(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", fake_triton)
    models = Repository(tmp_path / "out" / "models")
    yield models
    models.close()


@pytest.fixture(scope="module")
def named(small_onnx, tmp_path_factory):
    """The small model, its classes named."""
    path = tmp_path_factory.mktemp("named") / "net.onnx"
    return restated(small_onnx, path, class_names=tuple(f"číslo {i}" for i in range(10)))


def check_as_predicted(answer, predictions):
    """The same numbers, not only close ones."""
    for i, prediction in enumerate(predictions):
        labels = zip(answer["classes"][i], answer["probabilities"][i], answer["names"][i], strict=True)
        found = [(index, float(probability), name.decode()) for index, probability, name in labels]
        assert found == [(label.index, label.probability, label.name) for label in prediction.labels]


@pytest.mark.parametrize("top", [None, 3])
def test_image_files_get_the_labels_of_the_predictor(named, tmp_path, repository, top):
    written = evodeploy.package(named, tmp_path / "out", ensemble=True, top=top)
    assert written.ensemble == "net-images"
    with evodeploy.load(named, "onnxruntime") as predictor:
        expected = predictor.predict(FILES, top or 5)
    answer = repository.infer("net-images", image=sent(FILES, 1))
    assert answer["names"].shape == (3, top or 5)
    check_as_predicted(answer, expected)
    config = repository.config("net-images")
    assert [step.model_name for step in config.ensemble_scheduling.step] == ["net-preprocess", "net", "net-postprocess"]
    assert config.max_batch_size == repository.config("net").max_batch_size == 32


def test_what_a_graph_does_itself_is_left_to_it(small_checkpoint, tmp_path, repository):
    """Bytes go in, and the best classes come out."""
    exported = evodeploy.export(
        small_checkpoint, tmp_path / "net.onnx", input_format="uint8", top_k=4, batch=2, verify=False
    )
    evodeploy.package(exported.path, tmp_path / "out", ensemble=True, top=2)
    with evodeploy.load(exported.path, "onnxruntime") as predictor:
        check_as_predicted(repository.infer("net-images", image=sent(FILES[:2])), predictor.predict(FILES[:2], 2))
    with pytest.raises(UsageError, match="top is 5, but the artefact gives 4 classes"):
        evodeploy.package(exported.path, tmp_path / "other", ensemble=True, top=5)


def test_a_request_for_an_elastic_model_may_bring_its_numbers_of_kept_tokens(small_elastic, tmp_path, repository):
    evodeploy.package(small_elastic, tmp_path / "out", ensemble=True, name="net")
    files = sent(FILES)
    with evodeploy.load(small_elastic, "onnxruntime") as predictor:
        keep = predictor.info.keep_of(0.2)
        usual, fewer = predictor.predict(FILES), predictor.predict(FILES, keep_ratio=0.2)
    assert usual[0].labels != fewer[0].labels
    check_as_predicted(repository.infer("net-images", image=files), usual)
    check_as_predicted(repository.infer("net-images", image=files, keep=np.array(keep)), fewer)
    with pytest.raises(TritonError, match="stage 0 cannot keep 0 of its 64 tokens: this artefact keeps 6 to 64"):
        repository.infer("net-images", image=files, keep=np.array([0, 32]))
    with pytest.raises(TritonError, match="no images, expected one or more"):
        repository.infer("net-images", image=files[:0])


def claims(width, height):
    """A PNG file that says it is of this size, and ends there."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + struct.pack(">I", 9) + b"IDAT"
    return b"\x89PNG\r\n\x1a\n" + chunks


HOSTILE = {
    "nothing": b"",
    "no image": b"GET / HTTP/1.1\r\n\x1b[31m",
    "half an image": FILES[0][:600],
    "another program's": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "one that is left out": picture(kind="GIF"),
    "many pixels": claims(8000, 8000),
    "a line": picture(20_001, 1),
}


def test_a_file_that_is_no_image_is_an_error_of_its_request_alone(named, tmp_path, repository):
    evodeploy.package(named, tmp_path / "out", ensemble=True)
    requests = [{"image": sent([FILES[0]], 1)}, *({"image": sent([file], 1)} for file in HOSTILE.values())]
    first, *refused = repository.infer_each("net-preprocess", requests)
    assert first["images"].shape == (1, 3, 64, 64)
    for name, error in zip(HOSTILE, refused, strict=True):
        assert isinstance(error, TritonError) and error.code == TritonError.INVALID_ARG, name
        assert re.fullmatch(r"the (image|body) [ -~]{10,200}", str(error)), name
    assert "64000000 pixels, expected 50000000 at most" in str(refused[list(HOSTILE).index("many pixels")])
    with pytest.raises(TritonError, match="^image 1 of 2: the body is not a readable image of JPEG, PNG"):
        repository.infer("net-images", image=sent([FILES[0], b"no"], 1))


def test_the_limits_of_a_file_are_parameters(named, tmp_path, repository):
    evodeploy.package(named, tmp_path / "out", ensemble=True)
    path = tmp_path / "out" / "models" / "net-preprocess" / "config.pbtxt"
    text = path.read_text()
    limits = repository.config("net-preprocess").parameters
    assert [limits[name].string_value for name in ("max_bytes", "max_pixels")] == [str(16 << 20), "50000000"]
    path.write_text(text.replace(f'"{16 << 20}"', f'"{len(FILES[0]) - 1}"').replace('"50000000"', '"2000"'))
    with pytest.raises(TritonError, match=f"the image has {len(FILES[0])} bytes, expected {len(FILES[0]) - 1} at most"):
        repository.infer("net-images", image=sent([FILES[0]], 1))
    with pytest.raises(TritonError, match="the image has 2112 pixels, expected 2000 at most"):
        repository.infer("net-images", image=sent([FILES[2]], 1))


def test_outputs_that_are_no_numbers_are_an_error(named, tmp_path, repository):
    evodeploy.package(named, tmp_path / "out", ensemble=True)
    logits = np.zeros((2, 10), np.float32)
    logits[1, 3] = np.nan
    with pytest.raises(TritonError, match="^image 1 of 2: the model's output for this image is not finite") as caught:
        repository.infer("net-postprocess", logits=logits)
    assert caught.value.code == TritonError.INTERNAL


def test_a_second_version_is_added_to_the_first(named, tmp_path, repository):
    out = tmp_path / "out"
    other = tmp_path / "net.onnx"
    model = read_onnx(named)
    model.doc_string = "trained longer"
    write_onnx(model, other)
    evodeploy.package(named, out, ensemble=True)
    first = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.parent.name == "1"}
    assert evodeploy.package(other, out, version=2, ensemble=True).version == 2
    assert {path: path.read_bytes() for path in first} == first and len(first) == 6
    assert [repository.version(name) for name in ("net", "net-images", "net-postprocess")] == ["2", "2", "2"]
    assert (out / "models" / "net" / "2" / "model.onnx").read_bytes() == other.read_bytes()
    repository.infer("net-images", image=sent(FILES, 1))
    with pytest.raises(UsageError, match="already exists: pass --force to replace it"):
        evodeploy.package(named, out, version=2, ensemble=True)
    evodeploy.package(named, out, version=2, ensemble=True, force=True)
    assert (out / "models" / "net" / "2" / "model.onnx").read_bytes() == named.read_bytes()
    assert {path: path.read_bytes() for path in first} == first
    with pytest.raises(UsageError, match=r"also has models/net-images/config\.pbtxt: pass --ensemble too"):
        evodeploy.package(named, out, version=3)


def test_a_version_that_was_removed_is_no_part_of_the_package(named, tmp_path):
    out = tmp_path / "out"
    for version in (1, 2):
        evodeploy.package(named, out, version=version, ensemble=True)
    models = [path for path in (out / "models").iterdir() if path.is_dir()]
    assert len(models) == 4
    for removed in ("2", "3"):
        for model in models:
            shutil.rmtree(model / removed)
        assert evodeploy.package(named, out, version=3, ensemble=True).version == 3
        assert {path.name for model in models for path in model.iterdir() if path.is_dir()} == {"1", "3"}
    for model in models:
        if model.name != "net":
            shutil.rmtree(model)
    evodeploy.package(named, out, version=4)


def test_a_version_with_other_options_is_refused(named, tmp_path):
    out = tmp_path / "out"
    evodeploy.package(named, out, device="gpu", instances=4)
    before = (out / "models" / "net" / "config.pbtxt").read_text()
    with pytest.raises(UsageError, match="version 1 of net has other --device, --instances than 2, .*: give the same"):
        evodeploy.package(named, out, version=2)
    assert (out / "models" / "net" / "config.pbtxt").read_text() == before
    evodeploy.package(named, out, version=2, device="gpu", instances=4)
    evodeploy.package(named, out, version=3, device="gpu", instances=4, ensemble=True, top=3)
    with pytest.raises(UsageError, match="version 1 of net has other --top than 4, .*: give the same options"):
        evodeploy.package(named, out, version=4, device="gpu", instances=4, ensemble=True)


def test_versions_that_take_or_give_something_else_are_refused(named, tmp_path):
    preprocessing = info_of(read_onnx(named)).preprocessing
    restated(named, tmp_path / "net.onnx", preprocessing=dataclasses.replace(preprocessing, crop_pct=1.0))
    evodeploy.package(named, tmp_path / "out")
    with pytest.raises(
        UsageError, match="version 1 of net has other preprocessing than 2, but all versions share one configuration"
    ):
        evodeploy.package(tmp_path / "net.onnx", tmp_path / "out", version=2)
    assert [path.name for path in (tmp_path / "out" / "models" / "net").iterdir() if path.is_dir()] == ["1"]
    with pytest.raises(UsageError, match="another --name"):
        shutil.rmtree(tmp_path / "out" / "models" / "net" / "1")
        (tmp_path / "out" / "models" / "net-images").mkdir()
        evodeploy.package(named, tmp_path / "out", ensemble=True, force=True)


def test_the_command_prints_what_the_function_returns(named, tmp_path, cli):
    written = evodeploy.package(named, tmp_path / "out", ensemble=True)
    again = ("package", named, "--triton", tmp_path / "out", "--ensemble", "--force")
    assert (cli(*again)[1], json.loads(cli(*again, "--json")[1])) == (f"{written}\n", written.to_dict())
    assert "net-images  image files to labels; needs evodeploy in Triton's Python" in str(written)
    code, _, err = cli("package", named, "--triton", tmp_path / "other", "--top", 3)
    assert (code, "--ensemble names: add --ensemble" in err) == (2, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": 0}, "version is 0, expected a number from 1 to 1000000000"),
        ({"instances": 2000}, "instances is 2000, expected a number from 1 to 1024"),
        ({"max_batch": 0}, "max_batch is 0, expected a number from 1 up"),
        ({"max_wait": float("inf")}, "max_wait is inf, expected 0 to 100 seconds"),
    ],
)
def test_numbers_out_of_range_are_refused(named, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        evodeploy.package(named, tmp_path / "out", **options)


def test_kserve_may_run_the_adaptive_server_on_an_elastic_file(small_elastic, tmp_path):
    written = evodeploy.package(small_elastic, tmp_path / "out", name="net")
    (path,) = (each for each in written.manifests if each.name == "net.kserve-adaptive.yaml")
    service = yaml.safe_load(path.read_text())
    (container,) = service["spec"]["predictor"]["containers"]
    command, artefact, *options = container["args"]
    assert container["command"] == ["evodeploy"] and command == "serve"
    assert Path(artefact).relative_to("/mnt/models") == Path("net/1/model.onnx")
    serve = typer.main.get_command(app).commands["serve"]
    read = serve.make_context("serve", [str(small_elastic), *options]).params
    assert (read["target_p99"], read["keep_ratio"], read["port"]) == (
        100,
        "0.1:1",
        container["ports"][0]["containerPort"],
    )
    assert service["spec"]["predictor"]["terminationGracePeriodSeconds"] > read["timeout"]
    assert read["threads"] == float(container["resources"]["limits"]["cpu"])


@pytest.mark.parametrize(("device", "extra"), [("cpu", "evodeploy[serve,cpu]"), ("gpu", "evodeploy[serve,gpu]")])
def test_the_image_of_the_adaptive_server_has_a_runtime_for_the_device(small_elastic, device, extra):
    text = manifests(served_model(small_elastic), Serving("net", device))["kserve-adaptive"]
    assert f"an image with {extra}," in text


@pytest.mark.parametrize("kept", [(29, 57), (24, 24), (98, 98)])
def test_the_adaptive_server_takes_the_range_that_its_manifest_states(small_elastic, tmp_path, kept):
    """In floats 29 / 100 keeps 28 of 100 tokens, and 24 / 49 in two digits one way is above it and the other below."""
    low, high = kept
    tokens = {29: 100, 24: 49, 98: 196}[low]
    model = served_model(small_elastic)
    stages = (ElasticStage(tokens, low, high),) * 2
    info = dataclasses.replace(model.info, elastic=stages, keep_ratios=(shortest_ratio(high, tokens),) * 2)
    text = manifests(dataclasses.replace(model, info=info), Serving("net", "cpu"))["kserve-adaptive"]
    (container,) = yaml.safe_load(text)["spec"]["predictor"]["containers"]
    ends = ratio_range("--keep-ratio", container["args"][container["args"].index("--keep-ratio") + 1], equal=True)
    assert [info.keep_of(end) for end in ends] == [(low, low), (high, high)]


class Client:
    """As tritonclient's, of the repository in this process."""

    repository: Repository

    def __init__(self, url):
        assert url == "localhost:8000"

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def infer(self, name, inputs):
        (image,) = inputs
        files = deserialize_bytes_tensor(image._raw_data).reshape(image.shape())
        answer = self.repository.infer(name, image=files)
        return SimpleNamespace(as_numpy=answer.__getitem__)


def test_the_client_of_the_documentation(named, tmp_path, repository, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs" / "triton.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    evodeploy.package(named, tmp_path / "out", name="model", ensemble=True)
    monkeypatch.chdir(tmp_path)
    Path("cat.jpg").write_bytes(FILES[1])
    Path("dog.png").write_bytes(FILES[0])
    monkeypatch.setattr(Client, "repository", repository, raising=False)
    monkeypatch.setattr(tritonclient.http, "InferenceServerClient", Client)
    exec(code, {})
    with evodeploy.load(named, "onnxruntime") as predictor:
        expected = [found.label for found in predictor.predict(["cat.jpg", "dog.png"])]
    assert capsys.readouterr().out == "".join(f"{label.name} {np.float32(label.probability)!s}\n" for label in expected)
