"""Checkpoints of the hub, from a server of the hub's protocol on this machine."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading

import pytest
import torch
from safetensors.torch import save_file
from vit_sources import CLASSES, SIZE, HuggingFace, TimmViT, filled

import evodeploy
from evodeploy.errors import BadFileError, UnavailableError, UsageError
from evodeploy.models.hub import local, origin

COMMIT, EARLIER = "a" * 40, "b" * 40
NAMES = [f"kind {index}" for index in range(CLASSES)]
TIMM = {
    "architecture": "vit_small_patch8_48",
    "label_names": NAMES,
    "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "crop_pct": 0.9},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What the server has: by repository, revision and name."""
    folder = tmp_path_factory.mktemp("hub")
    for name, network in {"timm": TimmViT(), "hf": HuggingFace("vit")}.items():
        save_file(filled(network).state_dict(), folder / name)
    torch.save(filled(TimmViT()).state_dict(), folder / "bin")
    vit = json.dumps({"num_attention_heads": 2, "layer_norm_eps": 1e-12}).encode()
    processor = json.dumps({"size": {"height": SIZE, "width": SIZE}, "image_mean": [0.1] * 3, "image_std": [0.2] * 3})
    timm = json.dumps(TIMM).encode()
    return {
        ("timm/small", COMMIT): {"config.json": timm, "model.safetensors": (folder / "timm").read_bytes()},
        ("timm/small", EARLIER): {"config.json": timm, "pytorch_model.bin": (folder / "bin").read_bytes()},
        ("google/vit", COMMIT): {
            "config.json": vit,
            "model.safetensors": (folder / "hf").read_bytes(),
            "preprocessor_config.json": processor.encode(),
        },
        ("some/text", COMMIT): {"config.json": b"{}", "README.md": b"no checkpoint"},
    }


def point_to(endpoint, monkeypatch):
    """Do what HF_ENDPOINT does before the library is imported."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def hub(files, tmp_path, monkeypatch):
    """The server.

    It lists the files that were `asked` for; those `refused` get no answer, those `broken` end early, and `after` is
    called when one was sent. `tags` are its names of commits.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, *, body):
            if "/resolve/" not in self.path:  # what the library asks for itself
                self.send_error(404)
                return
            owner, name, _, revision, file = self.path.lstrip("/").split("/", 4)
            server.asked.append(file)
            if file in server.refused:
                self.send_error(403)
                return
            revision = server.tags.get(revision, revision)
            known = {repository for repository, _ in files}
            held = files.get((f"{owner}/{name}", revision), {}).get(file)
            if held is None:
                self.send_response(403 if owner == "gated" else 404)
                code = (
                    "GatedRepo" if owner == "gated"
                    else "RepoNotFound" if f"{owner}/{name}" not in known
                    else "RevisionNotFound" if (f"{owner}/{name}", revision) not in files
                    else "EntryNotFound"
                )  # fmt: skip
                self.send_header("X-Error-Code", code)
                self.send_header("X-Repo-Commit", revision)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("X-Repo-Commit", revision)
            self.send_header("ETag", f'"{hashlib.sha256(held).hexdigest()}"')
            self.send_header("Content-Length", str(len(held)))
            self.end_headers()
            if body:
                self.wfile.write(held[:10] if file in server.broken else held)
                server.after(file)

        def log_message(self, *arguments):
            pass

    from huggingface_hub import constants

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    point_to(f"http://127.0.0.1:{server.server_address[1]}", monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    server.asked, server.refused, server.broken = [], set(), set()
    server.tags, server.after = {"main": COMMIT, "v1": EARLIER}, lambda file: None
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_fetches_a_checkpoint_and_what_describes_it(hub, caplog):
    path = local(f"hf://timm/small@{COMMIT}")
    assert path.name == "model.safetensors"
    assert path.with_name("config.json").is_file()
    assert not caplog.messages
    asked = len(hub.asked)
    assert local(f"hf://timm/small@{COMMIT}") == path  # from the cache
    assert "model.safetensors" not in hub.asked[asked:]
    with evodeploy.load(f"hf://timm/small@{COMMIT}") as predictor:
        info = predictor.info
    assert (info.model, info.class_names[2], info.preprocessing.mean) == ("vit_small_patch8_48", "kind 2", (0.5,) * 3)
    assert info.source == f"hf://timm/small@{COMMIT}"


def test_reads_the_processor_of_a_transformers_model(hub):
    with evodeploy.load(f"hf://google/vit@{COMMIT}") as predictor:
        assert predictor.info.preprocessing.mean == pytest.approx((0.1,) * 3)
        assert predictor.info.preprocessing.crop_mode == "squash"


def test_warns_of_a_revision_that_may_change(hub, caplog):
    assert origin(local("hf://timm/small")) == f"hf://timm/small@{COMMIT}"
    assert caplog.messages == [f"hf://timm/small is used as it is now: pin this revision as hf://timm/small@{COMMIT}"]


def test_takes_a_tag_and_an_older_format(hub):
    path = local("hf://timm/small@v1")
    assert (path.name, origin(path)) == ("pytorch_model.bin", f"hf://timm/small@{EARLIER}")


def test_offline_the_cache_is_enough(hub, monkeypatch):
    from huggingface_hub import constants

    for name in ("timm/small", "google/vit"):
        local(f"hf://{name}@{COMMIT}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.asked)
    assert local(f"hf://timm/small@{COMMIT}").is_file()
    assert local(f"hf://google/vit@{COMMIT}").with_name("preprocessor_config.json").is_file()
    with pytest.raises(UnavailableError, match=r"config\.json is not in the cache and the hub cannot be reached"):
        local("hf://timm/small@v1")
    assert len(hub.asked) == asked


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        ("hf://small", UsageError, "hf://small is not a name on the hub: expected hf://OWNER/NAME"),
        ("hf://timm/small@", UsageError, "expected hf://OWNER/NAME"),
        ("hf://timm/../x", UsageError, "is not a name on the hub"),
        ("hf://timm/small@../../x", UsageError, "is not a name on the hub"),
        ("hf://timm/small@/x", UsageError, "is not a name on the hub"),
        ("hf://timm/other", UsageError, "the hub has no such model"),
        ("hf://timm/small@v9", UsageError, "the hub has no such revision"),
        ("hf://gated/one", UnavailableError, "gated: accept its terms"),
        ("hf://some/text", BadFileError, "has neither model.safetensors nor pytorch_model.bin"),
    ],
)
def test_refuses_what_the_hub_does_not_have(hub, source, kind, words):
    with pytest.raises(kind, match=words) as caught:
        local(source)
    assert "\n" not in str(caught.value)


