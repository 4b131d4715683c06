"""gRPC's messages as requests and answers, without a server."""

from __future__ import annotations

import numpy as np
import pytest
from tritonclient.grpc.service_pb2 import InferParameter, ModelInferRequest, ModelInferResponse

from evodeploy.errors import InputError
from evodeploy.serving.messages import read, request_of, response_of
from evodeploy.specs import TensorSpec

SPECS = {
    "FP32": TensorSpec("images", "float32", (None, 1, 2, 2)),
    "FP16": TensorSpec("images", "float16", (None, 1, 2, 2)),
    "UINT8": TensorSpec("images", "uint8", (None, 2, 2, 1)),
}
OUTPUTS = ("logits", "selected_0")
IMAGES = np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2)
RAW = IMAGES.tobytes()


def asked(shape=(2, 1, 2, 2), name="images", datatype="FP32", raw=(RAW,), outputs=(), parameters=(), **more):
    message = ModelInferRequest(raw_input_contents=raw, **more)
    for parameter, fields in dict(parameters).items():
        message.parameters[parameter].CopyFrom(InferParameter(**fields))
    message.inputs.add(name=name, datatype=datatype, shape=shape)
    for output in outputs:
        message.outputs.add(name=output)
    return message


def typed(datatype="FP32", shape=(2, 1, 2, 2), **contents):
    message = asked(shape, datatype=datatype, raw=())
    for name, values in contents.items():
        getattr(message.inputs[0].contents, name).extend(values)
    return message


def with_parameter(of):
    message = asked(outputs=["logits"])
    getattr(message, of)[0].parameters["shared_memory_offset"].int64_param = 3
    return message


def test_data_are_raw_or_typed():
    request = request_of(read("ModelInferRequest", asked(id="seven").SerializeToString()), SPECS["FP32"], OUTPUTS)
    np.testing.assert_array_equal(request.images, IMAGES)
    assert (request.identity, request.outputs, request.binary) == ("seven", {}, True)
    request = request_of(typed(fp32_contents=IMAGES.ravel()), SPECS["FP32"], OUTPUTS)
    np.testing.assert_array_equal(request.images, IMAGES)
    assert (request.images.dtype, request.binary) == (np.float32, False)
    request = request_of(typed("UINT8", (1, 2, 2, 1), uint_contents=[0, 255, 3, 4]), SPECS["UINT8"], OUTPUTS)
    assert request.images.ravel().tolist() == [0, 255, 3, 4]
    half = IMAGES.astype(np.float16)
    request = request_of(asked(datatype="FP16", raw=[half.tobytes()]), SPECS["FP16"], OUTPUTS)
    np.testing.assert_array_equal(request.images, half)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (ModelInferRequest(), "has 0 inputs, expected one, 'images'"),
        (ModelInferRequest(inputs=[{}] * 100), "has 100 inputs, expected one"),
        (asked(outputs=["logits"] * 3), "asks for 3 outputs: there are 2"),
        (asked(outputs=["none"]), "there is no output 'none'"),
        (asked(raw=[RAW] * 2), "the data of input 'images' are given more than once"),
        (asked(raw=[RAW[:-1]]), "has 31 bytes and states 31, expected 32"),
        (asked(raw=[b""]), "has 0 bytes and states 0, expected 32"),
        (asked(raw=()), "has 0 bytes and states 0, expected 32"),
        (asked(name="pictures"), "is 'pictures' FP32, expected 'images' FP32"),
        (asked(datatype="FP64"), "is 'images' FP64, expected 'images' FP32"),
        (asked((2**31 - 1, 1, 2, 2)), "has 32 bytes and states 32, expected 34359738352"),
        (asked((2**62, 1, 2, 2)), "has the shape"),
        (asked((-2, 1, 2, 2)), "has the shape"),
        (asked((0, 1, 2, 2)), "has the shape"),
        (asked([1] * 100_000), "has the shape"),
        (asked(()), r"has the shape \[\]"),
        (asked(raw=[np.float32([0] * 7 + [np.nan]).tobytes()]), "are not finite in FP32"),
        (typed(fp32_contents=[1, 2]), "has 8 bytes and states 8, expected 32"),
        (typed(fp32_contents=[np.inf] * 8), "are not finite in FP32"),
        (typed(int_contents=range(8)), "has 0 bytes"),
        (asked(id="x" * 201), "expected text of up to 200 characters"),
        (asked(parameters={"keep_ratio": {"double_param": 1.5}}), "'keep_ratio' is 1.5, expected a number above 0"),
        (asked(parameters={"keep_ratio": {"bool_param": True}}), "'keep_ratio' is true, expected a number above 0"),
        (asked(parameters={"least_keep_ratio": {"string_param": "1"}}), "'least_keep_ratio' is \"1\", expected"),
        (asked(parameters={"keep_ration": {"double_param": 0.5}}), "parameter of a request 'keep_ration' is not known"),
        (with_parameter("inputs"), "parameter of an input 'shared_memory_offset' is not known"),
        (with_parameter("outputs"), "parameter of an output 'shared_memory_offset' is not known"),
    ],
)
def test_what_is_no_request_is_refused_in_a_sentence(message, words):
    with pytest.raises(InputError, match=words):
        request_of(message, SPECS["FP32"], OUTPUTS)


