"""Whether a value is what a TypedDict of an official package says, and nothing more. Pydantic lets more keys pass."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import NoneType
from typing import Annotated, Any, Literal, Required, Union, get_args, get_origin

from typing_extensions import get_type_hints, is_typeddict


def mismatch(value: object, kind: Any, place: str = "") -> str | None:
    """Give the first place at which a value differs from its type, or None where it fits."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Annotated, Required}:
        return mismatch(value, arguments[0], place)
    if origin is Union:
        found = [mismatch(value, argument, place) for argument in arguments]
        return None if None in found else max(filter(None, found), key=len)
    if is_typeddict(kind):
        return _mismatch_of_fields(value, kind, place)
    if arguments and isinstance(value, list):
        found = [mismatch(item, arguments[0], f"{place}[{index}]") for index, item in enumerate(value)]
        return next(filter(None, found), None)
    return None if _is_plain(value, kind) else f"{place}: {value!r} is no {kind}"


def _mismatch_of_fields(value: object, kind: Any, place: str) -> str | None:
    if not isinstance(value, dict):
        return f"{place}: is no object"
    hints = _hints(kind)
    if unknown := value.keys() - hints.keys():
        return f"{place}: has {unknown}"
    required = {name for name, hint in hints.items() if get_origin(hint) is Required}
    if missing := required - value.keys():
        return f"{place}: lacks {missing}"
    found = [mismatch(value[name], hints[name], f"{place}.{name}") for name in value]
    return next(filter(None, found), None)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """Give the types of the fields; these packages mark what is required, and leave out the rest."""
    return get_type_hints(kind, include_extras=True)


def _is_plain(value: object, kind: Any) -> bool:
    origin = get_origin(kind)
    if origin is Literal:
        return value in get_args(kind)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, dict)
    if kind is float:
        return type(value) in {int, float}
    return kind is object or (kind in {str, int, bool, NoneType} and type(value) is kind)
