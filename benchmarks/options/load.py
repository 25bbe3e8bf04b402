"""How the workload is offered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from benchmarks.options.takes import Option
from benchmarks.options.values import refuse
from benchmarks.records import Load
from benchmarks.workload import WorkloadError


@dataclass(frozen=True)
class LoadOptions:
    """How it is offered."""

    concurrency: Annotated[
        int | None, Option(min=1, help="Closed loop: this many clients. Default 8.")
    ] = None
    rate: Annotated[
        float | None, Option(min=0.001, help="Open loop: requests a second, by the clock.")
    ] = None
    arrivals: Annotated[
        str | None,
        Option(
            help="Of the open loop: poisson (the default), constant, gamma, or trace (its own "
            "times)."
        ),
    ] = None
    burstiness: Annotated[
        float | None,
        Option(
            min=0.01,
            help="Of gamma arrivals; less than 1 is burstier than poisson. Default 1.",
        ),
    ] = None
    max_concurrency: Annotated[
        int | None, Option(min=1, help="Cap of the open loop; what waits is recorded.")
    ] = None
    ramp_s: Annotated[
        float | None,
        Option(
            min=0.001,
            help="Reach the load in so many seconds, evenly; they are in no steady window.",
        ),
    ] = None

    def load(self) -> Load:
        """
        The load that was asked for.

        Raises:
            WorkloadError: two kinds of load at once, unknown arrivals, or an option that would be
                ignored.
        """
        self._check_arrivals()
        if self.concurrency and (self.rate or self.arrivals == "trace"):
            raise WorkloadError(
                "--concurrency is a closed loop and --rate or --arrivals trace an open one; "
                "give one of them (--max-concurrency caps an open loop)"
            )
        if self.arrivals == "trace":
            given = {"--rate": self.rate, "--ramp-s": self.ramp_s}
            refuse(given, "--arrivals trace sends by the workload's own times")
            return Load(mode="trace", max_concurrency=self.max_concurrency)
        if self.rate:
            return self.at_rate(self.rate)
        self._check_closed("give a --rate with it, or leave it out")
        return self.at_concurrency(self.concurrency or 8)

    def check_sweep(self, *, open_loop: bool, by_list: bool) -> None:
        """
        Refuse what a sweep over clients, or over rates, does not have.

        Raises:
            WorkloadError: an option that would be ignored.
        """
        self._check_arrivals()
        if by_list:
            given = {"--concurrency": self.concurrency, "--rate": self.rate}
            refuse(given, "--levels says which loads are measured")
        if not open_loop:
            advice = "give --open with it, or leave it out"
            refuse({"--rate": self.rate}, "this sweep's levels are clients", advice)
            self._check_closed(advice)
            return
        given = {"--concurrency": self.concurrency}
        refuse(given, "with --open the levels are rates", "begin at a --rate, or leave it out")
        if self.arrivals == "trace":
            raise WorkloadError(
                "--arrivals trace has one load, that of its own times; use run, or give a sweep "
                "constant, poisson or gamma"
            )

    def _check_arrivals(self) -> None:
        if self.arrivals not in (None, "constant", "poisson", "gamma", "trace"):
            raise WorkloadError(
                f"--arrivals {self.arrivals} is unknown; use constant, poisson, gamma or trace"
            )
        if self.arrivals != "gamma":
            refuse({"--burstiness": self.burstiness}, "only --arrivals gamma has one")

    def _check_closed(self, advice: str) -> None:
        given = {"--arrivals": self.arrivals, "--max-concurrency": self.max_concurrency}
        refuse(given, "a closed loop has none", advice)

    def at_concurrency(self, concurrency: float) -> Load:
        """A closed loop."""
        return Load(mode="closed", concurrency=int(concurrency), ramp_s=self.ramp_s)

    def at_rate(self, rate_rps: float) -> Load:
        """An open loop."""
        arrivals: Any = self.arrivals or "poisson"
        return Load(
            mode="open",
            rate_rps=rate_rps,
            arrivals=arrivals,
            burstiness=(self.burstiness or 1.0) if arrivals == "gamma" else None,
            max_concurrency=self.max_concurrency,
            ramp_s=self.ramp_s,
        )

    def clients(self) -> int:
        """How many requests are open at once, about: what warm-up and counts go by."""
        return self.concurrency or self.max_concurrency or 8
