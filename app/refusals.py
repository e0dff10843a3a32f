"""OpenAI's words for what pydantic finds wrong with a request. The contract's own rules say theirs in the service.

Texts and codes as the live service sends them. Only the first problem of a request is told, as there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from batchord.errors import InvalidRequestError

MALFORMED: Final = (
    "We could not parse the JSON body of your request. "
    "The API expects a JSON payload, but what was sent was not valid JSON."
)
_UNSUPPORTED: Final = (
    "Unsupported content type: '{sent}'. This API method only accepts 'application/json' requests, but you specified "
    "the header 'Content-Type: {sent}'. Please try again with a supported content type."
)
_SHOWN_CHARACTERS: Final = 200
_TYPES: Final = {
    "string": "a string",
    "int": "an integer",
    "float": "a number",
    "decimal": "a number",
    "bool": "a boolean",
    "list": "an array",
    "tuple": "an array",
    "set": "an array",
    "dict": "an object",
    "model": "an object",
    "dataclass": "an object",
    "none": "null",
}
"""What the first word of pydantic's `<word>_type`, `<word>_parsing` and the like expects."""
_NOT_OF_TYPE: Final = re.compile(r"(\w+?)_(?:attributes_)?(?:type|parsing|parsing_size|required|from_float|sub_type)")

_BOUNDS: Final = {
    "greater_than": ("below minimum", "> {gt}", "below_min"),
    "greater_than_equal": ("below minimum", ">= {ge}", "below_min"),
    "less_than": ("above maximum", "< {lt}", "above_max"),
    "less_than_equal": ("above maximum", "<= {le}", "above_max"),
}


def refusal(problem: Mapping[str, Any], content_type: str) -> InvalidRequestError:
    """Give the error for one problem of pydantic's; `content_type` is what the request's body claimed to be."""
    kind, place = problem["type"], problem["loc"]
    if kind == "json_invalid":
        return InvalidRequestError(MALFORMED)
    if tuple(place) == ("body",):
        return _bodily(problem, content_type)
    param = _path(place)
    if kind in _RULES:
        message, code = _RULES[kind](param, problem)
    elif not_of_type := _NOT_OF_TYPE.fullmatch(kind):
        message, code = _wrong_type(param, _TYPES.get(not_of_type[1], "another type"), problem["input"])
    else:
        message, code = problem["msg"].removeprefix("Value error, "), "invalid_value"
    return InvalidRequestError(message, param, code)


def _bodily(problem: Mapping[str, Any], content_type: str) -> InvalidRequestError:
    """Say what is wrong with the body as a whole."""
    body = problem["input"]
    if problem["type"] == "missing" or body == b"":
        return InvalidRequestError("The request has no body; send a JSON object.", None, "missing_required_parameter")
    if isinstance(body, bytes):  # what does not claim to be JSON was not read as such
        return InvalidRequestError(_UNSUPPORTED.format(sent=_shown(content_type)), None, "unsupported_content_type")
    message = f"Invalid type for the request body: expected an object, but got {_kind(body)} instead."
    return InvalidRequestError(message, None, "invalid_type")


def _path(place: Sequence[str | int]) -> str:
    """Give `metadata.tags` or `requests[3].body` for where pydantic found a problem, without what it was a part of."""
    names = [name for name in place[1:] if name != "[key]"]
    joined = "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in names)
    return _shown(joined.removeprefix("."))


def _shown(value: object) -> str:
    """Give a value from outside as a message shows it: not too long, and of characters that can be sent."""
    text = str(value).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _kind(value: object) -> str:
    """Give the JSON type of a value, with its article."""
    if value is None:
        return "null"
    kinds: dict[type, str] = {
        bool: "a boolean",
        int: "an integer",
        float: "a decimal number",
        list: "an array",
        dict: "an object",
    }
    return kinds.get(type(value), "a string")


def _wrong_type(param: str, expected: str, value: object) -> tuple[str, str]:
    return f"Invalid type for '{param}': expected {expected}, but got {_kind(value)} instead.", "invalid_type"


