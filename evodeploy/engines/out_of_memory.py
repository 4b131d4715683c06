"""Recognition of out-of-memory errors: each runtime has its own exception types and messages."""

from __future__ import annotations

# Phrases in the messages of the runtimes, in lower case.
_PHRASES = (
    "out of memory",  # the name of the CUDA error, which all runtimes pass on
    "bad_alloc",  # the C++ library's error, which ONNX Runtime and OpenVINO pass on
    "can't allocate memory",  # PyTorch on Linux
    "not enough memory",  # PyTorch on Windows
    "failed to allocate",  # ONNX Runtime and OpenVINO
    "smaller than requested bytes",  # ONNX Runtime with a memory limit
    "_status_alloc_failed",  # cuBLAS and cuDNN
    "outofmemory",  # TensorRT
    "could not be allocated",  # TensorRT
)


def means_out_of_memory(error: Exception) -> bool:
    """Return whether `error` means out of memory, by its type (MemoryError, torch.OutOfMemoryError) or its message."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return says_out_of_memory(str(error))


def says_out_of_memory(message: str) -> bool:
    """Return whether the `message` of a runtime says that memory ran out."""
    text = message.lower()
    return any(phrase in text for phrase in _PHRASES)
