"""Requests for `/v1/responses` that can be said as chat completions, of any make."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

PNG = "data:image/png;base64,iVBORw0KGgo="
_TEXT = st.text(max_size=8)


def tool(**fields: Any) -> dict[str, Any]:
    return {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, **fields}


_PARTS = st.one_of(
    st.fixed_dictionaries({"type": st.just("input_text"), "text": _TEXT}),
    st.fixed_dictionaries(
        {"type": st.just("input_image"), "image_url": st.just(PNG), "detail": st.sampled_from(["auto", "low", "high"])}
    ),
    st.fixed_dictionaries({"type": st.just("input_file"), "file_data": _TEXT, "filename": _TEXT}),
)
_OUTPUTS = st.one_of(
    st.fixed_dictionaries({"type": st.just("output_text"), "text": _TEXT, "annotations": st.just([])}),
    st.fixed_dictionaries({"type": st.just("refusal"), "refusal": _TEXT}),
)
_ITEMS = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", "developer"]), "content": _TEXT}),
    st.fixed_dictionaries({"role": st.just("user"), "content": st.lists(_PARTS, min_size=1, max_size=3)}),
    st.fixed_dictionaries({"role": st.just("assistant"), "content": st.lists(_OUTPUTS, min_size=1, max_size=3)}),
    st.fixed_dictionaries(
        {"type": st.just("function_call"), "call_id": _TEXT, "name": _TEXT, "arguments": st.just("{}")}
    ),
    st.fixed_dictionaries({"type": st.just("function_call_output"), "call_id": _TEXT, "output": _TEXT}),
)
REQUESTS = st.fixed_dictionaries(
    {"model": _TEXT, "input": st.one_of(_TEXT, st.lists(_ITEMS, max_size=5))},
    optional={
        "instructions": st.none() | _TEXT,
        "temperature": st.none() | st.floats(0, 2),
        "max_output_tokens": st.none() | st.integers(1, 9_999),
        "parallel_tool_calls": st.booleans(),
        "reasoning": st.fixed_dictionaries({"effort": st.sampled_from([None, "none", "low", "max"])}),
        "tools": st.lists(st.builds(tool, name=_TEXT, strict=st.sampled_from([None, True, False])), max_size=2),
        "tool_choice": st.sampled_from([None, "auto", "none", "required", {"type": "function", "name": "f"}]),
        "text": st.sampled_from(
            [
                {},
                {"format": {"type": "json_object"}},
                {"format": {"type": "json_schema", "name": "n", "schema": {"a": 1}}},
            ]
        ),
        "metadata": st.none() | st.dictionaries(_TEXT, _TEXT, max_size=2),
        "user": _TEXT,
        "store": st.booleans(),
    },
)
