"""Several providers of one batch: who takes a line, who helps out, and what the output says of it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tests.acceptance.cli import chat
from tests.upstream import Rule, run_upstream

if TYPE_CHECKING:
    from tests.acceptance.cli import Folder
    from tests.upstream import Upstream

FALLBACK = """
[providers.main]
base_url = "{main}"
models = ["m*"]
max_concurrency = 20
fallback = ["spare"]

[providers.spare]
base_url = "{spare}"
models = ["none"]
max_concurrency = 20
model_names = {{ "m" = "spare/m" }}
"""
WEIGHTS = """
[providers.small]
base_url = "{small}"
models = ["m*"]
max_concurrency = 20
weight = 1

[providers.large]
base_url = "{large}"
models = ["m*"]
max_concurrency = 20
weight = 3
"""


def answered_by(folder: Folder) -> Counter[str]:
    return Counter(line["response"]["provider"] for line in folder.output_lines)


def test_the_lines_of_a_provider_that_is_down_go_to_its_fallback_under_its_name_of_the_model(
    folder: Folder, upstream: Upstream, unused_tcp_port: int
) -> None:
    folder.write_input([chat(number) for number in range(200)])
    text = FALLBACK.format(main=f"http://127.0.0.1:{unused_tcp_port}/v1", spare=upstream.url)
    folder.providers.write_text(text, encoding="utf-8")

    ended = folder.run("--give-up-after", "60")

    assert ended.code == 0, ended.err
    assert answered_by(folder) == {"spare": 200}
    assert [line["custom_id"] for line in folder.output_lines] == [f"id-{number}" for number in range(200)]
    assert {line["response"]["body"]["model"] for line in folder.output_lines} == {"spare/m"}
    assert upstream.count() == 200


def test_what_a_provider_cannot_serve_at_all_goes_to_its_fallback_and_all_else_does_not(
    folder: Folder, upstream: Upstream
) -> None:
    folder.write_input([chat(number) for number in range(40)])
    with run_upstream() as main:
        main.rules = [Rule(match="<7>", status=404), Rule(match="<8>", status=400), Rule(match="<9>", status=503)]
        text = FALLBACK.format(main=main.url, spare=upstream.url)
        folder.providers.write_text(text.replace("fallback", "max_attempts = 2\nfallback"), encoding="utf-8")
        ended = folder.run()

        assert ended.code == 1, ended.err
        assert answered_by(folder) == {"main": 37, "spare": 2}
        assert [line["custom_id"] for line in folder.error_lines] == ["id-8"]
        assert [main.count(f"<{number}>") for number in (7, 8, 9)] == [1, 1, 2]
        assert sorted(seen.body.partition("<")[2][0] for seen in upstream.requests) == ["7", "9"]


def test_providers_of_one_model_share_its_lines_by_weight_and_a_line_may_name_one(folder: Folder) -> None:
    named = [chat(number, model="small:m") for number in range(400, 420)]
    folder.write_input([*(chat(number) for number in range(400)), *named])
    with run_upstream(latency_s=0.05) as small, run_upstream(latency_s=0.05) as large:
        folder.providers.write_text(WEIGHTS.format(small=small.url, large=large.url), encoding="utf-8")
        ended = folder.run()

        assert ended.code == 0, ended.err
        shared = answered_by(folder)
        assert small.count() + large.count() == 420
        assert shared == {"small": small.count(), "large": large.count()}
        assert large.count() > 120
        assert all(line["response"]["provider"] == "small" for line in folder.output_lines[400:])


def test_a_peer_that_is_down_leaves_its_share_to_the_other(folder: Folder, unused_tcp_port: int) -> None:
    folder.write_input([chat(number) for number in range(100)])
    with run_upstream() as large:
        text = WEIGHTS.format(small=f"http://127.0.0.1:{unused_tcp_port}/v1", large=large.url)
        folder.providers.write_text(text, encoding="utf-8")
        ended = folder.run()
        assert ended.code == 0, ended.err
        assert answered_by(folder) == {"large": 100}
