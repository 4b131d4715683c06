"""Arrays of other libraries, read as NumPy arrays."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from evodeploy.errors import InputError
from evodeploy.text import reason

Array = NDArray[Any]


@runtime_checkable
class DLPack(Protocol):
    """A tensor of PyTorch, CuPy, JAX or a similar library, which NumPy reads without a copy."""

    def __dlpack__(self, **options: Any) -> Any: ...

    def __dlpack_device__(self) -> Any: ...


def as_array(value: Array | DLPack) -> Array:
    """Return `value` as a NumPy array that shares its memory. Anything that is not a tensor is returned unchanged.

    Raises InputError if a tensor is not in host memory, needs gradients, or has a type that NumPy lacks.
    """
    if isinstance(value, np.ndarray) or not isinstance(value, DLPack):
        return value
    try:
        array: Array = np.from_dlpack(value)
    except Exception as error:  # each library raises different types
        raise InputError(
            f"NumPy cannot read this {type(value).__name__} ({reason(error)}): expected a tensor in host memory, "
            "detached, of a type that NumPy has"
        ) from error
    return array
