"""What --ping-pong sends: to servers that take a cache salt, and to one that refused it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from benchmarks.blocks import Blocks
from benchmarks.cell import Prepared, Settings
from benchmarks.compare.pingpong import PingPong
from benchmarks.compare.run import Arm
from benchmarks.load.connection import Endpoint
from benchmarks.load.runner import Sending
from benchmarks.records import Load, Target
from benchmarks.workload import Workload, materialise, parse_spec
from tests.benchmarks.scripted import Answer, honest, scripted

SPEC = parse_spec({"kind": "synthetic", "input": 5, "output": 3, "style": "text-completion"})


def made(seed: int) -> Workload:
    """Six requests and one to warm up."""
    return materialise(SPEC, seed, 6, 1)


def played(
    tmp_path: Path, *, salts: bool = True, **how: Any
) -> tuple[PingPong | None, PingPong, list[dict[str, Any]], list[tuple[int, int]]]:
    """A/A if asked for, A/B, the bodies that were sent, and the progress that was told."""
    asked: list[dict[str, Any]] = []
    shown: list[tuple[int, int]] = []

    async def script(answer: Answer, body: dict[str, Any]) -> None:
        asked.append(body)
        await honest(answer, body)

    async def play() -> tuple[PingPong | None, PingPong]:
        async with scripted(script) as url:
            endpoint, arms = Endpoint(url), (Arm("a"), Arm("b"))
            target = Target(url=url, protocol="openai-completions", model="m", label="m")
            sending = Sending(endpoint, "openai-completions", "m")
            server = Prepared(endpoint, sending, target, None, salts)
            blocks = Blocks(
                dict.fromkeys(arms, server),
                made,
                Load(mode="closed", concurrency=1),
                Settings(),
                tmp_path,
                on_progress=lambda *at: shown.append(at),
            )
            return await blocks.ping_pong(arms, 7, **{"alpha": 0.05, "margin": 0.03} | how)

    return *asyncio.run(play()), asked, shown


def test_a_against_itself_then_against_b(tmp_path: Path) -> None:
    """Both are warmed up; A/A has other prompts than A/B; no request has another's salt."""
    floor, found, asked, shown = played(tmp_path)

    assert floor is not None
    assert [len(one.pairs) for one in (floor, found)] == [6, 6]
    assert {metric.noise_floor is None for metric in found.metrics} == {False}
    prompts = [body["prompt"] for body in asked]
    assert len(prompts) == 2 * (1 + 6 + 6)
    assert prompts[:2] == [made(7).warm_up[0].prompt] * 2
    assert prompts[2:14:2] == prompts[3:14:2] == [item.prompt for item in made(8).items]
    assert prompts[14::2] == prompts[15::2] == [item.prompt for item in made(7).items]
    assert len({body["cache_salt"] for body in asked}) == len(asked)
    assert shown == [(done, 6) for done in range(6)] * 2


def test_server_that_refused_salts_gets_none(tmp_path: Path) -> None:
    """What the probe found refused would be refused again, in every request."""
    _, _, asked, _ = played(tmp_path, salts=False)

    assert not any("cache_salt" in body for body in asked)


@pytest.mark.parametrize(("aa_pairs", "sent"), [(0, 2 * 7), (2, 2 * 9)])
def test_pairs_of_a_against_itself(tmp_path: Path, aa_pairs: int, sent: int) -> None:
    """As many as were asked for; none leaves the noise floor out."""
    floor, found, asked, _ = played(tmp_path, aa_pairs=aa_pairs)

    assert len(asked) == sent
    assert (len(floor.pairs) if floor else 0) == aa_pairs
    assert {metric.noise_floor is None for metric in found.metrics} == {aa_pairs == 0}


def test_margin_and_alpha_are_those_that_were_given(tmp_path: Path) -> None:
    """Anything is equivalent within a margin of a million."""
    _, found, _, _ = played(tmp_path, margin=1e6, alpha=0.4)

    assert "equivalent" in {metric.verdict for metric in found.metrics}
