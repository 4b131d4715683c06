"""The state of the NVIDIA driver on this machine, read without any TensorRT runtime.

Without a driver TensorRT's own runtime may end the process, so this is checked first.
"""

from __future__ import annotations

import ctypes
import sys

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE, also if CUDA_VISIBLE_DEVICES hides all GPUs


def driver_problem() -> str | None:
    """Return why CUDA does not work on this machine, in a few words, or None if it works."""
    try:
        cuda = ctypes.CDLL(_LIBRARY)
    except OSError:
        return f"no NVIDIA driver is installed ({_LIBRARY} not found)"
    status = cuda.cuInit(0)
    if status not in (0, _NO_DEVICE):
        return f"the NVIDIA driver does not start (cuInit error {status})"
    count = ctypes.c_int()
    status = cuda.cuDeviceGetCount(ctypes.byref(count))
    return None if status == 0 and count.value else "the NVIDIA driver sees no GPU"


def architecture(index: int = 0) -> str:
    """Return the architecture of GPU `index`, such as sm89; empty if there is none. Call `driver_problem` first."""
    cuda, device, part = ctypes.CDLL(_LIBRARY), ctypes.c_int(), ctypes.c_int()
    if cuda.cuDeviceGet(ctypes.byref(device), index) != 0:
        return ""
    parts = []
    for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
        cuda.cuDeviceGetAttribute(ctypes.byref(part), attribute, device)
        parts.append(str(part.value))
    return "sm" + "".join(parts)


def gpu_name() -> str:
    """Return the name of the first GPU, such as NVIDIA L4; empty without a GPU. Call `driver_problem` first."""
    cuda, device, name = ctypes.CDLL(_LIBRARY), ctypes.c_int(), ctypes.create_string_buffer(256)
    if cuda.cuDeviceGet(ctypes.byref(device), 0) != 0:
        return ""
    return name.value.decode() if cuda.cuDeviceGetName(name, len(name), device) == 0 else ""
