"""Checkpoints of any names, shapes, types and training arguments: a network, or an error of ours in one clean line."""

from __future__ import annotations

import argparse
import functools
import json
import struct
import warnings

import torch
from cases import SMALL
from fuzz.hunt import JSON, WORDS, clean, effort, hunt, nearly, nearly_bytes
from hypothesis import strategies as st
from levit_cases import small as small_levit
from levit_cases import weights
from vit_sources import SOURCES, filled

from evodeploy.errors import EvodeployError
from evodeploy.models.checkpoint import load_checkpoint
from evodeploy.models.layouts import to_published
from evodeploy.models.random_weights import random_model

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.complex64]
ARGS = {
    "model": "evo_deit_test", "num_heads": 2, "selection": "stage", "keep_ratio": [0.5, 0.5], "class_names": ["x"] * 10,
    "stages": [2, 4], "pooling": "mean", "norm_eps": 1e-6, "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 0.9,
    "interpolation": "bicubic", "crop_mode": "center", "input_size": 64, "eval_crop_ratio": 0.9,
    "model_kwargs": {"num_heads": 2}, "gp": "token",
}  # fmt: skip
HEADER = {
    "head.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
    "head.bias": {"dtype": "F16", "shape": [2], "data_offsets": [16, 20]},
    "__metadata__": {"format": "pt"},
}


@functools.cache
def state(family):
    if family == "Evo-DeiT":
        return to_published(SMALL, random_model(SMALL, seed=3).module.state_dict())
    return weights(small_levit()) if family == "Evo-LeViT" else dict(filled(SOURCES[family]()).state_dict())


EDITS = st.tuples(
    st.integers(0, 500), st.sampled_from(["remove", "rename", "reshape", "retype", "add", "view"]),
    WORDS | st.integers(-1, 10**9).map(str), st.lists(st.integers(0, 12), max_size=4), st.sampled_from(DTYPES),
)  # fmt: skip


def edited(family, edits):
    """A family's tensors with some of them removed, renamed, reshaped, of another type or added."""
    changed = dict(state(family))
    for number, action, word, shape, dtype in edits:
        name = sorted(changed)[number % len(changed)]
        if action == "remove" and len(changed) > 1:
            del changed[name]
        elif action == "rename":
            parts = name.split(".")
            parts[number % len(parts)] = word
            changed[".".join(parts)] = changed.pop(name)
        elif action == "retype":
            changed[name] = changed[name].to(dtype)
        elif action == "add":
            changed[word if number % 2 else f"module.{name}"] = torch.zeros(2)
        else:
            changed[name] = torch.zeros(shape) if action == "reshape" else torch.ones(()).expand([9 * n for n in shape])
    return changed


def load(path, **options):
    try:
        loaded = load_checkpoint(path, **options)
    except EvodeployError as error:
        assert clean(str(error), 4000)
    else:
        assert all(parameter.dtype == torch.float32 for parameter in loaded.module.parameters())
        loaded.info.to_json().encode()


@effort
def test_states_and_training_arguments(tmp_path, seconds):
    path = tmp_path / "x.pth"

    def check(case):
        family, edits, args, image_size = case
        tensors = edited(family, edits)
        content = {"model": tensors, "args": argparse.Namespace(**args)} if args is not None else tensors
        torch.save(content, path)
        load(path, image_size=image_size)

    arguments = st.none() | st.just(ARGS) | nearly(ARGS)
    families = st.sampled_from(["Evo-DeiT", "Evo-LeViT", *SOURCES])
    sizes = st.none() | st.sampled_from([32, 48, 56])
    hunt(st.tuples(families, st.lists(EDITS, max_size=3), arguments, sizes), check, seconds)


@effort
def test_bytes_of_a_checkpoint(tmp_path, seconds):
    path = tmp_path / "x.pth"
    torch.save({"model": {"head.weight": torch.ones(4, 4)}, "args": argparse.Namespace(**ARGS)}, path)
    new = path.read_bytes()
    torch.save({"head.weight": torch.ones(4, 4)}, path, _use_new_zipfile_serialization=False)
    old = path.read_bytes()

    def check(data):
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load(path)

    hunt(nearly_bytes(new) | nearly_bytes(old) | st.binary(max_size=200), check, seconds)


@effort
def test_safetensors(tmp_path, seconds):
    path = tmp_path / "x.safetensors"

    def check(data):
        path.write_bytes(data)
        load(path)

    def packed(header):
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + bytes(20)

    hunt((nearly(HEADER) | JSON).map(packed) | nearly_bytes(packed(HEADER)) | st.binary(), check, seconds)
