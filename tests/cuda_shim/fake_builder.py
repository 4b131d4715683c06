"""The classes of TensorRT that build a plan, as far as evodeploy calls them: what they build, `fake_tensorrt` runs."""

from __future__ import annotations

import enum
import json
import shutil
import uuid
from pathlib import Path
from types import ModuleType
from typing import Any

import fake_tensorrt
import onnxruntime


class Flag(enum.IntEnum):
    STRONGLY_TYPED = 0
    TF32 = 1


class Tensor:
    def __init__(self, spec: Any) -> None:
        self.is_shape_tensor = spec.name == "keep"
        self.name, self.dtype = spec.name, fake_tensorrt.DTYPES[spec.type]
        self.shape = tuple(size if isinstance(size, int) else -1 for size in spec.shape)


class Network:
    num_layers = 0

    def read(self, path: str) -> None:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.onnx, self.inputs = path, [Tensor(spec) for spec in session.get_inputs()]
        self.outputs = [Tensor(spec) for spec in session.get_outputs()]
        self.num_inputs, self.num_outputs = len(self.inputs), len(self.outputs)

    def get_input(self, index: int) -> Tensor:
        return self.inputs[index]

    def get_output(self, index: int) -> Tensor:
        return self.outputs[index]


class OnnxParser:
    def __init__(self, network: Network, logger: Any) -> None:
        self.network = network

    def parse_from_file(self, path: str) -> bool:
        self.network.read(path)
        return True


class Profile:
    keep: list[tuple[int, ...]] | None = None

    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        self.batches = [shape[0] for shape in shapes]

    def set_shape_input(self, name: str, *values: tuple[int, ...]) -> None:
        self.keep = [*values]


class Config:
    progress_monitor: Any = None

    def __init__(self) -> None:
        self.profiles: list[list[int]] = []
        self.keep: list[Any] = []  # of each profile

    def get_flag(self, flag: Flag) -> bool:
        return flag is Flag.TF32

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profiles.append(profile.batches)
        self.keep.append(profile.keep)
        return len(self.profiles) - 1


class Builder:
    folder = Path()  # where what a plan names is kept

    def __init__(self, logger: Any) -> None:
        pass

    def create_network(self, flags: int) -> Network:
        return Network()

    def create_builder_config(self) -> Config:
        return Config()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> bytes:
        kept = shutil.copy(network.onnx, self.folder / f"{uuid.uuid4()}.onnx")
        return json.dumps(
            {"onnx": kept, "profiles": config.profiles, "keep": config.keep if any(config.keep) else None}, default=str
        ).encode()


def add_builder(module: ModuleType) -> ModuleType:
    """`module`, a TensorRT of `fake_tensorrt`, able to build as well."""
    module.__dict__.update(
        Builder=Builder,
        OnnxParser=OnnxParser,
        NetworkDefinitionCreationFlag=Flag,
        BuilderFlag=Flag,
        LayerType=Flag,
        IProgressMonitor=object,
        nptype=lambda dtype: dtype,
    )
    return module
