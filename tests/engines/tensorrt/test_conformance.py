"""Every name of TensorRT that the code uses, looked up in real bindings of each major; trt_bindings/README.md."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tensorrt_rtx
from trt_bindings.lookup import lacks
from trt_bindings.stubs import importable_bindings

import evodeploy
from evodeploy.locks import locked

LOOKUP = Path(__file__).parents[2] / "trt_bindings" / "lookup.py"
PACKAGE = Path(evodeploy.__file__).parent
ROOMS = [PACKAGE / "engines/tensorrt", PACKAGE / "builder"]
# Their modules, and each other that reaches the module of TensorRT, as flavour.trt.
FOUND = [path for path in PACKAGE.rglob("[!_]*.py") if path.parent in ROOMS or re.search(r"\.trt\b", path.read_text())]
SOURCES = {path.name: path for path in FOUND}

# What the code calls TensorRT's objects, by file, and their classes; "" is the module.
RECEIVERS = {
    "onnx_to_plan.py": {
        "trt": "", "trt.BuilderFlag": "BuilderFlag", "trt.LayerType": "LayerType", "builder": "Builder",
        "network": "INetworkDefinition",
        "parser": "OnnxParser", "e": "ParserError", "config": "IBuilderConfig", "layer": "ILayer",
        "layer.attention": "IAttention", "optimization": "IOptimizationProfile", "tensor": "ITensor",
        "network.get_input(1)": "ITensor",
    },
    "options.py": {
        "flavour.trt": "", "flavour.trt.MemoryPoolType": "MemoryPoolType", "flags": "BuilderFlag",
        "config": "IBuilderConfig",
    },
    "timing_cache.py": {"config": "IBuilderConfig", "merged": "ITimingCache", "cache": "ITimingCache"},
    "refit.py": {
        "trt": "", "runtime": "Runtime", "engine": "ICudaEngine", "refitter": "Refitter",
        "parser": "OnnxParserRefitter", "config": "ISerializationConfig",
        "result": "ICudaEngine", "parser.get_error(index)": "ParserError",
    },
    "flavour.py": {
        "self.trt": "", "builder": "Builder",
        "self.trt.NetworkDefinitionCreationFlag": "NetworkDefinitionCreationFlag",
    },
    "refusal.py": {"trt": "", "parser": "OnnxParser", "each": "ParserError", "builder": "Builder"},
    "log.py": {"flavour.trt": ""},
    "plan.py": {
        "flavour.trt": "", "self.flavour.trt": "", "self._runtime": "Runtime", "self._engine": "ICudaEngine",
        "self.flavour.trt.ExecutionContextAllocationStrategy": "ExecutionContextAllocationStrategy",
        "context": "IExecutionContext",
    },
    "execution.py": {"self._context": "IExecutionContext"},
    "rtx.py": {
        "config": "IRuntimeConfig", "kernels": "IRuntimeCache", "trt": "",
        "trt.CudaGraphStrategy": "CudaGraphStrategy",
        "trt.ExecutionContextAllocationStrategy": "ExecutionContextAllocationStrategy",
        "trt.DynamicShapesKernelSpecializationStrategy": "DynamicShapesKernelSpecializationStrategy",
    },
}  # fmt: skip
# Members that objects of ours or of Python's have too: met elsewhere than on a receiver above, they are those.
SHARED_NAMES = {
    "DEBUG", "WARNING", "append", "clear", "count", "ctypes", "data", "dtype", "engine", "log", "max", "min", "name",
    "nbytes", "opt", "pop", "query", "refittable", "release", "remove", "shape", "start", "unload", "value", "write",
}  # fmt: skip
# Reached through a string, or through an object whose class the code changes.
BY_NAME = {
    "options.py": [
        ("HardwareCompatibilityLevel", "AMPERE_PLUS"), ("HardwareCompatibilityLevel", "SAME_COMPUTE_CAPABILITY"),
    ],
    "onnx_to_plan.py": [("IAttentionInputLayer", "attention")],
    "plan.py": [("IProfiler", "report_layer_time")],
}  # fmt: skip
SHARED_FILES = [file for file in RECEIVERS if file != "rtx.py"]
NO_TARGETS = {"no IBuilderConfig.num_compute_capabilities", "no IBuilderConfig.set_compute_capability"}
NO_ATTENTION = {"no IAttentionInputLayer", "no IAttention"}
NO_BUILDER = {"no Builder", "no NetworkDefinitionCreationFlag"}
NO_RUNTIME_CONFIG = {"no ICudaEngine.create_runtime_config"}

# What a version lacks of what these files use, which the code finds out before: no version builds for named targets
# but RTX, none else has its runtime config from the start, 10.13 has no attention operator, and the lean runtime builds
# nothing.
VERSIONS = [
    (
        "tensorrt_cu12_bindings==10.9.0.34",
        "tensorrt_bindings",
        SHARED_FILES,
        NO_TARGETS | NO_ATTENTION | NO_RUNTIME_CONFIG,
    ),
    ("tensorrt_cu12_bindings==10.13.3.9", "tensorrt_bindings", SHARED_FILES, NO_TARGETS | NO_ATTENTION),
    ("tensorrt_cu13_bindings==11.4.0.106", "tensorrt_bindings", SHARED_FILES, NO_TARGETS),
    (
        "tensorrt_lean_cu13_bindings==11.4.0.106",
        "tensorrt_lean_bindings",
        ["plan.py", "execution.py", "flavour.py", "log.py"],
        NO_BUILDER,
    ),
]
# The classes of cuda_shim/fake_tensorrt.py and those that they replace.
FAKES = {
    "Runtime": "Runtime", "Engine": "ICudaEngine", "ExecutionContext": "IExecutionContext", "Logger": "ILogger",
    "ExecutionContextAllocationStrategy": "ExecutionContextAllocationStrategy",
    "DynamicShapesKernelSpecializationStrategy": "DynamicShapesKernelSpecializationStrategy",
    "RuntimeConfig": "IRuntimeConfig", "RuntimeCache": "IRuntimeCache", "CudaGraphStrategy": "CudaGraphStrategy",
    "IProfiler": "IProfiler",
    "Refitter": "Refitter", "OnnxParserRefitter": "OnnxParserRefitter", "SerializationConfig": "ISerializationConfig",
    "SerializationFlag": "SerializationFlag",
}  # fmt: skip


def uses(files):
    """[class, member, positional arguments or None, keywords] of every use in `files`."""
    found = []
    for file in files:
        tree = ast.parse(SOURCES[file].read_text())
        calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
        found += [[kind, member, None, []] for kind, member in BY_NAME.get(file, ())]
        for node in ast.walk(tree):
            kind = RECEIVERS[file].get(ast.unparse(node.value)) if isinstance(node, ast.Attribute) else None
            if kind is None or node.attr.startswith("__") or [kind, node.attr] == ["ILayer", "attention"]:
                continue
            call = calls.get(id(node))
            starred = call is None or any(isinstance(argument, ast.Starred) for argument in call.args)
            keywords = [word.arg for word in call.keywords] if call else []
            found.append([kind, node.attr, None if starred else len(call.args), keywords])
    return found


def test_the_tables_leave_nothing_out():
    """Whatever looks like a use of TensorRT is one, or a name that others have too; each receiver is met."""
    assert len(SOURCES) == len(FOUND)  # names are unique
    members = set(dir(tensorrt_rtx)).union(*map(dir, filter(inspect.isclass, vars(tensorrt_rtx).values())))
    met = set()
    for path in SOURCES.values():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Attribute) or node.attr not in members or node.attr.startswith("__"):
                continue
            receiver = ast.unparse(node.value)
            if receiver in RECEIVERS.get(path.name, {}):
                met.add((path.name, receiver))
            else:
                assert node.attr in SHARED_NAMES, f"{path.name}:{node.lineno} uses {ast.unparse(node)}: whose is it?"
    assert met == {(file, receiver) for file, receivers in RECEIVERS.items() for receiver in receivers}


def test_every_use_is_possible_in_rtx():
    assert [problem for use in uses(RECEIVERS) if (problem := lacks(tensorrt_rtx, *use))] == []


@pytest.mark.parametrize(("wheel", "module", "files", "known"), VERSIONS, ids=[version[0] for version in VERSIONS])
def test_every_use_is_possible_in(pytestconfig, wheel, module, files, known):
    if shutil.which("cc") is None:
        pytest.skip("here is no C compiler for the libraries that the bindings load")
    kept = pytestconfig.cache.mkdir("trt-bindings")
    with locked(kept / "lock", wait=True):  # tests run in two processes
        folder, libraries = importable_bindings(wheel, kept)
    environment = {**os.environ, "PYTHONPATH": str(folder), "LD_LIBRARY_PATH": str(libraries)}
    command = [sys.executable, str(LOOKUP), module]
    done = subprocess.run(command, env=environment, input=json.dumps(uses(files)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["version"].startswith(wheel.split("==")[1])
    assert set(answer["lacks"]) == known


def test_lookup_names_what_is_missing():
    assert lacks(tensorrt_rtx, "", "Builder", 1, []) == ""
    assert lacks(tensorrt_rtx, "", "Bilder", 1, []) == "no Bilder"
    assert lacks(tensorrt_rtx, "Bilder", "x", None, []) == "no Bilder"
    assert lacks(tensorrt_rtx, "Builder", "create_netwerk", 1, []) == "no Builder.create_netwerk"
    assert "takes" in lacks(tensorrt_rtx, "Builder", "build_serialized_network", 1, [])
    assert "takes" in lacks(tensorrt_rtx, "IBuilderConfig", "set_timing_cache", 1, ["ignore_mismatches"])
    assert lacks(tensorrt_rtx, "IBuilderConfig", "set_timing_cache", 1, ["ignore_mismatch"]) == ""


def test_the_fake_has_nothing_that_tensorrt_has_not():
    tree = ast.parse((LOOKUP.parents[1] / "cuda_shim" / "fake_tensorrt.py").read_text())
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef) and node.name in FAKES}
    assert classes.keys() == FAKES.keys()
    for name, node in classes.items():
        real = getattr(tensorrt_rtx, FAKES[name])
        for part in node.body:
            if isinstance(part, ast.FunctionDef) and not part.name.startswith("_"):
                assert hasattr(real, part.name), f"{name}.{part.name}"
