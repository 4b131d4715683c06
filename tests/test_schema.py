"""Wrong documents at every door, and the sentence that each is refused with."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest

from evodeploy.elastic import ElasticStage
from evodeploy.engines.tensorrt.sidecar import PlanRecord, Profile, read_sidecar, sidecar_path, write_sidecar
from evodeploy.errors import BadFileError, UsageError
from evodeploy.onnx_files import parse_info
from evodeploy.schema import (
    DEPTH,
    SchemaError,
    document,
    mapping,
    number,
    read_json,
    read_json_file,
    record,
    sequence,
    text,
    whole,
)
from evodeploy.spec_rules import read_model_info
from evodeploy.specs import ModelInfo, TensorSpec
from evodeploy.text import brief

INFO = ModelInfo(
    "fake", 224, 16, 3, "stage", (0.5, 0.7), class_names=("ant", "bee", "cat"), stages=(4, 8), top_k=2,
    elastic=(ElasticStage(196, 19, 196), ElasticStage(196, 98, 150)),
)  # fmt: skip
PLAN = PlanRecord(
    "tensorrt", "10.13.0.35", ("sm89",), "fp16", (Profile(1, 4, 8), Profile(8, 8, 16)),
    INFO.inputs, (TensorSpec("logits", "float32", (None, 3)),), INFO,
    "x.onnx", "0" * 64, "f" * 64, 12, kept_fp32={"node": "a reason"}, tf32=True, rest="fp16",
)  # fmt: skip
IMAGES_SPEC, KEEP_SPEC = map(dataclasses.asdict, INFO.inputs)
ABSENT = object()


def changed(values, path, value):
    """A copy of the JSON `values` with `value` at the dotted `path`."""
    values = json.loads(json.dumps(values))
    *holders, last = path.split(".")
    holder = values
    for name in holders:
        holder = holder[int(name) if isinstance(holder, list) else name]
    if value is ABSENT:
        del holder[last]
    else:
        holder[int(last) if isinstance(holder, list) else last] = value
    return values


def nested(depth):
    return json.loads("[" * depth + "]" * depth)


# field, wrong value, the sentence
WRONG_INFO = [
    ("model", 3, "model is 3, expected text of 0 to 300 characters"),
    ("model", "x" * 301, "model is \"xxx.*…, expected text"),
    ("model", ABSENT, "model is missing, expected text"),
    ("image_size", -1, "image_size is -1, expected a whole number from 1 to 4096"),
    ("image_size", 0, "image_size is 0, expected"),
    ("image_size", "224", "image_size is \"224\", expected"),
    ("image_size", None, "image_size is null, expected"),
    ("image_size", 224.0, "image_size is 224.0, expected"),
    ("image_size", True, "image_size is true, expected"),
    ("image_size", 1_000_000, "image_size is 1000000, expected"),
    ("image_size", ABSENT, "image_size is missing, expected"),
    ("patch_size", 0, "patch_size is 0, expected"),
    ("patch_size", 225, "patch_size is 225, expected at most the image size, 224"),
    ("num_classes", -1, "num_classes is -1, expected"),
    ("num_classes", 10**9, "num_classes is 1000000000, expected"),
    ("num_classes", 10**29, "num_classes is 1000.*, expected"),
    ("num_classes", 4, "class_names is a list of 3, expected one for each of 4 classes, or none"),
    ("selection", "best", 'selection is "best", expected stage or layer'),
    ("selection", ["stage"], "selection is a list of 1, expected stage or layer"),
    ("keep_ratios", 0.5, "keep_ratios is 0.5, expected a list"),
    ("keep_ratios", [0.5, 0], r"keep_ratios\[1\] is 0, expected a number above 0, up to 1"),
    ("keep_ratios", [1.5], r"keep_ratios\[0\] is 1.5, expected"),
    ("keep_ratios", ["0.5"], r"keep_ratios\[0\] is \"0.5\", expected"),
    ("keep_ratios", [0.5] * 65, "keep_ratios is a list of 65, expected a list of 0 to 64"),
    ("precision", "fp64", "precision is \"fp64\", expected fp32 or"),
    ("preprocessing", None, "preprocessing is null, expected an object"),
    ("preprocessing", ABSENT, "preprocessing is missing, expected an object"),
    ("preprocessing.mean", [0.5, 0.5], "preprocessing.mean is a list of 2, expected a list of 3"),
    ("preprocessing.mean", [0.5, 0.5, None], r"preprocessing.mean\[2\] is null, expected a number from -10000 to"),
    ("preprocessing.mean", [0.5, 0.5, 1e300], r"preprocessing.mean\[2\] is 1e\+300, expected"),
    ("preprocessing.std", [0.2, 0, 0.2], r"preprocessing.std\[1\] is 0, expected a number from 0.0001 to 10000"),
    ("preprocessing.std", [0.2, -1, 0.2], r"preprocessing.std\[1\] is -1, expected"),
    ("preprocessing.std", "0.2", "preprocessing.std is \"0.2\", expected a list of 3"),
    ("preprocessing.interpolation", "magic", "preprocessing.interpolation is \"magic\", expected nearest or"),
    ("preprocessing.interpolation", 3, "preprocessing.interpolation is 3, expected"),
    ("preprocessing.std", [1.0] * 4, "preprocessing.std is a list of 4, expected a list of 3"),
    ("preprocessing.mean", [0.0] * 4, "preprocessing.mean is a list of 4, expected a list of 3"),
    ("preprocessing.crop_pct", 0, "preprocessing.crop_pct is 0, expected a number from 0.25 to 1"),
    ("preprocessing.crop_pct", 1e-9, "preprocessing.crop_pct is 1e-09, expected"),
    ("preprocessing.crop_pct", 1.1, "preprocessing.crop_pct is 1.1, expected"),
    ("preprocessing.crop_mode", "border", "preprocessing.crop_mode is \"border\", expected center or squash"),
    ("preprocessing.rounding", None, "preprocessing.rounding is null, expected timm or hugging-face"),
    ("preprocessing.assumed", "mean", "preprocessing.assumed is \"mean\", expected a list"),
    ("preprocessing.mirror", True, "preprocessing.mirror is true, expected no such field"),
    ("preprocessing.resize_ratio", 500, "preprocessing.resize_ratio is 500, expected a number from 1 to 4"),
    ("preprocessing.resize_ratio", None, "preprocessing.resize_ratio is null, expected"),
    ("class_names", "abc", "class_names is \"abc\", expected a list"),
    ("class_names", ["a", "b", 3], r"class_names\[2\] is 3, expected text"),
    ("class_names", ["a", "b", "c" * 301], r"class_names\[2\] is .*, expected text of 0 to 300 characters"),
    ("class_names", ["a", "b", nested(20)], r"class_names\[2\] is a list of 1, expected text"),
    ("source", {}, "source is an object of 0, expected text"),
    ("source_sha256", "0" * 65, "source_sha256 is .*, expected text of 0 to 64"),
    ("ema", 1, "ema is 1, expected true or false"),
    ("pooling", "max", "pooling is \"max\", expected mean or class"),
    ("fast_path", "sleep", "fast_path is \"sleep\", expected rest or merge"),
    ("stages", [8, 4], "stages is a list of 2, expected blocks in rising order"),
    ("stages", [4, 4], "stages is a list of 2, expected blocks in rising order"),
    ("stages", [-1], r"stages\[0\] is -1, expected"),
    ("stages", None, "stages is null, expected a list"),
    ("input_format", "float64", "input_format is \"float64\", expected float32 or uint8 or uint8-nchw"),
    ("top_k", 0, "top_k is 0, expected a whole number"),
    ("top_k", 4, "top_k is 4, expected at most the number of classes, 3"),
    ("top_k", 1.5, "top_k is 1.5, expected"),
    ("top_k", True, "top_k is true, expected"),
    ("elastic", None, "elastic is null, expected a list of 0 to 64"),
    ("elastic", [{"tokens": 4, "low": 1, "high": 4}], "elastic is a list of 1, expected an entry for each of 2 keep"),
    ("elastic.0", [196, 19, 196], r"elastic\[0\] is a list of 3, expected an object"),
    ("elastic.0.low", 0, r"elastic\[0\].low is 0, expected a whole number from 1"),
    ("elastic.0.low", True, r"elastic\[0\].low is true, expected a whole number"),
    ("elastic.0.low", 197, r"elastic\[0\] is a list of 3, expected low, high and tokens in rising order"),
    ("elastic.0.high", 197, r"elastic\[0\] is a list of 3, expected low, high and tokens in rising order"),
    ("elastic.0.tokens", 10**9, r"elastic\[0\].tokens is 1000000000, expected a whole number from 1 to 16777216"),
    ("elastic.0.tokens", ABSENT, r"elastic\[0\].tokens is missing, expected"),
    ("elastic.1.low", 140, "keep_ratios is a list of 2, expected ratios within elastic's bounds: stage 1 cannot keep"),
    ("versions", [], "versions is a list of 0, expected an object"),
    ("versions", {"torch": 2}, "versions.torch is 2, expected text"),
    ("versions", {str(i): "" for i in range(65)}, "versions is an object of 65, expected an object of at most 64"),
]  # fmt: skip

WRONG_RECORD = [
    ("runtime", "tensorrt\nkind: Pod", r'runtime is "tensorrt\\nkind: Pod", expected the name of a runtime'),
    ("runtime_version", '10"\n---', "runtime_version is .*, expected a version of letters, digits and dots"),
    ("runtime_version", 10, "runtime_version is 10, expected a version"),
    ("runtime_version", "", 'runtime_version is "", expected a version'),
    ("runtime_version", "v10.13", 'runtime_version is "v10.13", expected a version'),
    ("runtime_version", "1" * 65, "runtime_version is .*, expected a version"),
    ("targets", ["sm89\n"], r"targets\[0\] is .*, expected an architecture such as sm89"),
    ("targets", "sm89", 'targets is "sm89", expected a list'),
    ("targets", ["sm89"] * 65, "targets is a list of 65, expected a list of 0 to 64"),
    ("precision", None, "precision is null, expected fp32 or"),
    ("profiles", [], "profiles is a list of 0, expected a list of 1 to 64"),
    ("profiles", [{"min": 4, "opt": 2, "max": 8}], "a profile is .*, expected batches in rising order"),
    ("profiles.1.max", 10**9, r"profiles\[1\].max is 1000000000, expected a whole number from 1 to 1000000"),
    ("profiles.0.min", 0, r"profiles\[0\].min is 0, expected"),
    ("profiles.0", 3, r"profiles\[0\] is 3, expected an object"),
    ("inputs", [], "inputs is a list of 0, expected a list of 1"),
    ("inputs", ABSENT, "inputs is missing, expected a list of 1"),
    ("inputs.0.shape", [], r"inputs\[0\].shape is a list of 0, expected a list of 1 to 8"),
    ("inputs.0.shape", [None, -3], r"inputs\[0\].shape\[1\] is -3, expected a whole number"),
    ("inputs.0.dtype", "object", r"inputs\[0\].dtype is \"object\", expected a type of numbers such as float32"),
    ("inputs.0.name", "", r"inputs\[0\].name is \"\", expected text of 1 to 300 characters"),
    ("inputs", [IMAGES_SPEC, KEEP_SPEC | {"shape": [3]}], r'inputs is "the images, then keep int64 \(3\)",'),
    ("inputs", [IMAGES_SPEC, KEEP_SPEC | {"dtype": "int32"}], r'inputs is "the images, then keep int32 \(2\)",'),
    ("inputs", [IMAGES_SPEC, KEEP_SPEC | {"name": "k"}], r'inputs is "the images, then k int64 \(2\)", expected'),
    ("inputs", [IMAGES_SPEC], r'inputs is "the images", expected the images, then keep int64 \(2\), as the model says'),
    ("inputs", [IMAGES_SPEC, KEEP_SPEC, KEEP_SPEC], "inputs is a list of 3, expected a list of 1 to 2"),
    ("model.elastic", [], r'inputs is "the images, then keep int64 \(2\)", expected the images, as the model says'),
    ("model", None, r'inputs is "the images, then keep int64 \(2\)", expected the images, as the model says'),
    ("outputs", {}, "outputs is an object of 0, expected a list"),
    ("outputs.0.name", ABSENT, r"outputs\[0\].name is missing, expected text"),
    ("model", 3, "model is 3, expected an object"),
    ("model.image_size", "224", "model.image_size is \"224\", expected a whole number"),
    ("model.preprocessing.std", [0, 0, 0], r"model.preprocessing.std\[0\] is 0, expected"),
    ("plan_sha256", "", "plan_sha256 is \"\", expected a SHA-256 of 64 hexadecimal digits"),
    ("plan_sha256", ["f" * 64], "plan_sha256 is a list of 1, expected"),
    ("plan_bytes", -1, "plan_bytes is -1, expected"),
    ("weights_bytes", "many", "weights_bytes is \"many\", expected"),
    ("kept_fp32", {"node": 3}, "kept_fp32.node is 3, expected text"),
    ("kept_fp32", ["node"], "kept_fp32 is a list of 1, expected an object"),
    ("attentions", -1, "attentions is -1, expected"),
    ("architecture", "sm 89", "architecture is \"sm 89\", expected an architecture"),
    ("version_compatible", "yes", "version_compatible is \"yes\", expected true or false"),
    ("refittable", 1, "refittable is 1, expected true or false"),
    ("tf32", 0, "tf32 is 0, expected true or false"),
    ("rest", "fp8", "rest is \"fp8\", expected fp16 or bf16"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value", "sentence"), WRONG_INFO)
def test_wrong_facts_of_a_model_are_refused_with_file_field_got_and_expected(field, value, sentence):
    content = json.dumps(changed(json.loads(INFO.to_json()), field, value))
    with pytest.raises(BadFileError, match=rf"x.onnx: evodeploy's metadata in it is wrong: {sentence}"):
        parse_info(content, "x.onnx")


@pytest.mark.parametrize(("field", "value", "sentence"), WRONG_RECORD)
def test_wrong_records_of_engines_are_refused_with_file_field_got_and_expected(tmp_path, field, value, sentence):
    plan = tmp_path / "x.engine"
    plan.write_bytes(b"a plan")
    sidecar_path(plan).write_text(json.dumps(changed(dataclasses.asdict(PLAN), field, value)))
    with pytest.raises(BadFileError, match=rf"x.engine.json is not the record of an engine: {sentence}"):
        read_sidecar(plan)


def test_the_record_of_an_engine_is_written_whatever_its_source_is_called(tmp_path):
    plan = tmp_path / "x.engine"
    plan.write_bytes(b"a plan")
    write_sidecar(dataclasses.replace(PLAN, source=os.fsdecode(b"latin-\xe9.onnx")), plan)
    assert read_sidecar(plan).source == r"latin-\udce9.onnx"


def test_long_words_of_a_record_are_shortened_and_what_cannot_be_is_refused(tmp_path):
    plan = tmp_path / "x.engine"
    plan.write_bytes(b"a plan")
    kept = {"/block" * 60 + end: "a reason" * 200 for end in ("/a", "/b")}
    source = os.fsdecode(b"\xe9" * 200 + b".onnx")
    long = dataclasses.replace(PLAN, source=source, kept_fp32=kept, largest_activation="/n" * 200)
    write_sidecar(long, plan)
    read = read_sidecar(plan)
    assert read.source == brief(source)
    assert read.largest_activation == "/n" * 149 + "/…"
    assert len(read.kept_fp32) == 2
    before = sidecar_path(plan).read_bytes()
    with pytest.raises(BadFileError, match=r"the record of .*x.engine could not be read again: outputs\[0\].name"):
        write_sidecar(dataclasses.replace(PLAN, outputs=(TensorSpec("x" * 301, "float32", (None, 3)),)), plan)
    assert sidecar_path(plan).read_bytes() == before


def test_right_documents_are_read_as_they_were_written(tmp_path):
    plan = tmp_path / "x.engine"
    plan.write_bytes(b"a plan")
    write_sidecar(PLAN, plan)
    assert read_sidecar(plan) == PLAN
    assert read_model_info(INFO.to_json()) == INFO
    single = dataclasses.replace(PLAN, outputs=(TensorSpec("logits", "float32", (1, 3)),))
    write_sidecar(single, plan)
    assert read_sidecar(plan) == single
    later = json.loads(INFO.to_json()) | {"of_a_later_version": [1]}
    assert read_model_info(json.dumps(later)) == INFO


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"\xff\xfe{}", "codec can't decode"),
        (b"[" * 100_000, "values nested more than 32 deep"),
        (b'{"a":' * 100_000, "values nested more than 32 deep"),
        (b"[" * (DEPTH + 1) + b"]" * (DEPTH + 1), "values nested more than 32 deep"),
        (b'["' + b'\\"' * 500_000 + b"[" * 100, "Unterminated string"),
        (b"NaN", "the number NaN, expected finite ones"),
        (b"[-Infinity]", "the number -Infinity, expected finite ones"),
        (b"1e999", "the number 1e999, expected finite ones"),
        (b"9" * 5000, "a number of 5000 digits, expected at most 30"),
        (b'{"a": "\\ud83d"}', "surrogates not allowed"),
        (b'{"\\uDFFF": 1}', "surrogates not allowed"),
        (b'"' + b"x" * 10_000_000 + b'"', "10000002 bytes, expected at most 10000000"),
    ],
)
def test_json_that_no_reader_should_have_to_take_is_refused(tmp_path, content, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_json(content)
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(BadFileError, match=r"x.json (is not readable JSON|has 10000002 bytes)"):
        read_json_file(tmp_path / "x.json", "a document")


def test_json_as_deep_as_allowed_is_read_with_brackets_in_its_strings():
    deep = "[" * (DEPTH - 1) + json.dumps(["[" * 99, '"{\\', "\ud83d\ude00"]) + "]" * (DEPTH - 1)
    assert read_json(deep) == json.loads(deep)
    assert read_json('[-1, 2.5e3, "é"]') == [-1, 2500.0, "é"]


def test_a_document_that_is_no_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"is a folder, not a file .expected a record"):
        read_json_file(tmp_path, "a record")
    with pytest.raises(UsageError, match="does not exist"):
        read_json_file(tmp_path / "none", "a record")


def test_documents_keep_what_no_rule_speaks_of():
    rule = document({"a": whole(0, 9)}, {"b": text(3), "c": mapping(number(0, 1), 2)})
    assert rule({"a": 1, "b": "x", "z": [3]}) == {"a": 1, "b": "x", "z": [3]}
    for wrong, sentence in (
        ({}, "a is missing, expected a whole number from 0 to 9"),
        ([], "it is a list of 0, expected an object"),
        ({"a": 1, "b": 2}, "b is 2, expected text"),
        ({"a": 1, "c": {"x": 0.5, "y": 2}}, "c.y is 2, expected a number from 0 to 1"),
        ({"a": 1, "c": dict.fromkeys("xyz", 0)}, "c is an object of 3, expected an object of at most 2"),
        ({"a": 1, "c": {"x" * 301: 0}}, "a name in c is "),
    ):
        with pytest.raises(SchemaError, match=sentence):
            rule(wrong)


def test_a_record_without_a_rule_for_each_field_is_a_fault_of_the_program():
    with pytest.raises(TypeError, match="different fields"):
        record(Profile, min=whole(0, 1))


def test_names_of_fields_are_shown_without_their_control_characters():
    with pytest.raises(SchemaError, match=r"^a\\x1b\[0m.x is 3, expected a list of 1$"):
        mapping(mapping(sequence(text(1), 1, 1), 1), 1)({"a\x1b[0m": {"x": 3}})
