"""F1 and F2: the engine core, or a worker, is killed. F3: the server's own process is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import service_pb2_grpc

from gemma_serve.rundir import ABANDONED_S
from tests.api.kserve.test_grpc_leavers import long_message
from tests.conftest import free_port
from tests.faults.figures import Figures, figures
from tests.faults.ledger import End, Entry
from tests.faults.probes import Seen, first_s, watching
from tests.faults.site import Scale, Site, site_of, temporary_directory
from tests.faults.starts import refused_start
from tests.faults.to_the_end import loaded_to_the_end, wait_for_all
from tests.reliability.trends import Check

# Promised: each open request is told, the server has ended, all of its processes are gone.
TOLD_S, EXIT_S, GONE_S = 2.0, 10.0, 5.0
DEAD = {"engine_dead", "overloaded_error", "error"}
# So long before a kill a request may have ended whose line the log did not get any more.
LAST_MOMENT_S = 0.1


# --- F1, F2


def engine_is_killed(profile: Path, directory: Path, scale: Scale) -> Figures:
    """
    Every open request of every API ends with an error that says so, none with a success; /livez
    says it; the server exits with 1 and leaves nothing.
    """
    with site_of(profile, directory, "server.grpc_port=0") as site, open_calls(site) as calls:
        found = kill_below(site, "F1", "EngineCore", scale, calls)
    assert "Traceback" not in site.command.output()
    return found


def worker_is_killed(profile: Path, directory: Path, scale: Scale) -> Figures:
    """The same where one of two workers goes, of which vLLM's engine core writes a stack."""
    with site_of(profile, directory, "tensor_parallel_size=2") as site:
        assert len(site.command.processes("Worker")) == 2
        return kill_below(site, "F2", "Worker", scale)


class Calls:
    """Requests over gRPC that are open when the engine goes."""

    def __init__(self, stub: Any, metadata: Any) -> None:
        self.whole = stub.ModelInfer.future(long_message(), metadata=metadata)
        self.stream = stub.ModelStreamInfer(iter([long_message("one")]), metadata=metadata)
        assert not next(self.stream).error_message

    def assert_told(self) -> None:
        """Both say that the engine is dead."""
        assert self.whole.exception(timeout=30).code() is grpc.StatusCode.UNAVAILABLE
        assert "engine is dead" in [answer.error_message for answer in self.stream][-1]


@contextmanager
def open_calls(site: Site) -> Iterator[Any]:
    """A function that opens calls over gRPC."""
    with grpc.insecure_channel(site.server.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        yield lambda: Calls(stub, list(site.server.headers.items()))


def kill_below(site: Site, name: str, title: str, scale: Scale, calls: Any = None) -> Figures:
    """Kill the first of the server's processes with this word in its title."""
    with (
        loaded_to_the_end(site, name, scale) as load,
        watching(site.url, "/livez") as seen,
    ):
        opened = calls() if calls else None
        wait_for_all(site, load)
        site.command.wait_for_process(title).kill()
        killed_s = time.monotonic()
        if opened is not None:
            opened.assert_told()
        assert site.command.ended() == 1
        exit_s = time.monotonic() - killed_s
    site.join(load.ledger.entries)
    assert "The engine died" in site.command.output()
    checks = [
        *told(load.ledger.entries, seen, killed_s, scale),
        Check("s until the server has ended", exit_s, EXIT_S),
    ]
    found = figures(load.ledger.entries, killed_s, checks=checks)
    assert found["failures"].keys() <= DEAD, found
    assert load.ledger.count(End.FAILED) > 0, found
    assert load.ledger.count(End.REFUSED) > 0, found
    return found


def told(
    entries: list[Entry], seen: list[Seen], dead_s: float, scale: Scale
) -> tuple[Check, Check]:
    """How soon clients and the probe knew of an engine that was dead from that moment on."""
    told_s = max(entry.ended_s for entry in entries if entry.was_open(dead_s)) - dead_s
    livez_s = first_s(seen, dead_s, lambda one: one.status == 503)
    assert livez_s is not None, "/livez never said so"
    late = [one for one in seen if one.asked_s > livez_s and one.status != 503]
    assert not late, late
    most_s = scale.most(TOLD_S, EXIT_S)
    return (
        Check("s until each open request was told", told_s, most_s),
        Check("s until /livez was 503", livez_s - dead_s, most_s),
    )


# --- F3


def server_is_killed(profile: Path, directory: Path, scale: Scale) -> Figures:
    """
    The engine and its workers are gone within 5 s; the next start serves on the same port; what the
    killed one left on disk goes with a start a minute later.
    """
    port = f"server.port={free_port()}"
    with temporary_directory() as temporary:
        with site_of(profile, directory / "first", port, temporary=temporary) as site:
            found = kill_server(site, scale)
            left, killed_s = site.left(), time.monotonic()
        with site_of(profile, directory / "second", port, temporary=temporary) as site:
            with site.loaded("F3-next", **scale.load) as load:
                pass
            assert load.ledger.summary().keys() == {"sent", "completed"}, load.ledger.summary()
        time.sleep(max(killed_s + ABANDONED_S + 1 - time.monotonic(), 0))
        refused_start([profile, "--set=model=/no/such/model"], directory, temporary=temporary)
        still = [path for path in left if Path(path).exists()]
        assert not still, still
    return found | {"sent_to_the_next": load.ledger.sent, "left_on_disk": len(left)}


def kill_server(site: Site, scale: Scale) -> Figures:
    """
    Kill it under load: nobody is there to tell its clients, whose connections break.

    None of them sees a success that is none.
    """
    with loaded_to_the_end(site, "F3", scale, may_break=True) as load:
        site.command.process.kill()
        killed_s = time.monotonic()
        while left := site.command.processes():
            assert time.monotonic() < killed_s + EXIT_S, f"left running: {left}"
            time.sleep(0.02)
        gone_s = time.monotonic() - killed_s
    entries = load.ledger.entries
    broken_off = [entry for entry in entries if entry.end is End.BROKEN]
    assert all(entry.ended_s > killed_s for entry in broken_off), broken_off[:5]
    site.join([entry for entry in entries if entry.ended_s < killed_s - LAST_MOMENT_S])
    checks = [Check("s until no process of it is left", gone_s, GONE_S)]
    return figures(entries, killed_s, checks=checks, may_break=True)
