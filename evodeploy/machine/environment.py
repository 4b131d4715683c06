"""The machine and the software versions of a measurement."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

from evodeploy.machine.cores import usable_cores
from evodeploy.machine.cpu import caches, clock_mhz, cpu_flags, governor, memory_bytes, processor_name
from evodeploy.machine.nvml import Gpu, gpus

_PACKAGES = (
    "evodeploy", "numpy", "torch", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "pycuda", "cuda-bindings",
    *(f"{name}{cuda}" for name in ("tensorrt", "tensorrt-lean", "tensorrt-rtx") for cuda in ("", "-cu12", "-cu13")),
)  # fmt: skip
_FLAGS = {
    "avx2", "fma", "avx512f", "avx512_bf16", "avx512_fp16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8",
    "asimd", "asimdhp", "asimddp", "sve", "bf16", "i8mm",
}  # fmt: skip
_VARIABLES = (
    "OMP_",
    "MKL_",
    "KMP_",
    "GOMP_",
    "OPENBLAS_",
    "ONEDNN_",
    "DNNL_",
    "ORT_",
    "OV_",
    "TORCH",
    "CUDA_",
    "NVIDIA_TF32_",  # not all of NVIDIA's: NVIDIA_API_KEY is a secret
    "NVIDIA_VISIBLE_",
)


@dataclass(frozen=True)
class Environment:
    """The machine and the versions. `threads` is the number of CPU threads that every engine was given.

    `flags` are the instruction sets of the CPU that affect matrix products. `mhz` and `governor` are the system's
    values for the clock, or None. `caches` are sizes by level. `variables` are the environment variables about threads
    or devices. `commit` is that of evodeploy, if it runs from a repository, with a + if files were changed.
    """

    processor: str
    cores: int
    threads: int
    flags: tuple[str, ...]
    caches: dict[str, str]
    mhz: float | None
    governor: str | None
    memory_bytes: int | None
    gpus: tuple[Gpu, ...]
    system: str
    python: str
    packages: dict[str, str]
    commit: str | None
    variables: dict[str, str]
    started: str


def environment(threads: int) -> Environment:
    """Read the environment from this machine."""
    return Environment(
        processor=processor_name(),
        cores=usable_cores(),
        threads=threads,
        flags=tuple(sorted(_FLAGS & cpu_flags())),
        caches=caches(),
        mhz=clock_mhz(),
        governor=governor(),
        memory_bytes=memory_bytes(),
        gpus=gpus(),
        system=platform.platform(),
        python=platform.python_version(),
        packages=package_versions(_PACKAGES),
        commit=_commit(),
        variables={name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)},
        started=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )


def package_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of those of `names` that are installed."""
    installed = {}
    for name in names:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def _commit() -> str | None:
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(root)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
