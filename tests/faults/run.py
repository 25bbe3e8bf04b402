"""All faults at their full size, with figures: `python -m tests.reliability --faults all`."""

from __future__ import annotations

import re
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.machine import without_paths
from tests.faults.catalogue import ALONE, ON_SITE
from tests.faults.figures import Fault, Figures, broken
from tests.faults.site import FULL, Scale, make_profile, site_of
from tests.reliability.trends import Check


class Overdue(BaseException):
    """A fault takes longer than it may; no library on the way makes anything else of it."""


def faults_named(wanted: str) -> list[Fault]:
    """
    The faults of these names (`all`, or such as F6,F10), in their order.

    Raises:
        ValueError: there is none of a name.
    """
    every = sorted([*ON_SITE, *ALONE], key=lambda fault: fault.number)
    if wanted == "all":
        return every
    names = set(re.split(r"[ ,]+", wanted.strip()))
    known = {name for fault in every for name in fault.name.split()}
    if unknown := names - known:
        raise ValueError(f"There is no fault {', '.join(sorted(unknown))}; use F1 to F20, or all.")
    return [fault for fault in every if names & set(fault.name.split())]


def inject(
    wanted: list[Fault], directory: Path, say: Callable[[str], None]
) -> Iterator[tuple[str, Figures]]:
    """
    Inject each of the faults in turn, in the main thread; one that fails ends none of the others.

    A signal that ends us ends what we have started.

    Yields:
        The name of each with its figures, as those of a class of bad inputs: `by_status` has the
        ends of requests, `faults` what was promised and not kept.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    profile, scale = make_profile(directory), replace(FULL, say=say)
    for number, fault in enumerate(wanted):
        say(f"{fault}")
        where = directory / f"fault-{number}"
        if fault in ALONE:
            run = partial(fault.run, profile, where, scale)
        else:
            run = partial(_on_site, fault, profile, where, scale)
        found = held(run, fault.bound_s)
        say(f"  {found['sent']} sent in {found['took_s']} s, {len(found['faults'])} faults")
        for check in found.get("checks", ()):
            say(f"  {Check(**check)}")
        yield str(fault), found


def _on_site(fault: Fault, profile: Path, directory: Path, scale: Scale) -> Figures:
    with site_of(profile, directory, *fault.overrides) as site:
        return fault.run(site, scale)


def held(run: Callable[[], Figures], bound_s: float) -> dict[str, Any]:
    """Inject a fault; a promise that was not kept is among its figures and ends nothing else."""
    began_s = time.monotonic()
    try:
        with bounded(bound_s):
            found = run()
        faults = broken(found)
    except (Exception, Overdue):
        found, faults = {}, [without_paths(traceback.format_exc()[-3000:])]
    took_s = round(time.monotonic() - began_s, 1)
    ends = found.get("ends", {})
    return {"sent": 0, **found, "took_s": took_s, "by_status": ends, "faults": faults}


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Raise Overdue where a with block takes longer."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Overdue(f"It is not over after {seconds:g} s.")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
