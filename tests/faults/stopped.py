"""F4: the engine core is stopped (SIGSTOP): for a while, for longer, and for ever."""

from __future__ import annotations

import json
import signal
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.faults.asked import body_of
from tests.faults.figures import Figures, figures
from tests.faults.killed import DEAD, EXIT_S, TOLD_S
from tests.faults.leavers import PATH
from tests.faults.ledger import End, Load
from tests.faults.probes import Seen, first_s, watching
from tests.faults.site import Scale, Site, site_of
from tests.faults.to_the_end import loaded_to_the_end, wait_for_all
from tests.reliability.trends import Check

# What clients wait beside the time until an engine is given up.
PATIENCE_S = 60.0
# A stop that is short, as a part of limits.stall_s.
SHORT = 2 / 3
# What a test waits longer than promised.
IN_TESTS_S = 30.0


def engine_is_stopped(profile: Path, directory: Path, scale: Scale) -> Figures:
    """With the defaults: 10 s are nothing, /readyz sees it in 15 s, and the end comes after 60."""
    incidents = directory / "incidents"
    with site_of(profile, directory, f"observability.incident_dir={incidents}") as site:
        found = stop_engine(site, scale)
    [incident] = incidents.iterdir()
    assert_tells(incident)
    return found


def stop_engine(site: Site, scale: Scale) -> Figures:
    """
    Stop it for less than limits.stall_s: nobody sees it. For longer: /readyz sees it, and nothing
    is lost when it goes on. For good: it is wedged, every open request is told, the exit code is 1.
    """
    stall_s, wedge_s = site.limit("stall_s"), site.limit("wedge_s")
    engine = site.command.wait_for_process("EngineCore")
    with (
        loaded_to_the_end(site, "F4", scale, answer_s=wedge_s + PATIENCE_S) as load,
        watching(site.url, "/readyz") as ready,
        watching(site.url, "/livez") as live,
    ):
        # Of the tests' shorter bound a part would be too near to it, on a machine that is busy.
        if scale.is_full:
            with stopped(engine) as stopped_s:
                time.sleep(SHORT * stall_s)
            wait_for_more(site, load)
            assert [one.status for one in ready if one.asked_s > stopped_s].count(503) == 0
        with stopped(engine) as stopped_s:
            readyz_s = until(site, ready, stopped_s, 503, "stalled") - stopped_s
            assert_stalled(site)
        until(site, ready, time.monotonic(), 200, "ready")
        wait_for_more(site, load)
        assert not load.ledger.lost(), load.ledger.lost()[:5]
        assert load.ledger.count(End.FAILED) == 0

        wait_for_all(site, load)
        engine.send_signal(signal.SIGSTOP)
        stopped_s = time.monotonic()
        assert site.command.ended() == 1
        ended_s = time.monotonic()
    dead_s = first_s(live, stopped_s, lambda one: one.status == 503)
    assert dead_s is not None, "/livez never said so"
    site.join(load.ledger.entries)
    assert "The engine is wedged: no sign of life for" in site.command.output()
    assert "Traceback" not in site.command.output()
    waited = [entry for entry in load.ledger.entries if entry.was_open(stopped_s)]
    told_s = max(entry.ended_s for entry in waited) - dead_s
    found = figures(
        load.ledger.entries,
        stopped_s,
        checks=[
            at_most("s until /readyz was 503 stalled", readyz_s, stall_s, scale),
            at_most("s until /livez was 503", dead_s - stopped_s, wedge_s, scale),
            at_most("s from then until each open request was told", told_s, TOLD_S, scale),
            at_most("s from then until the server had ended", ended_s - dead_s, EXIT_S, scale),
        ],
        short_stop_s=SHORT * stall_s if scale.is_full else None,
    )
    # Those that have waited in the queue for limits.max_wait_s are told sooner.
    assert found["failures"].keys() <= DEAD | {"stalled", "engine_overloaded"}, found
    assert load.ledger.count(End.FAILED) + load.ledger.count(End.REFUSED) >= scale.num_clients
    return found


def at_most(name: str, seconds: float, promised_s: float, scale: Scale) -> Check:
    """A time, and what is promised of it."""
    return Check(name, seconds, scale.most(promised_s, promised_s + IN_TESTS_S))


@contextmanager
def stopped(process: psutil.Process) -> Iterator[float]:
    """A process stopped for a while; since when, on the monotonic clock."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield time.monotonic()
    finally:
        process.send_signal(signal.SIGCONT)


def until(site: Site, seen: Sequence[Seen], since_s: float, status: int, said: str) -> float:
    """Wait until a probe that is watched says this, and return when it did."""

    def says_so(one: Seen) -> bool:
        return (one.status, one.said) == (status, said)

    site.command.until(lambda: first_s(seen, since_s, says_so) is not None, said)
    found = first_s(seen, since_s, says_so)
    assert found is not None
    return found


def wait_for_more(site: Site, load: Load) -> None:
    """Wait until each client has had an answer since."""
    enough = load.ledger.count(End.COMPLETED) + load.num_clients
    site.command.until(lambda: load.ledger.count(End.COMPLETED) >= enough, "answers")


def assert_stalled(site: Site) -> None:
    """Whoever can go elsewhere is told so; the process is not given up."""
    with site.server.client() as http:
        alive = http.get("/livez")
        assert (alive.status_code, alive.json()["engine"]["progress"]) == (200, "stalled")
        assert http.get("/v2/health/ready").status_code == 503
        refused = http.post(PATH, json=body_of(PATH, 1))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "stalled")
        assert int(refused.headers["retry-after"]) > 0


def assert_tells(incident: Path) -> None:
    """It says what happened, how the requests looked, where the processes were; never a word."""
    told = json.loads((incident / "incident.json").read_text())
    assert told["reason"].startswith("no sign of life from the engine for")
    assert len(told["requests"]) >= 5
    assert {"prompt_tokens", "generated_tokens", "age_s"} <= told["requests"][0].keys()
    assert {"route", "status", "duration_ms"} <= told["last_requests"][-1].keys()
    # As of the last step, which may have ended all that ran.
    assert {"running", "waiting"} <= told["schedulers"][0].keys()
    assert "stopped" in {process["status"] for process in told["processes"]}
    assert "max_model_len" in {setting["key"] for setting in told["settings"]}
    stacks = (incident / "stacks.txt").read_text()
    assert "incident.py" in stacks  # ours
    assert "It is stopped" in stacks  # the engine core
    assert "multiproc_executor.py" in stacks  # the worker, which waits for it
    assert "vllm:num_requests_running" in (incident / "metrics.txt").read_text()
    for file in incident.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert "long story" not in file.read_text()
