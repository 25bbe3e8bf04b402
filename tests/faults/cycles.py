"""F19: the server is started and ended, again and again."""

from __future__ import annotations

import time
from pathlib import Path

from tests.faults.figures import Figures, figures, percentiles
from tests.faults.ledger import Entry
from tests.faults.site import Scale, site_of

# Of each server, from as many clients; together they are more than of any other fault.
NUM_REQUESTS, NUM_TOKENS = 32, 20


def starts_and_ends(profile: Path, directory: Path, scale: Scale) -> Figures:
    """Each start serves a load; each end leaves no process, shared memory, socket or file."""
    seconds: list[float] = []
    entries: list[Entry] = []
    for number in range(scale.cycles):
        began_s = time.monotonic()
        with site_of(profile, directory / str(number)) as site:
            load_of = {"num_clients": scale.num_clients, "num_tokens": NUM_TOKENS, "compared": 1}
            with site.loaded(f"F19-{number}", NUM_REQUESTS, **load_of) as load:
                pass
        assert load.ledger.summary().keys() == {"sent", "completed"}, load.ledger.summary()
        entries += load.ledger.entries
        seconds.append(time.monotonic() - began_s)
        scale.say(f"  {number + 1} of {scale.cycles}: {seconds[-1]:.1f} s")
    return figures(entries, cycles=len(seconds), left=0, cycle_s=percentiles(seconds))
