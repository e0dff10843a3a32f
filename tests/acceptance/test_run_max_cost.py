"""A run with a budget: it ends when the answers have cost that much, and goes on when there is more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tests.acceptance.cli import chat

if TYPE_CHECKING:
    from tests.acceptance.cli import Folder

LINES = 200
PROVIDER = """
[providers.local]
kind = "simulated"
latency_s = 0.02
max_concurrency = 8
prices = { "m" = { input = 1_000, output = 1_000 } }
"""


def test_a_run_stops_at_its_budget_and_goes_on_with_a_higher_one(folder: Folder) -> None:
    folder.write_input([chat(number) for number in range(LINES)])
    folder.providers.write_text(PROVIDER, encoding="utf-8")

    first = folder.run("--max-cost", "0.1", "--workers", "1", "--json")
    assert first.code == 1, first.err
    facts = msgspec.json.decode(first.out)
    assert facts["priced_cost"] >= 0.1
    assert 0 < facts["completed"] < LINES == facts["completed"] + facts["failed"]
    assert {line["error"]["code"] for line in folder.error_lines} == {"max_cost_reached"}

    refused = folder.run("--max-cost", "0.1", "--workers", "1")
    assert refused.code == 3, refused.err
    assert "all of --max-cost; raise it" in refused.err

    second = folder.run("--max-cost", "1000", "--workers", "1")
    assert second.code == 0, second.err
    assert f"Sending the {facts['failed']} lines again" in second.err
    assert "cost: $" in second.err
    assert [line["custom_id"] for line in folder.output_lines] == [f"id-{number}" for number in range(LINES)]


def test_a_model_without_a_price_is_refused_with_what_to_do(folder: Folder) -> None:
    folder.write_input([chat(1)])
    folder.providers.write_text('[providers.local]\nkind = "simulated"\n', encoding="utf-8")
    ended = folder.run("--max-cost", "1")
    assert ended.code == 2, ended.err
    assert "line 1: body.model: no price is known for 'm'; add it to prices of provider local" in ended.err
