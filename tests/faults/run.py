"""All faults at their full size, with figures: `python -m tests.reliability --faults all`."""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.catalogue import ALONE, ON_SITE
from tests.faults.figures import Fault, Figures
from tests.faults.site import FULL, make_profile, site_of

# So many bad readers at once need a batch and a KV cache for all of them.
WIDE = (
    "engine.max_num_seqs=256",
    "kv_cache_memory_gib=1",
    "limits.write_timeout_s=10",
    "server.grpc_port=0",
)


def inject(wanted: str, directory: Path, say: Callable[[str], None]) -> dict[str, Figures]:
    """
    Inject the faults that are wanted (`all`, or names such as F6,F10), each in turn.

    Returns:
        The figures of each, as those of a class of bad inputs: `by_status` has the ends of
        requests, `faults` what was promised and not kept.
    """
    record = {}
    for name, found in _injected(wanted, directory, say):
        record[name] = found
        say(f"{name}: {found['sent']} sent in {found['took_s']} s")
    return record


def _injected(
    wanted: str, directory: Path, say: Callable[[str], None]
) -> Iterator[tuple[str, Figures]]:
    profile = make_profile(directory)
    names = set(re.split(r"[ ,]+", wanted))

    def chosen(faults: Sequence[Fault]) -> list[Fault]:
        return [fault for fault in faults if wanted == "all" or names & set(fault.name.split())]

    for number, fault in enumerate(chosen(ON_SITE)):
        say(f"{fault.name}: {fault.title}")
        overrides = WIDE if fault.name == "F11" else ()
        yield _key(fault), held(_on_site(fault, profile, directory / f"site-{number}", overrides))
    for number, fault in enumerate(chosen(ALONE)):
        say(f"{fault.name}: {fault.title}")
        where = directory / f"alone-{number}"
        yield _key(fault), held(partial(fault.run, profile, where, FULL))


def _key(fault: Fault) -> str:
    return f"{fault.name} {fault.title}"


def _on_site(
    fault: Fault, profile: Path, directory: Path, overrides: Sequence[str]
) -> Callable[[], Figures]:
    def inject() -> Figures:
        with site_of(profile, directory, *overrides) as site:
            return fault.run(site, FULL)

    return inject


def held(inject: Callable[[], Figures]) -> dict[str, Any]:
    """Inject a fault; a promise that was not kept is among its figures and ends nothing else."""
    began_s = time.monotonic()
    try:
        found = inject()
        faults = []
    except Exception:
        found, faults = {}, [traceback.format_exc()[-3000:]]
    took_s = round(time.monotonic() - began_s, 1)
    ends = found.get("ends", {})
    return {"sent": 0, **found, "took_s": took_s, "by_status": ends, "faults": faults}
