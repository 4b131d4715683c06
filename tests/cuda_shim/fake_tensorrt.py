"""The few classes of TensorRT that run a plan, played by ONNX Runtime on the shim's memory.

A plan is a JSON text that names an ONNX file and its profiles. An enqueue notes shapes and addresses and puts a
function into the stream that computes them when the stream gets there, as a kernel would. Whatever real TensorRT
forbids is refused here too, or reported to the shim. `FakeTensorRt` is put into sys.modules under a flavour's name.
"""

from __future__ import annotations

import _thread
import ctypes
import enum
import itertools
import json
import shutil
import threading
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime

cuda = ctypes.CDLL("libcuda.so.1")
cuda.shim_translate.restype = ctypes.c_void_p
cuda.shim_translate.argtypes = (ctypes.c_size_t, ctypes.c_size_t)
cuda.shim_holds.argtypes = (ctypes.c_int, ctypes.c_size_t, ctypes.c_size_t)
cuda.shim_slow_launches.argtypes = (ctypes.c_double,)
cuda.cuLaunchHostFunc.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
DEVICE_MEMORY, HOST_MEMORY = range(2)  # kinds of the shim's
HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(float16)": np.float16}

marks = itertools.cycle(range(256))  # what a kernel leaves in the memory that it computes in
kept: list[Any] = []  # functions that a stream or a graph may still call


def report(misuse: str) -> None:
    cuda.shim_report(misuse.encode())


def needs_context(what: str) -> None:
    current = ctypes.c_void_p()
    cuda.cuCtxGetCurrent(ctypes.byref(current))
    if not current.value:
        report(f"{what} without a current context")


class CudaGraphStrategy(enum.Enum):
    DISABLED = 0
    WHOLE_GRAPH_CAPTURE = 1


class DynamicShapesKernelSpecializationStrategy(enum.Enum):
    LAZY = 0
    EAGER = 1
    NONE = 2


