from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest

from evodeploy.errors import InputError
from evodeploy.serving import protocol
from evodeploy.serving.protocol import make_response, parse_request, tensor_metadata
from evodeploy.specs import TensorSpec

FLOATS = TensorSpec("images", "float32", (None, 1, 2, 2))
BYTES = TensorSpec("images", "uint8", (None, 2, 2, 3))
OUTPUTS = ("logits", "selected_0")
IMAGES = np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2)


def tensor(**changes):
    return {"name": "images", "datatype": "FP32", "shape": [2, 1, 2, 2], "data": IMAGES.ravel().tolist()} | changes


def body(*inputs, **more):
    return json.dumps({"inputs": list(inputs)} | more).encode()


def test_tensors_in_json_nested_or_flat():
    for data in (IMAGES.ravel().tolist(), IMAGES.tolist()):
        request = parse_request(body(tensor(data=data), id="seven"), None, FLOATS, OUTPUTS)
        np.testing.assert_array_equal(request.images, IMAGES)
        assert request.images.dtype == np.float32
        assert (request.identity, request.outputs, request.binary) == ("seven", {}, False)


def test_tensors_in_binary():
    given = tensor(parameters={"binary_data_size": 32})
    del given["data"]
    head = body(given, outputs=[{"name": "logits", "parameters": {"binary_data": True}}, {"name": "selected_0"}])
    request = parse_request(head + IMAGES.tobytes(), str(len(head)), FLOATS, OUTPUTS)
    np.testing.assert_array_equal(request.images, IMAGES)
    assert request.outputs == {"logits": True, "selected_0": False}
    whole = parse_request(body(tensor(), parameters={"binary_data_output": True}), None, FLOATS, OUTPUTS)
    assert whole.binary


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "is of type list, expected a JSON object"),
        (b"{}", "'inputs' must be a list of one tensor"),
        (body(tensor(), tensor()), "'inputs' must be a list of one tensor"),
        (body(tensor(name="pictures")), "is 'pictures' FP32, expected 'images' FP32"),
        (body(tensor(datatype="FP64")), "expected 'images' FP32"),
        (body(tensor(shape=[2, 1, 2])), r"has the shape \[2, 1, 2\], expected \[-1, 1, 2, 2\]"),
        (body(tensor(shape=[2, 1, 2, 3])), "has the shape"),
        (body(tensor(shape=[-2, 1, 2, 2])), "has the shape"),
        (body(tensor(shape=[0, 1, 2, 2])), "has the shape"),
        (body(tensor(shape=[True, 1, 2, 2])), "has the shape"),
        (body(tensor(shape=[1e300, 1, 2, 2])), "has the shape"),
        (body(tensor(shape="2122")), "has the shape"),
        (body(tensor(shape=[10**4000, 1, 2, 2])), "has the shape"),
        (body(tensor(data=[1, 2])), "has 2 numbers, expected 8"),
        (body(tensor(data=["a"] * 8)), "are not numbers"),
        (body(tensor(data=[[1], [2, 3]])), "are not numbers"),
        (body(tensor(data=["1"] * 8)), "are not numbers"),
        (body(tensor(data=[1.5] * 7 + ["1"])), "are not numbers"),
        (body(tensor(data=[True] * 8)), "are not numbers"),
        (body(tensor(data=[10**400] * 8)), "are not numbers in the range of float32"),
        (body(tensor(data=None)), "has 1 numbers|are not numbers"),
        (body(tensor(parameters=3)), "'parameters' must be an object"),
        (body(tensor(parameters={"binary_data_size": 32})), "has 0 bytes and states 32, expected 32"),
        (body(tensor(parameters={"binary_data_size": "x" * 99})), "has 0 bytes and states xxx"),
        (body(tensor(), outputs=[{"name": "none"}]), "there is no output 'none': expected some of logits, selected_0"),
        (body(tensor(), outputs={}), "'outputs' must be a list"),
        (body(tensor(), outputs=[None]), "there is no output ''"),
        (body(tensor(), parameters=[1]), "'parameters' must be an object"),
        (body(tensor(), parameters={"binary_data_output": 1}), "'binary_data_output' is 1, expected true or false"),
        (
            body(tensor(), outputs=[{"name": "logits", "parameters": {"binary_data": "yes"}}]),
            "'binary_data' is \"yes\", expected true or false",
        ),
        (body(tensor(), id=[1]), r"'id' is \[1\], expected text of up to 200 characters"),
        (body(tensor(), id="x" * 201), "'id' is \"xxx.*…, expected text of up to 200"),
        (body(tensor(data=[None] * 8)), "are not numbers"),
        (body(tensor(data=[10**30, None] * 4)), "are not numbers"),
        (body(tensor(data={"a": 1})), "are not numbers"),
        (body(tensor(name=3)), "is '' FP32, expected 'images' FP32"),
        (body(tensor(shape=[2**62, 1, 2, 2])), "has the shape"),
        (body(tensor(parameters={"binary_data_size": 1.5})), "has 0 bytes and states 1.5"),
        (body(tensor(), outputs=["logits"]), "there is no output ''"),
        (body(tensor(), outputs=[{"name": "logits", "parameters": {"classification": 3}}]), "classification"),
        (
            body(tensor(), parameters={"keep_ration": 0.5}),
            "parameter of a request 'keep_ration' is not known: expected keep_ratio, least_keep_ratio, binary_data_out",
        ),
        (
            body(tensor(parameters={"content_type": "np"})),
            "parameter of an input 'content_type' is not known: expected bin",
        ),
        (
            body(tensor(), outputs=[{"name": "logits", "parameters": {"shared_memory_region": "x"}}]),
            "parameter of an output 'shared_memory_region' is not known: expected binary_data, classification",
        ),
    ],
)
def test_what_is_no_request_is_refused_in_a_sentence(given, message):
    with pytest.raises(InputError, match=message):
        parse_request(given, None, FLOATS, OUTPUTS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (tensor(), "has 32 bytes and states None, expected 32"),
        (tensor(parameters={"binary_data_size": 32}), "the data of input 'images' are given more than once"),
    ],
)
def test_data_that_are_there_twice_are_refused(given, message):
    head = body(given)
    with pytest.raises(InputError, match=message):
        parse_request(head + IMAGES.tobytes(), str(len(head)), FLOATS, OUTPUTS)


