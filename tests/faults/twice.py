"""F8: a second SIGTERM, or a second Ctrl-C, while the server still drains."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.figures import Figures, figures
from tests.faults.site import Scale, Site, site_of
from tests.faults.to_the_end import loaded_to_the_end
from tests.reliability.trends import Check

EXIT_S, IN_TESTS_S = 5.0, 15.0
LONG_TOKENS = 1900
DRAINING_S = 1.0


def sigterm_twice(profile: Path, directory: Path, scale: Scale) -> Figures:
    """A supervisor that is in a hurry: what is open is told, and the server ends within 5 s."""
    return told_twice(
        profile, directory, scale, lambda site: os.kill(site.pid, signal.SIGTERM), "F8-SIGTERM"
    )


def ctrl_c_twice(profile: Path, directory: Path, scale: Scale) -> Figures:
    """A person in a hurry: a terminal sends SIGINT to every process of the server's."""
    return told_twice(
        profile, directory, scale, lambda site: os.killpg(site.pid, signal.SIGINT), "F8-SIGINT"
    )


def told_twice(
    profile: Path, directory: Path, scale: Scale, tell: Callable[[Site], None], name: str
) -> Figures:
    """Tell it under load, and again while it drains, for which it would have ten minutes."""
    with site_of(profile, directory, "limits.drain_s=600") as site:
        with loaded_to_the_end(site, name, scale) as load:
            # From here on answers are long: what is open takes longer than is waited.
            load.num_tokens, sent = LONG_TOKENS, load.ledger.sent
            load.wait_for(sent + scale.num_clients)
            tell(site)
            site.command.wait_for("Draining")
            time.sleep(DRAINING_S)
            assert site.status_of("/readyz") == 503
            tell(site)
            told_s = time.monotonic()
            assert site.command.ended() == 0
            took_s = time.monotonic() - told_s
        site.join(load.ledger.entries)
        assert "Traceback" not in site.command.output()
    cut = [entry for entry in load.ledger.entries if entry.was_open(told_s)]
    assert len(cut) > scale.num_clients / 2, cut
    most_s = scale.most(EXIT_S, IN_TESTS_S)
    checks = [Check("s from the second signal until the end", took_s, most_s)]
    found = figures(load.ledger.entries, told_s, checks=checks)
    assert found["failures"].keys() <= {"draining", "overloaded_error", "error"}, found
    return found