class ExecutionContextAllocationStrategy(enum.Enum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class Logger:
    def __init__(self) -> None:
        pass


class IProfiler:
    def report_layer_time(self, layer_name: str, ms: float) -> None:
        raise NotImplementedError


class Severity(enum.Enum):
    ERROR = 1


class RuntimeConfig:
    """Of TensorRT for RTX."""

    def __init__(self) -> None:
        self.cuda_graph_strategy = CudaGraphStrategy.DISABLED
        self.dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY
        self.cache: weakref.ref[RuntimeCache] | None = None
        self.allocation = ExecutionContextAllocationStrategy.STATIC

    def set_execution_context_allocation_strategy(self, strategy: ExecutionContextAllocationStrategy) -> None:
        self.allocation = strategy

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self.cache = weakref.ref(cache)  # the library may not own it
        return True


class RuntimeCache:
    """Holds the batch sizes whose kernels were finished."""

    def __init__(self) -> None:
        self.batches: set[int] = set()

    def deserialize(self, blob: bytes) -> bool:
        try:
            self.batches |= set(json.loads(blob))
        except ValueError:
            return False
        return True

    def serialize(self) -> bytes:
        return json.dumps(sorted(self.batches)).encode()


class Runtime:
    def __init__(self, logger: Any) -> None:
        needs_context("Runtime")
        self.logger = logger
        self.engine_host_code_allowed = False

    def __del__(self) -> None:
        needs_context("~IRuntime")

    def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
        try:
            return Engine(self, json.loads(data))
        except ValueError:
            self.logger.log(Severity.ERROR, "Serialization assertion failed.\nmore")
            return None


class SerializationFlag(enum.Enum):
    EXCLUDE_WEIGHTS = 0
    INCLUDE_REFIT = 2


class SerializationConfig:
    def __init__(self) -> None:
        self.flags = {"EXCLUDE_WEIGHTS"}  # as of a plan without weights

    def set_flag(self, flag: enum.Enum) -> bool:
        self.flags.add(flag.name)
        return True

    def clear_flag(self, flag: enum.Enum) -> bool:
        self.flags.discard(flag.name)
        return True


class Refitter:
    def __init__(self, engine: Engine, logger: Any) -> None:
        needs_context("Refitter")
        self.engine, self.logger = engine, logger
        self.onnx: str | None = None

    def get_missing_weights(self) -> list[str]:
        return [] if self.onnx else ["all"]

    def refit_cuda_engine(self) -> bool:
        self.engine.onnx = self.onnx
        return True


class ParserError:
    def desc(self) -> str:
        return "the weights 'w' have another shape"


class OnnxParserRefitter:
    fits = True

    def __init__(self, refitter: Refitter, logger: Any) -> None:
        self.refitter, self.num_errors = refitter, 0

    def refit_from_file(self, path: str) -> bool:
        if not self.fits:
            self.num_errors = 1
            return False
        self.refitter.onnx = shutil.copy(path, f"{self.refitter.engine.onnx}.refitted")
        return True

    def get_error(self, index: int) -> ParserError:
        return ParserError()


class Engine:
    fail_enqueue = 0  # counts down to an enqueue that fails
    fail_in_worker = False  # whether a thread of the library's own says why
    refuses_addresses = False
    capturable = True  # whether what it enqueues may be recorded
    enqueued = 0  # launches that were put into a stream
    captures = 0  # enqueues into a stream that was being recorded
    during_capture: Callable[[], None] | None = None  # called in such an enqueue
    during_launch: Callable[[], Any] | None = None  # called in an enqueue that is not recorded
    waits_for_gpu = False  # while an engine or a context is made
    device_memory_size_v2 = 4096
    context_bytes = 512  # what a context takes in any case
    compiled: ClassVar[list[int]] = []  # the batch sizes for which RTX compiled kernels, each time that it did
    fallbacks: ClassVar[list[int]] = []  # those that were computed with others meanwhile
    last_config: RuntimeConfig | None = None  # of the execution context made last

    def __init__(self, runtime: Runtime, plan: dict[str, Any]) -> None:
        self.runtime, self.profiles, self.onnx = runtime, plan["profiles"], plan["onnx"]
        self.keep = plan.get(
            "keep"
        )  # the least, best and most values of the shape tensor of that name, for each profile
        self.session = onnxruntime.InferenceSession(self.onnx, providers=["CPUExecutionProvider"])
        self.num_optimization_profiles = len(self.profiles)
        self.refittable = plan.get("refittable", True)
        if self.waits_for_gpu:
            cuda.cuCtxSynchronize()

    def __del__(self) -> None:
        needs_context("~ICudaEngine")

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        rest = tuple(self.session.get_inputs()[0].shape[1:])
        return [(batch, *rest) for batch in self.profiles[index]]

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig()

    def create_serialization_config(self) -> SerializationConfig:
        return SerializationConfig()

    def serialize_with_config(self, config: SerializationConfig) -> bytes | None:
        if "EXCLUDE_WEIGHTS" in config.flags:
            return None
        plan = {
            "onnx": self.onnx,
            "profiles": self.profiles,
            "keep": self.keep,
            "refittable": "INCLUDE_REFIT" in config.flags,
        }
        return json.dumps(plan).encode()

    def create_execution_context(
        self, how: RuntimeConfig | ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC
    ) -> ExecutionContext | None:
        needs_context("create_execution_context")
        config = Engine.last_config = how if isinstance(how, RuntimeConfig) else None
        strategy = how if config is None else config.allocation
        own = strategy is not ExecutionContextAllocationStrategy.USER_MANAGED
        memory = ctypes.c_size_t()
        size = self.context_bytes + (self.device_memory_size_v2 if own else 0)
        if cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(size)):
            self.runtime.logger.log(Severity.ERROR, "Requested amount of GPU memory could not be allocated.")
            return None
        return ExecutionContext(self, config, memory, memory.value + self.context_bytes if own else 0)


