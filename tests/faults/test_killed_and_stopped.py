"""
F3 and F4 of the faults: the server's own process is killed; its engine core is stopped (SIGSTOP).

One test, so that the start after the kill is the one in which the engine is stopped.
"""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from tests.conftest import free_port
from tests.faults.figures import broken
from tests.faults.killed import kill_server
from tests.faults.ledger import under_load
from tests.faults.site import Scale, Site, site_of, temporary_directory
from tests.faults.stopped import assert_tells, stop_engine

pytestmark = pytest.mark.engine
SATURATED_S, SATURATED_CLIENTS = 4.0, 64
SCALE = Scale()


@pytest.mark.usefixtures("no_other")
def test_killed_server_and_stopped_engine(profile: Path, tmp_path: Path) -> None:
    """
    Saturated, a server is never called stalled. Killed, its engine and workers are gone within 5 s,
    and the next start serves on the same port. There the engine is stopped: /readyz sees it, and no
    request is lost when it goes on; stopped for good, it is wedged: an incident is kept, every open
    request is told, and the server exits with 1.
    """
    port, incidents = f"server.port={free_port()}", tmp_path / "incidents"
    settings = (port, "limits.stall_s=1.5", "limits.wedge_s=4")
    where = f"observability.incident_dir={incidents}"
    with temporary_directory() as temporary:
        shared = {"temporary": temporary}
        with site_of(profile, tmp_path / "1", port, "limits.stall_s=1", **shared) as site:
            saturate(site)
            assert len(site.command.processes("Worker")) == 1
            killed = kill_server(site, SCALE)
        assert "has stalled" not in site.command.output()
        with site_of(profile, tmp_path / "2", *settings, where, **shared) as site:
            stopped = stop_engine(site, SCALE)
    print(killed, stopped)  # for `pytest -rP`
    assert not broken(killed)
    assert not broken(stopped)
    (incident,) = incidents.iterdir()
    assert_tells(incident)


def saturate(site: Site) -> None:
    """For some seconds of full load /readyz and /livez are 200."""
    with under_load(site.url, SATURATED_CLIENTS, name="saturating", **site.asking) as load:
        site.command.until(lambda: load.open == SATURATED_CLIENTS, "64 requests at once")
        deadline_s = time.monotonic() + SATURATED_S
        with httpx.Client(base_url=site.url, timeout=30) as http:
            while time.monotonic() < deadline_s:
                for probe in ("/readyz", "/livez"):
                    answer = http.get(probe)
                    assert answer.status_code == 200, answer.text
                time.sleep(0.2)
    assert load.ledger.summary().keys() == {"sent", "completed"}, load.ledger.summary()
    site.join(load.ledger.entries)
