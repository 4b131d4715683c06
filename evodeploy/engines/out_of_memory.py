"""Whether an exception of a runtime means that memory ran out: each runtime has its own type and words."""

from __future__ import annotations

# Found in the messages of these runtimes, in lower case.
_PHRASES = (
    "out of memory",  # CUDA's own name of its error, passed on by all
    "bad_alloc",  # the C++ library's, passed on by ONNX Runtime and OpenVINO
    "can't allocate memory",  # PyTorch on Linux
    "not enough memory",  # PyTorch on Windows
    "failed to allocate",  # ONNX Runtime and OpenVINO
    "smaller than requested bytes",  # ONNX Runtime with a memory limit
    "_status_alloc_failed",  # cuBLAS and cuDNN
    "outofmemory",  # TensorRT
    "could not be allocated",  # TensorRT
)


def means_out_of_memory(error: Exception) -> bool:
    """Whether `error` says that memory ran out: by its type (MemoryError, torch.OutOfMemoryError), or by its words."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return says_out_of_memory(str(error))


def says_out_of_memory(message: str) -> bool:
    """Return whether a runtime's `message` says that memory ran out."""
    text = message.lower()
    return any(phrase in text for phrase in _PHRASES)