class ExecutionContext:
    def __init__(self, engine: Engine, config: RuntimeConfig | None, memory: ctypes.c_size_t, scratch: int) -> None:
        self.engine, self.config, self.memory, self.scratch = engine, config, memory, scratch
        self.addresses: dict[str, int] = {}
        self.kernels = RuntimeCache()  # where no cache was given
        self.active_optimization_profile = 0
        self.shape: tuple[int, ...] | None = None
        self.profiler: IProfiler | None = None
        self.state = 0  # changes with everything that a recorded graph would not notice

    def __del__(self) -> None:
        needs_context("~IExecutionContext")
        cuda.cuMemFree_v2(self.memory)

    def set_device_memory(self, memory: int, size: int) -> None:
        if size < self.engine.device_memory_size_v2 or memory % 256:
            report(f"set_device_memory of {size} bytes at {memory}")
        self.scratch = memory
        self.state += 1

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.active_optimization_profile, self.shape = index, None
        self.state += 1
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        if name == "keep" and cuda.shim_holds(DEVICE_MEMORY, address, 1):
            report("device memory is the address of the shape tensor 'keep', which is read on the host")
        self.addresses[name] = address
        self.state += 1
        return address % 256 == 0 and not Engine.refuses_addresses

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self.engine.profiles[self.active_optimization_profile]
        self.state += 1
        if not low <= shape[0] <= high:
            self.engine.runtime.logger.log(Severity.ERROR, f"batch {shape[0]} is outside the profile")
            return False
        self.shape = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Of an output, once the shape of the images and the address of `keep` are set."""
        session = self.engine.session
        images = np.zeros(self.shape, DTYPES[session.get_inputs()[0].type])
        (value,) = session.run([name], self._feeds(images, self._kept()))
        return value.shape

    def execute_async_v3(self, stream: int) -> bool:
        needs_context("execute_async_v3")
        Engine.fail_enqueue -= 1
        if Engine.fail_enqueue == 0 or self.shape is None:
            return self._fails("Error Code 1: Cuda Runtime (no kernel for you)")
        if self.engine.keep is not None and not self._keep_fits():
            return self._fails("Error Code 3: API Usage Error (the shape tensor 'keep' does not fit)")
        if recording(stream):
            Engine.captures += 1
            if not Engine.capturable and cuda.cuMemAlloc_v2(ctypes.byref(ctypes.c_size_t()), ctypes.c_size_t(8)):
                return self._fails("Error Code 1: Cuda Runtime (operation not permitted when stream is capturing)")
            if Engine.during_capture is not None:
                Engine.during_capture()
        elif Engine.during_launch is not None:
            Engine.during_launch()
        if self.config is not None:
            self._finish_kernels(self.config, self.shape[0])
        return self._start(stream)

    def _kept(self) -> np.ndarray | None:
        """The values of the shape tensor, as the host has them now; None where it has none."""
        address = self.addresses.get("keep")
        if self.engine.keep is None or address is None:
            return None
        stages = self.engine.session.get_inputs()[1].shape[0]
        return np.frombuffer((ctypes.c_int64 * stages).from_address(address), np.int64).copy()

    def _keep_fits(self) -> bool:
        values = self._kept()
        if values is None:
            report("a launch of a plan whose shape tensor 'keep' has no address")
            return False
        low, _, high = self.engine.keep[self.active_optimization_profile]
        if (values < low).any() or (values > high).any():
            report(f"a launch with 'keep' {values.tolist()}, outside the profile's {low} to {high}")
            return False
        return True

    def _unchanged(self, kept: np.ndarray | None) -> bool:
        """Whether the shape tensor has the values that were enqueued, in memory that is still there."""
        if kept is None:
            return True
        held = cuda.shim_holds(HOST_MEMORY, self.addresses["keep"], kept.nbytes)
        return bool(held) and bool((self._kept() == kept).all())

    @staticmethod
    def _feeds(images: np.ndarray, kept: np.ndarray | None) -> dict[str, np.ndarray]:
        return {"images": images} if kept is None else {"images": images, "keep": kept}

    def _start(self, stream: int) -> bool:
        """Put the computing of the batch into `stream`."""
        function = HOST_FUNCTION(self._kernel(self.shape, dict(self.addresses), self.state))
        kept.append(function)
        Engine.enqueued += 1
        if cuda.cuLaunchHostFunc(stream, ctypes.cast(function, ctypes.c_void_p), None):
            return self._fails("Error Code 1: Cuda Runtime (operation failed due to a previous error during capture)")
        if self.profiler is not None:
            self._report_layers(self.profiler, stream)
        return True

    def _report_layers(self, profiler: IProfiler, stream: int) -> None:
        """Wait for what was enqueued, as TensorRT does for its profiler, and report one layer of each two nodes."""
        if recording(stream):
            report("a launch was recorded while a profiler is attached")
            return
        cuda.cuStreamSynchronize(ctypes.c_void_p(stream))
        names = [node.name or node.op_type for node in onnx.load(self.engine.onnx).graph.node]
        for index in range(0, len(names), 2):
            profiler.report_layer_time(" + ".join(names[index : index + 2]), 0.5 + index)

    def _finish_kernels(self, config: RuntimeConfig, batch: int) -> None:
        cache = self.kernels if config.cache is None else config.cache()
        if cache is None:
            report("the runtime cache is gone, and a context uses it")
        elif batch not in cache.batches:
            if config.dynamic_shapes_kernel_specialization_strategy is DynamicShapesKernelSpecializationStrategy.LAZY:
                Engine.fallbacks.append(batch)  # while the others are compiled
            Engine.compiled.append(batch)
            cache.batches.add(batch)

    def _fails(self, reason: str) -> bool:
        if not Engine.fail_in_worker:
            self.engine.runtime.logger.log(Severity.ERROR, reason)
            return False
        said = threading.Event()

        def work() -> None:
            self.engine.runtime.logger.log(Severity.ERROR, reason)
            said.set()

        _thread.start_new_thread(work, ())  # which Python's threading does not know, as those of a C++ library
        said.wait()
        return False

    def _kernel(self, shape: tuple[int, ...], addresses: dict[str, int], state: int) -> Callable[[object], None]:
        session, scratch, size = self.engine.session, self.scratch, self.engine.device_memory_size_v2
        kept = self._kept()
        now = weakref.ref(self)

        def compute(_: object) -> None:
            context = now()
            if context is None or context.state != state:
                report("work was launched whose execution context is gone or has changed since")
                return
            if not context._unchanged(kept):
                report("the shape tensor 'keep' was changed or freed before the launch that it is of was done")
                return
            activations = on_device(scratch, (size,), np.uint8)
            if activations is None:
                return
            mark = next(marks)
            activations[:] = mark
            source = session.get_inputs()[0]
            images = on_device(addresses[source.name], shape, DTYPES[source.type])
            if images is None:
                return
            values = session.run(None, context._feeds(images, kept))
            if (activations != mark).any():
                report("two execution contexts computed in the same memory at a time")
            for spec, value in zip(session.get_outputs(), values, strict=True):
                target = on_device(addresses[spec.name], value.shape, DTYPES[spec.type])
                if target is not None:
                    target[...] = value

        return compute


def recording(stream: int) -> bool:
    status = ctypes.c_int()
    cuda.cuStreamIsCapturing(ctypes.c_void_p(stream), ctypes.byref(status))
    return status.value != 0


def on_device(address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray | None:
    """Device memory as an array; None, and a line in the shim's report, where it is too small or not there."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    where = cuda.shim_translate(address, size)
    if not where:
        return None
    return np.frombuffer((ctypes.c_char * size).from_address(where), dtype).reshape(shape)


def as_module(name: str, version: str) -> ModuleType:
    """A module that replaces the TensorRT called `name`."""
    module = ModuleType(name)
    module.__dict__.update(
        __version__=version,
        ILogger=Logger,
        IProfiler=IProfiler,
        Runtime=Runtime,
        CudaGraphStrategy=CudaGraphStrategy,
        DynamicShapesKernelSpecializationStrategy=DynamicShapesKernelSpecializationStrategy,
        ExecutionContextAllocationStrategy=ExecutionContextAllocationStrategy,
        Engine=Engine,
        Refitter=Refitter,
        OnnxParserRefitter=OnnxParserRefitter,
        SerializationFlag=SerializationFlag,
    )
    return module
