"""`compare A B` from two targets to a record: start both, measure in turns, end both."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.blocks import Blocks, Materialise
from benchmarks.cell import Prepared, Settings, prepare
from benchmarks.compare import run as course
from benchmarks.compare.quality import with_quality
from benchmarks.machine import argv, conditions, utc_now
from benchmarks.records import TRITON_PROTOCOLS, Comparison, Load, Validity
from benchmarks.serving import Served, serving
from benchmarks.show import doing


@dataclass(frozen=True)
class Asked:
    """What `compare` was asked for."""

    targets: tuple[str, str]
    materialise: Materialise
    load: Load
    settings: Settings
    directory: Path
    looks: tuple[int, ...]
    aa_pairs: int
    margin: float
    alpha: float
    quality: Materialise | None = None
    ping_pong: bool = False


async def compare_targets(asked: Asked) -> Comparison:
    """
    Start what has to be started, compare, and end it.

    Raises:
        ValueError, ConnectionError, RuntimeError: a server does not start or answer.
    """
    async with contextlib.AsyncExitStack() as stack:
        arms, servers = [], {}
        for slot, target in zip("AB", asked.targets, strict=True):
            served = await stack.enter_async_context(serving(target, asked.settings))
            arm = _arm(f"{slot} ({served.label})", served)
            first = asked.materialise(asked.settings.seed)
            servers[arm] = await prepare(
                served.endpoint, first, served.settings, label=served.label, meter=served.meter
            )
            arms.append(arm)
        _same_counting(list(servers.values()))
        both = (arms[0], arms[1])
        return await _compare(asked, both, servers)


def _arm(label: str, served: Served) -> course.Arm:
    return course.Arm(label, served.wake, served.pause)


def _same_counting(servers: list[Prepared]) -> None:
    """
    Tokens are counted alike on both sides, or the ratio would be one of counters.

    Triton's protocols have one exact count, the server's own of each response. It goes with any
    other that is exact.
    """
    sources = {server.sending.token_source for server in servers}
    if len(sources - {"event_counts"}) < 2 and sources != {"event_counts", "events"}:
        return
    advice = "give --token-source usage, which both have"
    if any(server.sending.protocol in TRITON_PROTOCOLS for server in servers):
        advice = (
            "over Triton's protocols only ,contract=vllm-backend counts the tokens, on a server "
            "whose profile has triton.contract: vllm-backend"
        )
    counted = " and ".join(sorted(sources))
    raise ValueError(f"the two servers' tokens would be counted by {counted}; {advice}")


async def _compare(
    asked: Asked, arms: tuple[course.Arm, course.Arm], servers: dict[course.Arm, Prepared]
) -> Comparison:
    settings = course.Settings(
        seed=asked.settings.seed,
        looks=asked.looks,
        aa_pairs=asked.aa_pairs,
        margin=asked.margin,
        alpha=asked.alpha,
        argv=tuple(argv()),
    )
    blocks = Blocks(servers, asked.materialise, asked.load, asked.settings, asked.directory)
    with doing("Comparing") as say:
        if asked.ping_pong:
            record = await _ping_pong(asked, blocks, arms, settings)
        else:
            record = await course.compare(arms, blocks.measure, settings, _shown(say))
        if asked.quality is not None:
            say("greedy answers of both")
            quality = await Blocks(
                servers, asked.quality, asked.load, asked.settings, asked.directory
            ).quality(arms, asked.settings.seed)
            record = with_quality(record, quality)
    return record


def _shown(say: Callable[[str], None]) -> course.OnProgress:
    def show(at: course.Progress) -> None:
        stage = "A against itself" if at.stage == "a_a" else "A against B"
        again = f", repeat {at.repeat}" if at.repeat else ""
        say(f"{stage}, pair {at.pair} of {at.num_pairs}{again}: {at.label}")

    return show


async def _ping_pong(
    asked: Asked,
    blocks: Blocks,
    arms: tuple[course.Arm, course.Arm],
    settings: course.Settings,
) -> Comparison:
    from benchmarks.cell import about_workload
    from benchmarks.compare.verdict import overall

    started_at = utc_now()
    found = await blocks.ping_pong(arms, settings.seed)
    red = found.check.status == "red"
    verdict, message = overall(found.metrics)
    a, b = (blocks.servers[arm] for arm in arms)
    workload = asked.materialise(settings.seed)
    return Comparison(
        a=a.target,
        b=b.target,
        load=Load(mode="closed", concurrency=1),
        workload=about_workload(workload, a.sending, cold=asked.settings.cold),
        started_at=started_at,
        ended_at=utc_now(),
        argv=list(settings.argv),
        seed=settings.seed,
        host=conditions(),
        equivalence=settings.margin,
        looks=[len(found.pairs)],
        metrics=found.metrics,
        validity=Validity(verdict="INVALID" if red else "VALID", checks=[found.check]),
        verdict="invalid" if red else verdict,
        message=found.check.message if red else f"{verdict}: {message}",
    )