def test_data_that_are_there_twice_or_have_no_field_or_range_are_refused():
    twice = typed(fp32_contents=IMAGES.ravel())
    twice.raw_input_contents.append(RAW)
    with pytest.raises(InputError, match="are given more than once"):
        request_of(twice, SPECS["FP32"], OUTPUTS)
    with pytest.raises(InputError, match="FP16, which has no typed contents: send raw_input_contents"):
        request_of(typed("FP16", fp32_contents=range(8)), SPECS["FP16"], OUTPUTS)
    with pytest.raises(InputError, match="are not numbers in the range of UINT8"):
        request_of(typed("UINT8", (1, 2, 2, 1), uint_contents=[0, 256, 3, 4]), SPECS["UINT8"], OUTPUTS)
    with pytest.raises(InputError, match="the bytes are not a valid ModelReadyRequest"):
        read("ModelReadyRequest", b"\xff")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"\x2a\x00" * (8 << 20), "has more than 10000 fields"),  # inputs
        (b"\x3a\x00" * (8 << 20), "has more than 10000 fields"),  # raw_input_contents
        (b"\x2a\x80\x80\x80\x08" + b"\x22\x00" * (8 << 20), "has more than 10000 fields"),  # parameters of an input
        (b"\x2a\x05\x2a\x03\x42\x00" + b"\x42", "not a valid ModelInferRequest"),  # cut off
        (b"\x2a" + b"\x80" * (16 << 20), "not a valid ModelInferRequest"),  # a size without an end
        (b"\x0b\x0c", "not a valid ModelInferRequest"),  # a group
        (b"\x0f", "not a valid ModelInferRequest"),  # a type that there is not
        (b"\x0a\x02\xff\xff", "not a valid ModelInferRequest"),  # a name that is no text
    ],
)
def test_small_messages_do_not_become_large_ones(body, words):
    with pytest.raises(InputError, match=words):
        read("ModelInferRequest", body)


def test_fields_of_every_encoding_are_read():
    message = asked(parameters={"keep_ratio": {"double_param": 0.5}, "x": {"int64_param": -1}}, id="a" * 200)
    unknown = b"\xfd\x7f" + bytes(4) + b"\xf8\x7f\x96\x01"  # of a later version of the protocol
    assert read("ModelInferRequest", message.SerializeToString() + unknown).inputs == message.inputs


def test_parameters_without_a_value_count_as_none():
    request = request_of(asked(parameters={"keep_ratio": {}}), SPECS["FP32"], OUTPUTS)
    assert request.keep_ratio is None


def test_an_answer_of_half_floats_is_raw():
    outputs = {"logits": np.float16([[0.5, 1.5]]), "selected_0": np.int64([[3, 1]])}
    request = request_of(typed(fp32_contents=IMAGES.ravel()), SPECS["FP32"], OUTPUTS)
    answer = ModelInferResponse.FromString(response_of("m", "1", request, outputs, "0.5"))
    assert [(each.datatype, list(each.shape)) for each in answer.outputs] == [("FP16", [1, 2]), ("INT64", [1, 2])]
    assert np.frombuffer(answer.raw_output_contents[0], "<f2").tolist() == [0.5, 1.5]
    assert np.frombuffer(answer.raw_output_contents[1], "<i8").tolist() == [3, 1]
