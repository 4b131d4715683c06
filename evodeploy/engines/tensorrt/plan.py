"""A plan on a GPU: deserialized, its profiles known, ready to make execution contexts."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

from evodeploy.engines.out_of_memory import says_out_of_memory
from evodeploy.engines.tensorrt.cuda import Device
from evodeploy.engines.tensorrt.flavour import Flavour, shared_logger
from evodeploy.engines.tensorrt.once import once
from evodeploy.engines.tensorrt.sidecar import Profile
from evodeploy.errors import InputError, OutOfMemoryError, RuntimeFailedError
from evodeploy.text import one_line


class Plan:
    """What TensorRT made of a serialized plan; used and closed while its device is active."""

    def __init__(self, device: Device, data: bytes, flavour: Flavour, input_name: str, *, host_code: bool) -> None:
        """Deserialize `data`, which runs code in it; `host_code` admits the runtime that a portable plan carries.

        Raises RuntimeFailedError with TensorRT's reason.
        """
        self.device, self.flavour = device, flavour
        self._errors = _errors_of(flavour)
        self.config: Any = None
        self.kernels: Any = None  # the cache that `config` uses
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
        """The GPU memory that an execution context computes in, with the profile that needs the most."""
        return int(self._engine.device_memory_size_v2)

    def runtime_config(self) -> Any:
        """How contexts are made, in the flavour that can be told; kept as `config` it holds for the next ones."""
        return self._engine.create_runtime_config()

    def new_context(self, memory: int) -> Any:
        """An execution context that computes in `context_bytes` at the address `memory`.

        Contexts may have that memory in common as long as they compute one after the other. Raises RuntimeFailedError,
        OutOfMemoryError with TensorRT's reason.
        """
        self.listen()
        how = self.config or self.flavour.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        with self.device.quiet:
            context = self._engine.create_execution_context(how)
        if context is None:
            raise self.failure("makes no execution context")
        if memory:
            context.set_device_memory(memory, self.context_bytes)
        return context

    def listen(self) -> None:
        """Forget the errors that TensorRT logged in this thread: `failure` then knows those of what comes next."""
        self._errors.forget()

    def failure(self, what: str) -> RuntimeFailedError:
        """The error for a call that TensorRT answered with nothing but failure, with the reason it logged."""
        reason = self._errors.reason()
        kind = OutOfMemoryError if says_out_of_memory(reason) else RuntimeFailedError
        return kind(f"{self.flavour} {what}: {reason}")

    def close(self) -> None:
        """Free it, the last made first."""
        with self.device.quiet:
            self.config = None
            self.kernels = None
            self._engine = None
            self._runtime = None


def choose_profile(profiles: Sequence[Profile], batch: int) -> int:
    """Which of `profiles` runs `batch` images: the narrowest of those that do. Raises InputError where none does."""
    fitting = [index for index, profile in enumerate(profiles) if profile.min <= batch <= profile.max]
    if not fitting:
        ranges = ", ".join(f"{profile.min} to {profile.max}" for profile in profiles)
        raise InputError(f"no profile of the engine takes a batch of {batch} images: its profiles take {ranges}")
    return min(fitting, key=lambda index: profiles[index].max - profiles[index].min)


class _Errors:
    """TensorRT's latest errors with the threads they happened in, None for those that are not Python's."""

    def __init__(self) -> None:
        self._heard: deque[tuple[int | None, str]] = deque(maxlen=64)

    def __call__(self, severity: str, message: str) -> None:
        if severity in ("ERROR", "INTERNAL_ERROR"):
            here = threading.get_ident()
            ours = any(thread.ident == here for thread in threading.enumerate())
            self._heard.append((here if ours else None, message))

    def forget(self) -> list[str]:
        """The errors of this thread since the last time."""
        return self._taken(threading.get_ident())

    def reason(self) -> str:
        """The first error of this thread since it was last forgotten: what follow are its consequences.

        Where it has none, the first of the threads that TensorRT started for itself.
        """
        found = self.forget() or self._taken(None)
        return one_line(found[0] if found else "", "TensorRT gave no reason")

    def _taken(self, thread: int | None) -> list[str]:
        found = [entry for entry in list(self._heard) if entry[0] == thread]
        for entry in found:
            self._heard.remove(entry)
        return [message for _, message in found]


@once
def _errors_of(flavour: Flavour) -> _Errors:
    errors = _Errors()
    shared_logger(flavour)[1].usual = errors
    return errors