def _missing(param: str, _problem: Mapping[str, Any]) -> tuple[str, str]:
    return f"Missing required parameter: '{param}'.", "missing_required_parameter"


def _unknown(param: str, _problem: Mapping[str, Any]) -> tuple[str, str]:
    return f"Unknown parameter: '{param}'.", "unknown_parameter"


def _not_text(param: str, _problem: Mapping[str, Any]) -> tuple[str, str]:
    return f"Invalid '{param}': the string is not valid Unicode.", "invalid_value"


def _none_of_the_choices(param: str, problem: Mapping[str, Any]) -> tuple[str, str]:
    value, choices = problem["input"], re.findall(r"'([^']*)'", problem["ctx"]["expected"])
    if not isinstance(value, str):
        return _wrong_type(param, f"one of {_listed(choices, 'or')}", value)
    return f"Invalid value: '{_shown(value)}'. Supported values are: {_listed(choices)}.", "invalid_value"


def _listed(names: Sequence[str], last: str = "and") -> str:
    """Give names as OpenAI lists them: 'a', 'b', and 'c'."""
    quoted = [f"'{name}'" for name in names]
    if len(quoted) < 3:  # noqa: PLR2004 (two need no comma)
        return f" {last} ".join(quoted)
    return f"{', '.join(quoted[:-1])}, {last} {quoted[-1]}"


def _out_of_bounds(param: str, problem: Mapping[str, Any]) -> tuple[str, str]:
    side, bound, code = _BOUNDS[problem["type"]]
    number = "decimal" if isinstance(problem["input"], float) else "integer"
    expected = bound.format_map(problem["ctx"])
    message = f"{number} {side} value. Expected a value {expected}, but got {_shown(problem['input'])} instead."
    return f"Invalid '{param}': {message}", f"{number}_{code}_value"


def _wrong_length(param: str, problem: Mapping[str, Any]) -> tuple[str, str]:
    value, limits = problem["input"], problem["ctx"]
    kind = _kind(value).partition(" ")[2]
    side, bound = ("long", "maximum") if "max_length" in limits else ("short", "minimum")
    expected = f"Expected {_kind(value)} with {bound} length {limits.get('max_length', limits.get('min_length'))}"
    if not value:
        return (
            f"Invalid '{param}': empty {kind}. {expected}, but got an empty {kind} instead.",
            f"empty_{kind}",
        )
    code = f"{kind}_{'above_max' if side == 'long' else 'below_min'}_length"
    got = f"but got {_kind(value)} with length {len(value)} instead."
    return f"Invalid '{param}': {kind} too {side}. {expected}, {got}", code


def _too_many_properties(param: str, problem: Mapping[str, Any]) -> tuple[str, str]:
    most, count = problem["ctx"]["max_length"], len(problem["input"])
    expected = f"Expected an object with at most {most} properties, but got an object with {count} properties instead."
    return f"Invalid '{param}': too many properties. {expected}", "object_above_max_properties"


def _size(param: str, problem: Mapping[str, Any]) -> tuple[str, str]:
    is_crowded = isinstance(problem["input"], dict) and "max_length" in problem["ctx"]
    return (_too_many_properties if is_crowded else _wrong_length)(param, problem)


def _pattern(param: str, problem: Mapping[str, Any]) -> tuple[str, str]:
    expected = f"Expected a string that matches the pattern '{problem['ctx']['pattern']}'."
    return f"Invalid '{param}': string does not match pattern. {expected}", "invalid_value"


_RULES: Final[dict[str, Callable[[str, Mapping[str, Any]], tuple[str, str]]]] = {
    "missing": _missing,
    "extra_forbidden": _unknown,
    "string_unicode": _not_text,
    "literal_error": _none_of_the_choices,
    "enum": _none_of_the_choices,
    **dict.fromkeys(_BOUNDS, _out_of_bounds),
    **dict.fromkeys(("string_too_long", "string_too_short", "too_long", "too_short"), _size),
    "string_pattern_mismatch": _pattern,
}
