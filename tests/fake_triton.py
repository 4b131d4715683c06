"""As much of Triton as an ensemble needs: its Python module, and steps that run one after the other.

Configurations are read by Triton's own schema. What a model gets and gives is held against its configuration, as
Triton does. ONNX files are run by evodeploy.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig
from tritonclient.utils import triton_to_np_dtype

from evodeploy.engines.opener import open_engine


class TritonError(Exception):
    """An error of a response."""

    INTERNAL, INVALID_ARG = "INTERNAL", "INVALID_ARG"

    def __init__(self, message: str, code: str = INTERNAL) -> None:
        super().__init__(message)
        self.code = code


class Tensor:
    """A named array."""

    def __init__(self, name: str, array: np.ndarray) -> None:
        assert isinstance(array, np.ndarray) and array.dtype.kind != "U"
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> np.ndarray:
        return self._array


@dataclass
class InferenceRequest:
    """A request's tensors."""

    tensors: list[Tensor]

    def inputs(self) -> list[Tensor]:
        return self.tensors


@dataclass
class InferenceResponse:
    """Tensors or an error."""

    output_tensors: Iterable[Tensor] = ()
    error: TritonError | None = None


def get_input_tensor_by_name(request: InferenceRequest, name: str) -> Tensor | None:
    return next((each for each in request.inputs() if each.name() == name), None)


class Repository:
    """The models below `folder`, which Python and ONNX Runtime run here."""

    TYPES: ClassVar = {number: DataType.Name(number).removeprefix("TYPE_") for number in DataType.values()}

    def __init__(self, folder: Path) -> None:
        self._folder, self._python = folder, {}

    def config(self, name: str) -> ModelConfig:
        return text_format.Parse((self._folder / name / "config.pbtxt").read_text(), ModelConfig())

    def version(self, name: str) -> str:
        """The latest, which is what Triton serves by default."""
        return str(max(int(path.name) for path in (self._folder / name).iterdir() if path.name.isdigit()))

    def infer(self, name: str, **given: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs of one request; raises TritonError."""
        (answer,) = self.infer_each(name, [given])
        if isinstance(answer, TritonError):
            raise answer
        return answer

    def infer_each(self, name: str, requests: list[Mapping[str, np.ndarray]]) -> list[Any]:
        """The outputs of each request, which a model of Python gets together, or its error."""
        config = self.config(name)
        for given in requests:
            self._check(config, config.input, given)
        if config.platform == "ensemble":
            answers = [self._ensemble(config, given) for given in requests]
        elif config.backend == "python":
            answers = self._run_python(config, requests)
        else:
            answers = [self._run_onnx(config, given) for given in requests]
        for answer in answers:
            if not isinstance(answer, TritonError):
                self._check(config, config.output, answer)
        return answers

    def _ensemble(self, config: ModelConfig, given: Mapping[str, np.ndarray]) -> Any:
        tensors = dict(given)
        for step in config.ensemble_scheduling.step:
            assert step.model_version == -1
            inputs = {own: tensors[name] for own, name in step.input_map.items() if name in tensors}
            try:
                outputs = self.infer(step.model_name, **inputs)
            except TritonError as error:
                return error
            tensors |= {name: outputs[own] for own, name in step.output_map.items()}
        return {each.name: tensors[each.name] for each in config.output}

    def _run_onnx(self, config: ModelConfig, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        (path,) = (self._folder / config.name / self.version(config.name)).glob("*.onnx")
        with open_engine(path, "onnxruntime") as engine:
            return engine.run(given["images"], given["keep"].tolist() if "keep" in given else None)

    def _run_python(self, config: ModelConfig, requests: list[Mapping[str, np.ndarray]]) -> list[Any]:
        if config.name not in self._python:
            self._python[config.name] = self._loaded(config)
        tensors = [[Tensor(*item) for item in given.items()] for given in requests]
        responses = self._python[config.name].execute([InferenceRequest(each) for each in tensors])
        assert len(responses) == len(requests)
        return [each.error or {t.name(): t.as_numpy() for t in each.output_tensors} for each in responses]

    def _loaded(self, config: ModelConfig) -> Any:
        version = self.version(config.name)
        spec = importlib.util.spec_from_file_location("model", self._folder / config.name / version / "model.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model = module.TritonPythonModel()
        described = json_format.MessageToJson(config, preserving_proto_field_name=True)
        place = str(self._folder / config.name)
        model.initialize({"model_config": described, "model_repository": place, "model_version": version})
        return model

    def close(self) -> None:
        for model in self._python.values():
            if hasattr(model, "finalize"):
                model.finalize()

    def _check(self, config: ModelConfig, described: Iterable[Any], tensors: Mapping[str, np.ndarray]) -> None:
        """Each tensor has the type and the shape of its description; only optional ones are missing."""
        known = {each.name: each for each in described}
        assert tensors.keys() <= known.keys(), (config.name, tensors.keys())
        for name, each in known.items():
            if name not in tensors:
                assert each.optional, (config.name, name)
                continue
            array, dims = tensors[name], list(each.dims)
            assert array.dtype == triton_to_np_dtype(self._kind(each.data_type)), (config.name, name, array.dtype)
            shape = list(array.shape)
            if config.max_batch_size:
                assert 1 <= shape.pop(0) <= config.max_batch_size, (config.name, name, array.shape)
            fits = len(shape) == len(dims) and all(b in (-1, a) for a, b in zip(shape, dims, strict=True))
            assert fits, (config.name, name, array.shape, dims)

    def _kind(self, number: int) -> str:
        kind = self.TYPES[number]
        return "BYTES" if kind == "STRING" else kind