def test_a_hub_that_is_not_reached_is_unavailable(hub, monkeypatch):
    from huggingface_hub.utils import _http

    point_to("http://127.0.0.1:9", monkeypatch)
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)  # it tries again for half a minute
    with pytest.raises(UnavailableError, match="the hub cannot be reached"):
        local("hf://timm/small")


@pytest.mark.parametrize("endpoint", ["huggingface.co", "ftp://huggingface.co"])
def test_an_endpoint_that_is_no_address_is_unavailable(hub, monkeypatch, endpoint):
    point_to(endpoint, monkeypatch)
    with pytest.raises(UnavailableError, match=r"config\.json cannot be fetched: .*protocol"):
        local("hf://timm/small")


def test_says_how_a_hub_refuses(hub, monkeypatch):
    hub.refused.add("config.json")
    with pytest.raises(UnavailableError, match=r"the hub cannot be reached \(.*403"):
        local("hf://timm/small")


def test_a_download_that_breaks_off_is_unavailable(hub, monkeypatch):
    from huggingface_hub.utils import _http

    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
    hub.broken.add("model.safetensors")
    with pytest.raises(UnavailableError, match=r"model\.safetensors cannot be fetched: .*"):
        local("hf://timm/small")


def test_all_files_are_of_one_commit(hub):
    """The branch moves after its configuration was fetched: the checkpoint is the one that this describes."""
    hub.after = lambda file: hub.tags.update(main=EARLIER)
    path = local("hf://timm/small")
    assert (origin(path), path.name) == (f"hf://timm/small@{COMMIT}", "model.safetensors")
    assert path.with_name("config.json").is_file()


def test_exports_into_the_current_folder(hub, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("export", "hf://timm/small@v1", "--no-verify")
    assert code == 0, err
    assert "small.onnx" in out
    code, out, err = cli("predict", "hf://nobody/x", "image.png")
    assert (code, out) == (2, "")
    assert "hf://nobody/x: the hub has no such model" in err
    code, out, err = cli("inspect", f"hf://timm/small@{COMMIT}", "--json")
    assert code == 0
    assert json.loads(out)["model"] == "vit_small_patch8_48"


def test_a_teacher_may_be_of_the_hub_too(hub, cli, tmp_path):
    student = ("hf://timm/small@v1", "--images", tmp_path, "-o", tmp_path / "out.pth")
    code, _, err = cli("distill", *student, "--teacher", "hf://nobody/x")
    assert (code, "hf://nobody/x: the hub has no such model" in err) == (2, True), err
