from __future__ import annotations

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from evodeploy.repository.pbtxt import Word, to_text


def test_the_library_reads_back_what_was_written():
    awkward = 'a "quoted" \\ back\nslash\tß 🐈 \x012'
    text = to_text(
        {
            "name": awkward,
            "max_batch_size": 8,
            "input": [{"name": "a", "data_type": Word("TYPE_FP16"), "dims": [3, -1]}, {"name": "b"}],
            "dynamic_batching": {"preserve_ordering": True},
        }
    )
    config = text_format.Parse(text, ModelConfig())
    assert config.name == awkward
    assert config.max_batch_size == 8
    assert [tensor.name for tensor in config.input] == ["a", "b"]
    assert list(config.input[0].dims) == [3, -1]
    assert config.input[0].data_type == ModelConfig.DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_name[
        "TYPE_FP16"
    ].number  # fmt: skip
    assert config.dynamic_batching.preserve_ordering


def test_what_utf_8_cannot_say_and_what_ends_a_line_elsewhere_is_escaped():
    text = to_text({"name": "a\x85b\u2028c\ud800\x7f"})
    assert text.isascii()
    assert text.count("\n") == 1
    assert text_format.Parse(text, ModelConfig()).name == "a\x85b\u2028c\\ud800\x7f"
