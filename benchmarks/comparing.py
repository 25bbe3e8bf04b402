"""`compare A B` from two targets to a record: start both, measure in turns, end both."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.blocks import Blocks, Materialise
from benchmarks.cell import Prepared, Settings, about_workload, prepare, shares_prompts
from benchmarks.compare import run as course
from benchmarks.compare.quality import with_quality
from benchmarks.compare.statistics import LOOKS
from benchmarks.compare.verdict import overall
from benchmarks.machine import argv, conditions, utc_now
from benchmarks.records import TRITON_PROTOCOLS, Comparison, Load, Validity
from benchmarks.serving import Served, check_asked, serving
from benchmarks.show import Bars, bars
from benchmarks.workload import Workload

AA_PAIRS = 6


@dataclass(frozen=True)
class Asked:
    """What `compare` was asked for."""

    targets: tuple[str, str]
    materialise: Materialise
    load: Load
    settings: Settings
    directory: Path
    margin: float
    alpha: float
    looks: tuple[int, ...] = LOOKS
    aa_pairs: int | None = None  # as many as are usual if not given
    quality: Materialise | None = None
    ping_pong: bool = False

    def fixed(self) -> course.Settings:
        """
        What is fixed before the first block.

        Raises:
            ValueError: with these numbers nothing could be decided.
        """
        return course.Settings(
            seed=self.settings.seed,
            looks=self.looks,
            aa_pairs=AA_PAIRS if self.aa_pairs is None else self.aa_pairs,
            margin=self.margin,
            alpha=self.alpha,
            argv=tuple(argv()),
        )


def check(asked: Asked) -> None:
    """
    Say what is wrong with a comparison before two servers are started for it.

    Raises:
        ServerError, ValueError: what can't be sent, or decides nothing.
    """
    asked.fixed()
    workload = asked.materialise(asked.settings.seed)
    for target in asked.targets:
        check_asked(target, asked.settings, workload, asked.load)
    if asked.quality is not None:
        asked.quality(asked.settings.seed)
    if asked.ping_pong:
        _check_ping_pong(asked, workload)


def _check_ping_pong(asked: Asked, workload: Workload) -> None:
    if shares_prompts(workload):
        raise ValueError(
            f"--ping-pong sends single requests that share nothing, and those of this workload "
            f"({workload.spec.kind}) do; compare them in blocks, without --ping-pong"
        )
    if not asked.settings.cold:
        raise ValueError(
            "--warm-cache was given, and with --ping-pong no request finds another's blocks; leave "
            "one of the two out"
        )
    if (asked.aa_pairs or 0) > len(workload.items):
        raise ValueError(
            f"--aa-pairs {asked.aa_pairs} was given, and --ping-pong has a pair for each of the "
            f"{len(workload.items)} requests; give fewer, or more --requests"
        )


async def compare_targets(asked: Asked) -> Comparison:
    """
    Start what has to be started, compare, and end it.

    Raises:
        ServerError, ValueError, ConnectionError: it can't be done, or a server does not start or
            answer.
    """
    check(asked)
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
    settings = asked.fixed()
    with bars("Comparing") as shown:
        blocks = Blocks(
            servers,
            asked.materialise,
            asked.load,
            asked.settings,
            asked.directory,
            on_progress=shown.requests,
        )
        if asked.ping_pong:
            record = await _ping_pong(asked, blocks, arms, shown.say)
        else:
            record = await course.compare(arms, blocks.measure, settings, _shown(shown))
        if asked.quality is not None:
            shown.say("greedy answers of both")
            questions = dataclasses.replace(blocks, materialise=asked.quality)
            quality = await questions.quality(arms, settings.seed)
            record = with_quality(record, quality)
    return record


def _shown(shown: Bars) -> course.OnProgress:
    def show(at: course.Progress) -> None:
        stage = "A against itself" if at.stage == "a_a" else "A against B"
        again = f", repeat {at.repeat}" if at.repeat else ""
        what = f"{stage}, pair {at.pair} of {at.num_pairs}{again}: {at.label}"
        shown.block(at.block, at.num_blocks, what)

    return show


async def _ping_pong(
    asked: Asked,
    blocks: Blocks,
    arms: tuple[course.Arm, course.Arm],
    begin: Callable[[str], None],
) -> Comparison:
    settings, started_at = asked.fixed(), utc_now()
    floor, found = await blocks.ping_pong(
        arms,
        settings.seed,
        alpha=settings.alpha,
        margin=settings.margin,
        aa_pairs=asked.aa_pairs,
        begin=begin,
    )
    checks = [found.check]
    if floor is not None:
        checks.append(floor.check.model_copy(update={"name": "failed_pairs (A against itself)"}))
    red = [check for check in checks if check.status == "red"]
    verdict, message = overall(found.metrics)
    if floor is None:
        message += "; no noise floor: A was not measured against itself"
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
        a_a=floor.metrics if floor else [],
        validity=Validity(verdict="INVALID" if red else "VALID", checks=checks),
        verdict="invalid" if red else verdict,
        message=red[0].message if red else f"{verdict}: {message}",
    )
