"""Type checks of the arguments of public functions, against their annotations."""

from __future__ import annotations

import builtins
import functools
import inspect
import numbers
import os
import types
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from evodeploy.errors import UsageError
from evodeploy.text import brief

P = ParamSpec("P")
R = TypeVar("R")

_PATH = os.PathLike[str]
_KINDS: dict[Any, tuple[type, str]] = {
    bool: (bool, "True or False"),
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a number"),
    str: (str, "a string"),
    _PATH: (os.PathLike, "a path"),
    types.NoneType: (types.NoneType, "None"),
}


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Make `function` raise UsageError for an argument whose type its annotation does not name.

    Numbers of other libraries, such as NumPy's, become Python numbers. Types that are not known here, such as images
    and torch modules, are left to the function.
    """
    signature, hints = inspect.signature(function), _hints(function)

    @functools.wraps(function)
    def checking(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            check_type(name, value, hints[name])
            bound.arguments[name] = _plain(value)
        return function(*bound.args, **bound.kwargs)

    return checking


def check_type(name: str, value: object, hint: Any) -> None:
    """Raise UsageError if the `value` of the argument `name` has none of the types in `hint`."""
    if not _fits(value, hint):
        raise UsageError(f"{name} is {brief(repr(value))}, expected {_in_words(hint)}")


def _plain(value: Any) -> Any:
    """Return `value` with Python's own numbers, also inside a list or a tuple."""
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    if isinstance(value, bool | int | float) or not isinstance(value, numbers.Real):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def check_names(what: str, asked: Sequence[str], known: Collection[str]) -> None:
    """Raise UsageError if one of the names `asked` for is not `known`; `what` is the kind of thing they name."""
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise UsageError(f"no {what} is called '{unknown[0]}': expected some of {', '.join(known)}")


class _Names(dict[str, Any]):
    """The names of a module. A name that is text, or that only type checkers import, means any type."""

    def __missing__(self, name: str) -> Any:
        return types.SimpleNamespace(Module=Any) if name == "nn" else Any


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of `function`, by argument name."""
    known = {**vars(builtins), **getattr(function, "__globals__", {})}
    names = _Names({name: value for name, value in known.items() if not isinstance(value, str)})
    return {name: eval(hint, {}, names) for name, hint in function.__annotations__.items()}


def _fits(value: object, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if origin is Literal:
        return any(type(value) is type(each) and value == each for each in inner)
    if origin is Callable:
        return callable(value)
    if origin in (Sequence, tuple):
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            return False
        kinds = inner if origin is tuple and inner[-1] is not ... else inner[:1] * len(value)
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    if hint in _KINDS:
        return isinstance(value, _KINDS[hint][0]) and (hint is bool or not isinstance(value, bool))
    if isinstance(hint, type) and hint.__module__.startswith("evodeploy."):
        return isinstance(value, hint)
    return True


def _in_words(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_in_words(each) for each in inner if each is not types.NoneType)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}" if inner[1:] else str(inner[0])
    if origin is Callable:
        return "a function"
    if origin is Sequence or inner[1:] == (...,):
        return f"a list, each {_in_words(inner[0])}"
    if origin is tuple:
        return f"({', '.join(map(_in_words, inner))})"
    return _KINDS[hint][1] if hint in _KINDS else getattr(hint, "__name__", str(hint))


def several_names(names: str | Sequence[str]) -> Sequence[str]:
    """Return one name or several as a sequence."""
    return (names,) if isinstance(names, str) else names
