"""What is known of well-known providers, so that a providers file need not say it. Not what they allow."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

ANTHROPIC_BASE_URL: Final = "https://api.anthropic.com"
"""What alone needs not be stated."""
_CHAT: Final = "/v1/chat/completions"
_COMPLETIONS: Final = "/v1/completions"
_EMBEDDINGS: Final = "/v1/embeddings"
_IMAGES: Final = "/v1/images/generations"
_MESSAGES: Final = "/v1/messages"
_MODERATIONS: Final = "/v1/moderations"
_RESPONSES: Final = "/v1/responses"

PRESETS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "anthropic": {
            "kind": "anthropic",
            "base_url": ANTHROPIC_BASE_URL,
            "api_key_env": "ANTHROPIC_API_KEY",
            "models": ("claude-*",),
            "rate_headers": "anthropic",
        },
        "deepseek": {
            "base_url": "https://api.deepseek.com",
            "api_key_env": "DEEPSEEK_API_KEY",
            "models": ("deepseek-*",),
            "rate_headers": "none",
            "endpoints": (_CHAT,),
        },
        "gemini": {
            "base_url": "https://generativelanguage.googleapis.com/v1beta/openai",
            "api_key_env": "GEMINI_API_KEY",
            "models": ("gemini-*",),
            "rate_headers": "none",
            "endpoints": (_CHAT, _EMBEDDINGS, _IMAGES),
        },
        "groq": {
            "base_url": "https://api.groq.com/openai/v1",
            "api_key_env": "GROQ_API_KEY",
            "rate_headers": "daily_requests",
            "endpoints": (_CHAT, _RESPONSES),
        },
        "mistral": {
            "base_url": "https://api.mistral.ai/v1",
            "api_key_env": "MISTRAL_API_KEY",
            "rate_headers": "mistral",
            "endpoints": (_CHAT, _EMBEDDINGS, _MODERATIONS),
        },
        "ollama": {
            "base_url": "http://127.0.0.1:11434/v1",
            "rate_headers": "none",
            "endpoints": (_CHAT, _COMPLETIONS, _EMBEDDINGS, _MESSAGES, _RESPONSES),
        },
        "openai": {
            "base_url": "https://api.openai.com/v1",
            "api_key_env": "OPENAI_API_KEY",
            "rate_headers": "openai",
        },
        "openrouter": {
            "base_url": "https://openrouter.ai/api/v1",
            "api_key_env": "OPENROUTER_API_KEY",
            "rate_headers": "none",
            "endpoints": (_CHAT, _COMPLETIONS, _EMBEDDINGS, _MESSAGES, _RESPONSES),
        },
        "together": {
            "base_url": "https://api.together.ai/v1",
            "api_key_env": "TOGETHER_API_KEY",
            "rate_headers": "none",
            "endpoints": (_CHAT, _COMPLETIONS, _EMBEDDINGS, _IMAGES),
        },
        "vllm": {
            "base_url": "http://127.0.0.1:8000/v1",
            "rate_headers": "none",
            "endpoints": (_CHAT, _COMPLETIONS, _EMBEDDINGS, _MESSAGES, _RESPONSES),
        },
        "xai": {
            "base_url": "https://api.x.ai/v1",
            "api_key_env": "XAI_API_KEY",
            "models": ("grok-*",),
            "rate_headers": "none",
            "endpoints": (_CHAT, _IMAGES, _RESPONSES),
        },
    }
)
"""By their names, the fields of `Provider` that each one sets; all are of kind `openai` that do not say otherwise."""


_ANTHROPICS: Final[Mapping[str, Any]] = {"rate_headers": "anthropic"}
"""What goes without saying of a server with Anthropic's API, be it Anthropic's or not."""


def with_preset(table: Mapping[str, Any]) -> dict[str, Any]:
    """Give a provider's table with what its preset, or else its kind, says of the fields that it does not state.

    Raises:
        ValueError: there is no such preset.
    """
    name = table.get("preset") or None
    if name is None:
        return {**(_ANTHROPICS if table.get("kind") == "anthropic" else {}), **table}
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(f"preset: there is none of the name {name!r}; there are {', '.join(PRESETS)}")
    return {**PRESETS[name], **table}
