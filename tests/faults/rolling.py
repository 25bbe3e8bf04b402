"""F20: two replicas behind nginx are restarted in turn under clients that retry."""

from __future__ import annotations

import collections
import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import free_port
from tests.deploy.replicas import Replica, nginx
from tests.faults.asked import CHAT
from tests.faults.figures import Figures, figures, percentiles
from tests.faults.leavers import PATH
from tests.faults.ledger import End, Entry, under_load
from tests.faults.raw import RawClient
from tests.faults.site import Scale, Site, lines_of, site_of

# As OpenAI's and Anthropic's clients have them by default.
RETRIES = 2
# The cores are those of two servers, and of the next one's start.
PAUSE_S, NUM_TOKENS = 1.0, 20
# Of the answer that is open when a replica is told to end.
OPEN = CHAT | {"max_tokens": 300, "ignore_eos": True, "stream": True}
POLL_S = 0.1


@dataclass
class Instance:
    """A replica on a port of its own, whatever server is there now, and what they all have said."""

    name: str
    profile: Path
    directory: Path
    overrides: tuple[str, ...]
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    running: Site | None = None
    warm_up: float = 0.0  # what the engine finishes in a start
    finished: float = 0.0  # by all engines so far, without that
    entries: list[Entry] = field(default_factory=list)  # asked here, past nginx
    access: list[Path] = field(default_factory=list)

    @property
    def site(self) -> Site:
        """The server that is there."""
        assert self.running is not None
        return self.running

    def start(self) -> None:
        """Start a server; it serves when this returns."""
        number = len(self.access)
        self.running = self.stack.enter_context(
            site_of(self.profile, self.directory / f"{self.name}-{number}", *self.overrides)
        )
        self.access.append(self.running.access)

    def end(self) -> None:
        """SIGTERM while it answers; count what its engine has finished by its end."""
        id_ = f"{self.name}-open-{len(self.access)}"
        client = RawClient(self.site.url, id_, self.site.server.headers)
        began_s = time.monotonic()
        client.post(PATH, OPEN)
        client.read_until(b"data: ")
        self.site.command.process.terminate()
        # With a request open its port stays open for seconds, and its series can be read.
        last = 0.0
        with contextlib.suppress(httpx.TransportError):
            while True:
                last = self.site.finished()
                time.sleep(POLL_S)
        assert b"data: [DONE]" in client.read_all()
        client.close()
        assert self.site.command.ended() == 0
        self.finished += last - self.warm_up
        self.entries.append(Entry(PATH, True, End.COMPLETED, "", id_, began_s, time.monotonic()))
        self.stack.close()  # nothing is left of it

    def restart(self) -> float:
        """End it and start it again; the seconds that it took."""
        began_s = time.monotonic()
        self.end()
        self.start()
        return time.monotonic() - began_s


def replicas_are_restarted(profile: Path, directory: Path, scale: Scale) -> Figures:
    """No client sees any of it: each request is answered whole, and exactly once."""
    seconds: list[float] = []
    with two_instances(profile, directory) as instances:
        replicas = [Replica(instance.site.url) for instance in instances]
        asking: dict[str, Any] = instances[0].site.asking
        load_of = {"num_tokens": NUM_TOKENS, "pause_s": PAUSE_S, "retries": RETRIES}
        with (
            nginx(replicas, directory) as proxy,
            under_load(proxy.url, scale.num_clients, name="F20", **load_of, **asking) as load,
        ):
            for number in range(scale.restarts):
                for instance in instances:
                    seconds.append(instance.restart())
                failed = load.ledger.sent - load.open - load.ledger.count(End.COMPLETED)
                scale.say(
                    f"  {number + 1} of {scale.restarts}: {load.ledger.sent} sent, "
                    f"{max(failed, 0)} failed, {seconds[-1]:.1f} s"
                )
            load.wait_for(scale.requests)
        for instance in instances:
            instance.end()
    visible = [entry for entry in load.ledger.entries if entry.end is not End.COMPLETED]
    assert not visible, (load.ledger.summary(), visible[:5])
    assert not load.ledger.wrong(), load.ledger.wrong()[:5]
    entries = [*load.ledger.entries, *(entry for one in instances for entry in one.entries)]
    assert sum(instance.finished for instance in instances) == len(entries)
    assert_answered_once(entries, instances)
    tries = collections.Counter(entry.tries for entry in load.ledger.entries)
    return figures(
        entries,
        restarts=len(seconds),
        restart_s=percentiles(seconds),
        tries={str(number): count for number, count in sorted(tries.items())},
    )


@contextlib.contextmanager
def two_instances(profile: Path, directory: Path) -> Iterator[list[Instance]]:
    """Two that serve, each on a core of its own."""
    cores = sorted(os.sched_getaffinity(0))
    with contextlib.ExitStack() as ends:
        instances = []
        for name, core in (("a", cores[0]), ("b", cores[-1])):
            overrides = (
                f"server.port={free_port()}",
                f'env.VLLM_CPU_OMP_THREADS_BIND="{core}"',
                "engine.max_num_seqs=32",
            )
            instance = Instance(name, profile, directory, overrides)
            ends.callback(instance.stack.close)
            instance.start()
            instance.warm_up = instance.site.finished()
            instances.append(instance)
        yield instances


def assert_answered_once(entries: list[Entry], instances: list[Instance]) -> None:
    """By the access logs of all servers one has answered each request; others may have refused."""
    statuses: dict[str, list[str]] = collections.defaultdict(list)
    for instance in instances:
        for access in instance.access:
            for id_, lines in lines_of(access).items():
                statuses[id_] += [line["status"] for line in lines]
    wrong = {
        entry.id: statuses[entry.id]
        for entry in entries
        if sorted(set(statuses[entry.id]) - {"503", "529"}) != ["200"]
        or statuses[entry.id].count("200") != 1
    }
    assert not wrong, list(wrong.items())[:10]
