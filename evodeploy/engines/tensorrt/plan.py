"""A plan on a GPU: deserialized, with known profiles, ready to make execution contexts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from evodeploy.engines.out_of_memory import says_out_of_memory
from evodeploy.engines.tensorrt.cuda import Device
from evodeploy.engines.tensorrt.flavour import Flavour
from evodeploy.engines.tensorrt.log import engine_errors, shared_logger
from evodeploy.engines.tensorrt.sidecar import Profile
from evodeploy.errors import InputError, OutOfMemoryError, RuntimeFailedError


class Plan:
    """A deserialized plan. Use and close it while its device is active."""

    def __init__(self, device: Device, data: bytes, flavour: Flavour, input_name: str, *, host_code: bool) -> None:
        """Deserialize `data`, which runs code in it. `host_code` allows the runtime that a portable plan contains.

        Raises RuntimeFailedError with TensorRT's reason.
        """
        self.device, self.flavour = device, flavour
        self._errors = engine_errors(flavour)
        self.config: Any = None
        self.kernels: Any = None  # the cache that `config` uses
        self._profiler: Any = None
        with device.quiet:
            self._runtime = flavour.trt.Runtime(shared_logger(flavour)[0])
            if host_code:
                self._runtime.engine_host_code_allowed = True
            self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise self.failure("cannot load the plan")
        self.profiles = tuple(
            Profile(*(int(shape[0]) for shape in self._engine.get_tensor_profile_shape(input_name, index)))
            for index in range(self._engine.num_optimization_profiles)
        )

    @property
    def context_bytes(self) -> int:
        """The GPU memory in bytes that an execution context needs to compute, with the largest profile."""
        return int(self._engine.device_memory_size_v2)

    def watch(self, report: Callable[[str, float], None]) -> None:
        """Call `report` with the name and the milliseconds of each layer that contexts made from now on compute.

        A launch then waits for its end, and cannot be recorded.
        """
        base: Any = self.flavour.trt.IProfiler

        class Profiler(base):  # type: ignore[misc]
            def __init__(self) -> None:
                base.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                report(layer_name, ms)

        self._profiler = Profiler()

    def runtime_config(self) -> Any:
        """Return settings for making contexts, in the flavour that has them. Assign them to `config` to apply them."""
        return self._engine.create_runtime_config()

    def new_context(self, memory: int) -> Any:
        """Return an execution context that computes in `context_bytes` at the address `memory`.

        Contexts may share that memory if they compute one after the other. Raises RuntimeFailedError or
        OutOfMemoryError with TensorRT's reason.
        """
        self.listen()
        how = self.config or self.flavour.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        with self.device.quiet:
            context = self._engine.create_execution_context(how)
        if context is None:
            raise self.failure("makes no execution context")
        if self._profiler is not None:
            context.profiler = self._profiler
        if memory:
            context.set_device_memory(memory, self.context_bytes)
        return context

    def listen(self) -> None:
        """Forget the errors that TensorRT logged in this thread, so that `failure` reports only later ones."""
        self._errors.forget()

    def failure(self, what: str) -> RuntimeFailedError:
        """Return the error for a call that TensorRT reported as failed, with the reason that it logged."""
        reason = self._errors.reason()
        kind = OutOfMemoryError if says_out_of_memory(reason) else RuntimeFailedError
        return kind(f"{self.flavour} {what}: {reason}")

    def close(self) -> None:
        """Free everything, in reverse order of creation."""
        with self.device.quiet:
            self.config = None
            self.kernels = None
            self._engine = None
            self._runtime = None


def choose_profile(profiles: Sequence[Profile], batch: int) -> int:
    """Return the index of the narrowest of `profiles` that takes `batch` images. Raises InputError if none does."""
    fitting = [index for index, profile in enumerate(profiles) if profile.min <= batch <= profile.max]
    if not fitting:
        ranges = ", ".join(f"{profile.min} to {profile.max}" for profile in profiles)
        raise InputError(f"no profile of the engine takes a batch of {batch} images: its profiles take {ranges}")
    return min(fitting, key=lambda index: profiles[index].max - profiles[index].min)
