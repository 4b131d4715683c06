"""Malicious or unusual checkpoints: refused with the tensor's name, in one sentence, before they use memory."""

from __future__ import annotations

import argparse
import json
import logging
import os
import struct
import warnings
import zipfile

import pytest
import torch

from evodeploy.errors import BadFileError, UsageError
from evodeploy.models.checkpoint import load_checkpoint
from evodeploy.models.checkpoint_file import read_checkpoint

ARGS = argparse.Namespace(model="evo_deit_test", num_heads=2)


@pytest.fixture
def saved(tmp_path, small_state):
    """A function that writes the small network with some tensors or training arguments replaced."""

    def write(tensors=None, **changes):
        content = {"model": small_state | (tensors or {}), "args": argparse.Namespace(**vars(ARGS) | changes)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # quantized tensors are deprecated
            torch.save(content, tmp_path / "x.pth")
        return tmp_path / "x.pth"

    return write


def quantized():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(10), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        (
            lambda: torch.ones(10, dtype=torch.int64),
            "'head.bias' is int64, expected floating numbers: save FP32 weights",
        ),
        (lambda: torch.ones(10, dtype=torch.bool), "'head.bias' is bool"),
        (lambda: torch.ones(10, dtype=torch.uint8), "'head.bias' is uint8"),
        (lambda: torch.ones(10, dtype=torch.complex64), "'head.bias' is complex64"),
        (quantized, "'head.bias' is quantized"),
        (lambda: torch.ones(10).to_sparse(), "'head.bias' is sparse"),
        (lambda: torch.nested.nested_tensor([torch.ones(4), torch.ones(6)]), "'head.bias' is nested"),
        (lambda: torch.ones(10, device="meta"), r"'head.bias' is without data \(meta\)"),
        (lambda: torch.ones(1).expand(96_000_000_000), "'head.bias' claims 384000000000 bytes and holds 4"),
        (lambda: torch.ones(11).as_strided((10,), (1,)).expand(500, 10), "'head.bias' claims 20000 bytes and holds 44"),
    ],
)
def test_only_plain_floating_tensors_of_their_own_size_are_weights(saved, tensor, sentence):
    with pytest.raises(BadFileError, match=rf"x.pth: the tensor {sentence}"):
        load_checkpoint(saved({"head.bias": tensor()}))


def test_many_names_of_one_storage_are_refused_before_they_are_copied(tmp_path):
    numbers = torch.zeros(1000, dtype=torch.float16)
    torch.save({f"x{i}": numbers for i in range(5)}, tmp_path / "x.pth")
    with pytest.raises(BadFileError, match="5 tensors claim 10000 bytes of 2000 in the file"):
        read_checkpoint(tmp_path / "x.pth")


def test_tied_weights_are_read(tmp_path):
    numbers = torch.ones(1000)
    torch.save({"one": numbers, "two": numbers, "part": numbers[:10]}, tmp_path / "x.pth")
    assert list(read_checkpoint(tmp_path / "x.pth").state) == ["one", "two", "part"]


def test_fp64_weights_become_fp32_with_a_warning(saved, small_state, caplog):
    path = saved({name: tensor.double() for name, tensor in small_state.items()})
    with caplog.at_level(logging.WARNING, "evodeploy"):
        loaded = load_checkpoint(path)
    assert {parameter.dtype for parameter in loaded.module.parameters()} == {torch.float32}
    assert f"{len(small_state)} tensors are FP64" in caplog.text


def test_half_precision_becomes_fp32_without_a_warning(saved, small_state, caplog):
    load_checkpoint(saved({name: tensor.bfloat16() for name, tensor in small_state.items()}))
    assert caplog.text == ""


def test_a_name_with_a_prefix_and_without_is_refused(saved, small_state):
    with pytest.raises(BadFileError, match="holds 'module.head.bias' twice, with a prefix and without"):
        load_checkpoint(saved({"module.head.bias": small_state["head.bias"]}))


def test_names_of_tensors_are_shown_printable_and_short(saved):
    with pytest.raises(BadFileError, match="1 unexpected") as raised:
        load_checkpoint(saved({"x\x1b[2J\n" + "y" * 9999: torch.ones(1)}))
    assert str(raised.value).isprintable() and len(str(raised.value)) < 900
    with pytest.raises(BadFileError, match=r"'x\\x1b\[2J' is int64"):
        load_checkpoint(saved({"x\x1b[2J": torch.ones(1, dtype=torch.int64)}))


