"""Facts of models, records of engines, configurations of hubs: a valid value, or an error of ours in one clean line."""

from __future__ import annotations

import dataclasses
import json

from fuzz.hunt import CHARACTERS, JSON, clean, effort, hunt, nearly
from hypothesis import strategies as st
from test_schema import INFO, PLAN

from evodeploy.engines.tensorrt.sidecar import read_sidecar, sidecar_path, write_sidecar
from evodeploy.errors import BadFileError
from evodeploy.models.hub_config import hints_near
from evodeploy.models.preprocessing import resolved
from evodeploy.onnx_files import parse_info
from evodeploy.spec_rules import PREPROCESSING

INFO_JSON = json.loads(INFO.to_json())
PLAN_JSON = json.loads(json.dumps(dataclasses.asdict(PLAN)))
OLD_JSON = INFO_JSON | {"preprocessing": {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_ratio": 256 / 224}}
TIMM = {
    "architecture": "vit_tiny_patch16_224", "num_classes": 2, "label_names": ["ant", "bee"],
    "model_args": {"num_heads": 3}, "global_pool": "token",
    "pretrained_cfg": {
        "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "crop_pct": 0.9, "crop_mode": "center",
        "interpolation": "bicubic", "input_size": [3, 224, 224],
    },
}  # fmt: skip
CONFIG = {
    "hidden_act": "gelu", "num_attention_heads": 3, "layer_norm_eps": 1e-6, "id2label": {"0": "ant", "1": "bee"},
    "image_size": 224,
}  # fmt: skip
PROCESSOR = {
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "size": {"shortest_edge": 256}, "resample": 3,
    "crop_size": {"height": 224, "width": 224}, "do_center_crop": True, "do_resize": True, "do_rescale": True,
    "do_normalize": True, "rescale_factor": 1 / 255,
}  # fmt: skip


@effort
def test_facts_of_a_model(seconds):
    def check(text):
        try:
            info = parse_info(text, "x.onnx")
        except BadFileError as error:
            assert clean(str(error), 1000)
        else:
            assert info is None or parse_info(info.to_json(), "again") == info

    documents = (nearly(INFO_JSON) | nearly(OLD_JSON) | JSON).map(json.dumps)
    hunt(documents | st.text(CHARACTERS), check, seconds)


@effort
def test_records_of_engines(tmp_path, seconds):
    plan = tmp_path / "x.engine"
    plan.write_bytes(b"a plan")

    def check(data):
        sidecar_path(plan).write_bytes(data)
        try:
            record = read_sidecar(plan)
        except BadFileError as error:
            assert clean(str(error), 1000)
        else:
            write_sidecar(record, plan)
            written = read_sidecar(plan)
            words = {name: getattr(record, name) for name in ("source", "largest_activation", "kept_fp32")}
            assert dataclasses.replace(written, **words) == record  # words are written as one printable line
            write_sidecar(written, plan)
            assert read_sidecar(plan) == written

    documents = (nearly(PLAN_JSON) | JSON).map(lambda value: json.dumps(value).encode())
    hunt(documents | st.binary(), check, seconds)


@effort
def test_configurations_of_hubs(tmp_path, seconds):
    def check(documents):
        for name, document in zip(("config.json", "preprocessor_config.json"), documents, strict=True):
            (tmp_path / name).write_text(json.dumps(document))
        try:
            how = resolved(hints_near(tmp_path / "model.safetensors").stated)
            assert PREPROCESSING(json.loads(json.dumps(dataclasses.asdict(how)))) == how
        except BadFileError as error:
            assert clean(str(error), 1000)

    of_timm = st.tuples(nearly(TIMM), st.just({}))
    of_transformers = st.tuples(nearly(CONFIG) | st.just(CONFIG), nearly(PROCESSOR) | JSON)
    hunt(of_timm | of_transformers | st.tuples(JSON, JSON), check, seconds)
