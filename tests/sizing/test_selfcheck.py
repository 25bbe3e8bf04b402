"""A running server holds its plan against what vLLM made of it."""

from __future__ import annotations

import re
from dataclasses import replace

from gemma_serve.sizing.selfcheck import Figures, SelfCheck
from tests.servers import Server


def test_plan_is_held_against_the_engine(tiny_server: Server) -> None:
    """/v1/info, the series and the log have both figures, and no error."""
    with tiny_server.client() as client:
        info = client.get("/v1/info").json()
        series = client.get("/metrics").text
    plan = info["plan"]

    assert plan["actual"] == plan["planned"]
    assert plan["actual"]["blocks"] == info["engine"]["num_kv_cache_blocks"]
    assert plan["actual"]["tokens"] == info["engine"]["kv_cache_tokens"] > 0
    assert plan["error_ratio"] == {"blocks": 0, "tokens": 0, "max_concurrency": 0}
    tokens = plan["actual"]["tokens"]
    for source in ("plan", "engine"):
        assert f'gemma_serve_kv_cache_tokens{{source="{source}"}} {float(tokens)}' in series
    assert 'gemma_serve_plan_error_ratio{figure="tokens"} 0.0' in series
    assert re.search(
        rf"KV cache: {tokens:,} tokens, .*; planned {tokens:,} \(\+0\.0%\)\.",
        (tiny_server.output()),
    )


def test_a_plan_that_is_off_says_so() -> None:
    """Beyond three percent the line says that the plan is wrong; the ratio says by how much."""
    actual = Figures(blocks=100, tokens=10_000, max_concurrency=2.5)
    check = SelfCheck(replace(actual, tokens=11_000), actual, is_exact=False)

    assert check.error_ratio == {"blocks": 0, "tokens": 0.1, "max_concurrency": 0}
    assert check.line() == (
        "KV cache: 10,000 tokens, 2.50 requests of the whole context; planned 11,000 (+10.0%; "
        "'gemma-serve plan' is wrong for this one)."
    )
    assert check.as_dict()["memory"] == "modelled"