def test_more_lists_than_data_need_are_refused_unread(monkeypatch):
    monkeypatch.setattr(protocol, "MOST_LISTS", 20)
    assert parse_request(body(tensor(data=IMAGES.tolist())), None, FLOATS, OUTPUTS).images.shape == IMAGES.shape
    binary = tensor(parameters={"binary_data_size": 32})
    del binary["data"]
    head = body(binary)
    assert parse_request(head + b"[" * 32, str(len(head)), FLOATS, OUTPUTS)
    for many in ([[]] * 20, [{}] * 20):
        with pytest.raises(InputError, match="more than 20 lists and objects: send flat data, or bytes"):
            parse_request(body(tensor(data=many)), None, FLOATS, OUTPUTS)


def test_texts_in_place_of_numbers_take_no_more_memory_than_they_have():
    """NumPy would give each of them the length of the longest."""
    given = body(tensor(data=["x" * 1000, *[""] * 20_000]))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="are not numbers"):
            parse_request(given, None, FLOATS, OUTPUTS)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000  # bytes; 80 million as an array of text
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("length", ["-1", "x", "9999", "²", "9" * 5000])
def test_a_length_that_is_none_is_refused(length):
    with pytest.raises(InputError, match="expected a number of bytes of the body"):
        parse_request(body(tensor()), length, FLOATS, OUTPUTS)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e39])
def test_numbers_that_are_not_finite_are_refused(value):
    with pytest.raises(InputError, match="'images' are not finite in FP32"):
        parse_request(body(tensor(data=[0] * 7 + [value])), None, FLOATS, OUTPUTS)
    data = np.float32([0] * 7 + [np.inf]).tobytes()
    given = tensor(parameters={"binary_data_size": len(data)})
    del given["data"]
    head = body(given)
    with pytest.raises(InputError, match="'images' are not finite in FP32"):
        parse_request(head + data, str(len(head)), FLOATS, OUTPUTS)


@pytest.mark.parametrize("value", [-1, 256, 0.5, float("nan")])
def test_bytes_are_whole_numbers_of_a_byte(value):
    given = {"name": "images", "datatype": "UINT8", "shape": [1, 2, 2, 3], "data": [7] * 11 + [value]}
    with pytest.raises(InputError, match="whole numbers from 0 to 255"):
        parse_request(body(given), None, BYTES, OUTPUTS)


def test_answers_in_json_and_in_binary():
    outputs = {"logits": np.float32([[0.5, 1.5]]), "selected_0": np.int64([[3, 1]])}
    answer, length = make_response("m", parse_request(body(tensor(), id="a"), None, FLOATS, OUTPUTS), outputs, "0.5")
    assert length is None
    assert json.loads(answer) == {
        "model_name": "m", "id": "a",
        "outputs": [
            {"name": "logits", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 1.5]},
            {"name": "selected_0", "datatype": "INT64", "shape": [1, 2], "data": [3, 1]},
        ],
        "parameters": {"keep_ratio": "0.5"},
    }  # fmt: skip
    wanted = [{"name": "selected_0", "parameters": {"binary_data": True}}]
    answer, length = make_response(
        "m", parse_request(body(tensor(), outputs=wanted), None, FLOATS, OUTPUTS), outputs, "0.5"
    )
    head = json.loads(answer[:length])
    assert head["outputs"] == [
        {"name": "selected_0", "datatype": "INT64", "shape": [1, 2], "parameters": {"binary_data_size": 16}}
    ]
    assert np.frombuffer(answer[length:], "<i8").tolist() == [3, 1]


def test_the_batch_is_dynamic():
    assert tensor_metadata(FLOATS) == {"name": "images", "datatype": "FP32", "shape": [-1, 1, 2, 2]}