def repacked(path, compression=zipfile.ZIP_STORED, change=lambda name, data: data):
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, change(name, data))
    return path


def test_an_archive_that_unpacks_to_more_than_its_size_is_refused_before_it_is_read(tmp_path):
    torch.save({"x": torch.zeros(2_000_000)}, tmp_path / "x.pth")
    path = repacked(tmp_path / "x.pth", zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(
        BadFileError, match=r"damaged .*\(80\d{5} bytes packed into \d{4,5}, expected an archive as torch"
    ):
        load_checkpoint(path)


def test_one_flipped_bit_of_a_weight_is_noticed(saved, small_state):
    path = saved()
    data = bytearray(path.read_bytes())
    data[data.index(small_state["head.weight"].numpy().tobytes()) + 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadFileError, match=r"damaged .*the checksum of 'x/data/\d+' in it is wrong"):
        load_checkpoint(path)


def test_checksums_may_be_left_out_of_a_whole_archive_not_of_a_part(small_checkpoint, small_state, tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"model": small_state}, tmp_path / "x.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_checkpoint(tmp_path / "x.pth").state.keys() == small_state.keys()
    data = bytearray(small_checkpoint.read_bytes())
    start = data.rindex(b"PK\x01\x02") + 16
    data[start : start + 4] = bytes(4)
    (tmp_path / "y.pth").write_bytes(data)
    with pytest.raises(BadFileError, match="damaged .*the checksum of '.*' in it is wrong"):
        load_checkpoint(tmp_path / "y.pth")
    whole = (tmp_path / "x.pth").read_bytes()
    (tmp_path / "z.pth").write_bytes(whole[:-100])
    with pytest.raises(BadFileError, match="damaged"):
        load_checkpoint(tmp_path / "z.pth")


def test_a_storage_that_claims_more_than_its_entry_is_refused(tmp_path):
    torch.save({"x": torch.zeros(1000)}, tmp_path / "x.pth")

    def grown(name, data):
        return data.replace(b"M\xe8\x03", b"J" + struct.pack("<i", 10**9)) if name.endswith(".pkl") else data

    with pytest.raises(BadFileError, match="damaged"):
        load_checkpoint(repacked(tmp_path / "x.pth", change=grown))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": "x" * 301}, "model is .*, expected text of 0 to 300 characters"),
        ({"class_names": ["x" * 301] * 10}, r"class_names\[0\] is"),
        ({"class_names": ["\ud800"] * 10}, "surrogates not allowed"),
        ({"keep_ratio": [0.5] * 2, "stages": [4, 2]}, "stages"),
    ],
)
def test_the_settings_of_a_run_must_satisfy_the_rules_of_artefacts(saved, changes, sentence):
    with pytest.raises((BadFileError, UsageError), match=sentence):
        load_checkpoint(saved(**changes))


@pytest.mark.parametrize("name", ["a\nb.pth", "a\x1b[2J.pth", os.fsdecode(b"latin-\xe9.pth"), "x" * 240 + ".pth"])
def test_a_file_of_any_name_loads_and_its_metadata_can_be_written(saved, name):
    path = saved()
    path = path.rename(path.with_name(name))
    info = load_checkpoint(path).info
    assert info.source.isprintable()
    info.to_json().encode()


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    for name in ("x.pth", "x.safetensors"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(UsageError, match="is a pipe, not a file"):
            load_checkpoint(tmp_path / name)


def header(tensors, length=None):
    text = json.dumps(tensors).encode() if not isinstance(tensors, bytes) else tensors
    return struct.pack("<Q", len(text) if length is None else length) + text


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (header({}, 2**63), "not a readable safetensors file"),
        (header({}, 10**9), "not a readable safetensors file"),
        (header(b"[" * 100_000), "not a readable safetensors file"),
        (header({"x": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}), "not a readable"),
        (header({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}), "not a readable"),
        (header({"x": {"dtype": "BOOL", "shape": [4], "data_offsets": [0, 4]}}) + bytes(4), "'x' is bool"),
        (header({"x": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}) + bytes(8), "'x' is int64"),
        (header({"x\x1b[2J\n": {"dtype": "F\x1b", "shape": [1], "data_offsets": [0, 4]}}) + bytes(4), "not a readable"),
    ],
)
def test_safetensors_of_other_kinds_are_refused(tmp_path, data, sentence):
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(BadFileError, match=sentence) as raised:
        load_checkpoint(tmp_path / "x.safetensors")
    assert str(raised.value).isprintable()
