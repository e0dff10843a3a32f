"""A run whose lines go to providers of two kinds, or in Anthropic's own words to either."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from anthropic.types import Message
from openai.types.chat import ChatCompletion

from tests.acceptance.cli import chat
from tests.messages_upstream import run_messages_upstream

if TYPE_CHECKING:
    from tests.acceptance.cli import Folder
    from tests.upstream import Upstream

PROVIDERS = """
[providers.local]
kind = "openai"
base_url = "{local}"
models = ["m*"]

[providers.anthropic]
kind = "anthropic"
base_url = "{anthropic}"
models = ["claude-*"]
"""
MODELS = ("m-1", "claude-1", "anthropic:claude-2", "claude-3")


def test_lines_for_two_kinds_of_providers_come_back_as_one_output_in_the_input_s_order(
    folder: Folder, upstream: Upstream
) -> None:
    lines = [chat(number, model=MODELS[number % 4]) for number in range(200)]
    lines[9]["body"]["n"] = 2  # what Anthropic has no words for
    folder.write_input(lines)
    with run_messages_upstream() as anthropic:
        text = PROVIDERS.format(local=upstream.url, anthropic=anthropic.base_url)
        folder.providers.write_text(text, encoding="utf-8")
        ended = folder.run(env={"ANTHROPIC_API_KEY": "sk-ant-secret"})

    assert ended.code == 1, ended.err
    good = [number for number in range(200) if number != 9]
    assert [line["custom_id"] for line in folder.output_lines] == [f"id-{number}" for number in good]
    bodies = [line["response"]["body"] for line in folder.output_lines]
    for number, body in zip(good, bodies, strict=True):
        completion = ChatCompletion.model_validate(body)
        assert completion.choices[0].message.content == f"<{number}>"
        assert completion.model == MODELS[number % 4].removeprefix("anthropic:")
    (refused,) = folder.error_lines
    assert (refused["custom_id"], refused["response"]["body"]["error"]["param"]) == ("id-9", "n")
    assert (upstream.count(), anthropic.count()) == (50, 149)
    assert {seen.headers["x-api-key"] for seen in anthropic.requests} == {"sk-ant-secret"}
    assert not [seen for seen in upstream.requests if "sk-ant-secret" in str(seen.headers)]


def test_native_messages_go_out_and_come_back_untouched_wherever_they_are_served(folder: Folder) -> None:
    lines = [chat(number, model=MODELS[number % 4]) for number in range(20)]
    for line in lines:
        line["url"] = "/v1/messages"
        line["body"] |= {"max_tokens": 50, "metadata": {"user_id": "u-1"}}
    folder.write_input(lines)
    with run_messages_upstream() as anthropic:
        text = PROVIDERS.format(local=anthropic.url, anthropic=anthropic.base_url)
        # This server demands the header; those of one's own that speak Messages beside OpenAI's API do not.
        text = text.replace('models = ["m*"]', 'models = ["m*"]\nheaders = { anthropic-version = "2023-06-01" }')
        folder.providers.write_text(text, encoding="utf-8")
        ended = folder.run("--json")

    assert ended.code == 0, ended.err
    assert [line["custom_id"] for line in folder.output_lines] == [f"id-{number}" for number in range(20)]
    answers = [Message.model_validate(line["response"]["body"]) for line in folder.output_lines]
    assert [answer.content[0].model_dump()["text"] for answer in answers] == [f"<{number}>" for number in range(20)]
    sent = {seen.body for seen in anthropic.requests}
    assert len(sent) == 20
    assert {msgspec.json.encode(line["body"]).decode() for line in lines if line["body"]["model"] in MODELS[:2]} <= sent
    assert msgspec.json.decode(ended.out)["usage"]["input_tokens"] == 20 * 123
