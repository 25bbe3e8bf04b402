"""`compare A B` from two targets to a record: start both, measure in turns, end both."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.blocks import Blocks, Materialise
from benchmarks.cell import Prepared, Settings, about_workload, shares_prompts
from benchmarks.compare import run as course
from benchmarks.compare.quality import with_quality
from benchmarks.compare.statistics import LOOKS
from benchmarks.compare.validity import starts_check
from benchmarks.compare.verdict import overall
from benchmarks.machine import argv, conditions, undisturbed, utc_now
from benchmarks.records import TRITON_PROTOCOLS, Comparison, Load, Slo, Validity
from benchmarks.serving import Served, check_asked, of_target, serving
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
    starts: int = 1

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
            starts=self.starts,
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
        if asked.starts > 1 and of_target(target, asked.settings)[0].kind == "url":
            raise ValueError(
                f"--starts {asked.starts} was given, and {target} runs already, so that it can't "
                "be started anew; give profile: or vllm: for it, or leave --starts out"
            )
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
        sides = _Sides(asked, stack)
        await sides.start()
        return await _compare(asked, sides)


class _Sides:
    """Both servers of a comparison, which can be started anew; their arms stay the same."""

    def __init__(self, asked: Asked, stack: contextlib.AsyncExitStack) -> None:
        self._asked, self._stack = asked, stack
        labels = [of_target(target, asked.settings)[0].label for target in asked.targets]
        self.arms = (self._arm("A", 0, labels[0]), self._arm("B", 1, labels[1]))
        self._served: list[Served] = []
        self.servers: dict[course.Arm, Prepared] = {}

    def _arm(self, slot: str, index: int, label: str) -> course.Arm:
        async def wake() -> None:
            await self._served[index].wake()

        async def pause() -> None:
            await self._served[index].pause()

        return course.Arm(f"{slot} ({label})", wake, pause)

    async def start(self) -> None:
        """
        Start what has to be started, and look at both.

        Raises:
            ServerError, ValueError, ConnectionError: one does not start or answer, or they can't be
                held against each other.
        """
        first = self._asked.materialise(self._asked.settings.seed)
        started, prepared = [], []
        for target in self._asked.targets:
            served = await self._stack.enter_async_context(serving(target, self._asked.settings))
            started.append(served)
            prepared.append(await served.prepared(first))
        _same_counting(prepared)
        self.servers.update(zip(self.arms, _same_slo(prepared), strict=True))
        # Not before: whoever gives up wakes both, and those that have ended take no harm.
        self._served = started

    async def restart(self) -> None:
        """End both, and start them anew."""
        await self._stack.aclose()
        await self.start()


def _same_slo(servers: list[Prepared]) -> list[Prepared]:
    """
    Both held to one SLO: the one that was given, else that of the profile that has one.

    Raises:
        ValueError: both profiles have one, and not the same.
    """
    slos = [server.slo for server in servers if server.slo is not None]
    if not slos:
        return servers
    if slos[0] != slos[-1]:
        a, b = (_limits(slo) for slo in slos)
        raise ValueError(
            f"A's profile promises {a} and B's {b}, and goodput compares under one SLO alone; "
            f"give --slo, like --slo {a}"
        )
    return [dataclasses.replace(server, slo=slos[0]) for server in servers]


def _limits(slo: Slo) -> str:
    """As --slo takes it."""
    given = slo.model_dump(exclude_none=True)
    return ",".join(f"{name}={value:g}" for name, value in given.items())


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


async def _compare(asked: Asked, sides: _Sides) -> Comparison:
    settings = asked.fixed()
    with bars("Comparing") as shown:
        blocks = Blocks(
            sides.servers,
            asked.materialise,
            asked.load,
            asked.settings,
            asked.directory,
            on_progress=shown.requests,
        )
        if asked.ping_pong:
            record = await _ping_pong(asked, blocks, sides.arms, shown.say)
        else:

            async def restart() -> None:
                shown.say("starting both anew")
                await sides.restart()

            record = await course.compare(
                sides.arms, blocks.measure, settings, _shown(shown), restart
            )
        if asked.quality is not None:
            shown.say("greedy answers of both")
            questions = dataclasses.replace(blocks, materialise=asked.quality)
            quality = await questions.quality(sides.arms, settings.seed)
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
    with undisturbed(asked.settings.client_cpus) as client:
        floor, found = await blocks.ping_pong(
            arms,
            settings.seed,
            alpha=settings.alpha,
            margin=settings.margin,
            aa_pairs=asked.aa_pairs,
            begin=begin,
        )
    checks = [found.check, starts_check(found.metrics, 1)]
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
        host=conditions() | client,
        equivalence=settings.margin,
        looks=[len(found.pairs)],
        metrics=found.metrics,
        a_a=floor.metrics if floor else [],
        validity=Validity(verdict="INVALID" if red else "VALID", checks=checks),
        verdict="invalid" if red else verdict,
        message=red[0].message if red else f"{verdict}: {message}",
    )
