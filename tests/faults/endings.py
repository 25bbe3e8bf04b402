"""
F5: the model raises an error. F6 and F7: SIGTERM under load.

Half a body and a reader that stalls are there too when the server is told to end.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.faults.figures import Figures, figures
from tests.faults.leavers import PATH, waiting
from tests.faults.ledger import End, Entry
from tests.faults.raw import RawClient
from tests.faults.readers import ANSWER
from tests.faults.site import Scale, Site, site_of
from tests.faults.to_the_end import loaded_to_the_end
from tests.reliability.trends import Check

DRAIN_S, MORE_S, EXIT_S, TOLD_S = 8.0, 5.0, 10.0, 2.0
# So many that not all of them are answered within the drain.
NUM_CLIENTS, NUM_TOKENS, NUM_WAITING = 70, 120, 50
PROBE_S = 0.05
# What a probe found: its status, the status and Retry-After of a request of its own.
Probe = tuple[int, int, str | None]

# A plugin of vLLM's, which it calls in each of its processes.
PLUGIN = """
import multiprocessing, os

def register():
    if multiprocessing.parent_process() is None:
        return
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner
    step = GPUModelRunner.execute_model

    def execute_model(self, *args, **kwargs):
        if os.path.exists(os.environ["FAULT_FILE"]):
            raise RuntimeError("a fault of the test's own")
        return step(self, *args, **kwargs)

    GPUModelRunner.execute_model = execute_model
"""


# --- F5


def model_raises(profile: Path, directory: Path, scale: Scale) -> Figures:
    """An error in a step of the model ends each open request with one, and the server with 1."""
    file = directory / "raise"
    environ = install_plugin(directory) | {"FAULT_FILE": str(file)}
    with site_of(profile, directory, environ=environ) as site:
        with loaded_to_the_end(site, "F5", scale) as load:
            file.touch()
            raised_s = time.monotonic()
            assert site.command.ended() == 1
            took_s = time.monotonic() - raised_s
        assert "The engine died" in site.command.output()
        site.join(load.ledger.entries)
    open_then = [entry for entry in load.ledger.entries if entry.was_open(raised_s)]
    to_tell_s = max(entry.ended_s for entry in open_then) - raised_s
    checks = [
        Check("s until each open request was told", to_tell_s, scale.most(TOLD_S, EXIT_S)),
        Check("s until the server has ended", took_s, EXIT_S),
    ]
    found = figures(load.ledger.entries, raised_s, checks=checks)
    assert found["failures"].keys() <= {"engine_dead", "overloaded_error", "error"}, found
    assert sum(found["failures"].values()) > 0
    return found


def install_plugin(directory: Path) -> dict[str, str]:
    """A distribution with an entry point of vLLM's, as pip would install it; its environment."""
    site = directory / "site"
    info = site / "gemma_serve_fault-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gemma-serve-fault\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[vllm.general_plugins]\nfault = gemma_serve_fault:register\n"
    )
    (site / "gemma_serve_fault.py").write_text(PLUGIN)
    return {"PYTHONPATH": str(site)}


# --- F6 and F7


def told_to_end(site: Site, scale: Scale) -> Figures:
    """
    /readyz is 503 at once; what is new is refused with Retry-After, on a port that stays open; what
    runs is finished, what can't be gets an error; the server exits with 0 within its drain and 5 s.

    The half of a body and the reader that stalls change nothing of that.
    """
    half = RawClient(site.url, "F7-half", site.server.headers)
    stalled = RawClient(site.url, "F7-stalled", site.server.headers, narrow=True)
    with loaded_to_the_end(
        site, "F6", scale, num_clients=NUM_CLIENTS, num_tokens=NUM_TOKENS
    ) as load:
        stalled.post(PATH, ANSWER)
        stalled.read_until(b"data: ")
        site.command.until(lambda: waiting(site) >= NUM_WAITING, "a queue")
        half.post(PATH, ANSWER, sent_share=0.5)
        with probing(site) as probes:
            site.command.process.terminate()
            told_s = time.monotonic()
            assert site.command.ended() == 0
            took_s = time.monotonic() - told_s
    site.join(load.ledger.entries)
    assert_drained(probes)
    begun = [entry for entry in load.ledger.entries if began_before(entry, told_s)]
    cut = [entry for entry in begun if entry.end is not End.COMPLETED]
    assert begun, "nothing ran"
    assert not cut, cut[:5]
    assert "[DONE]" not in stalled.read_all().decode(errors="replace")
    told_half = half.read_all().decode(errors="replace")
    assert told_half.startswith("HTTP/1.1 503 ") or not told_half, told_half
    checks = [Check("s until the server has ended", took_s, DRAIN_S + MORE_S)]
    found = figures(load.ledger.entries, told_s, checks=checks, probes=len(probes))
    assert found["failures"].keys() <= {"draining", "overloaded_error", "error"}, found
    return found


def began_before(entry: Entry, told_s: float) -> bool:
    """Whether it was being answered at that moment."""
    first_s = entry.began_s + entry.ttft_s if entry.ttft_s else told_s
    return first_s < told_s <= entry.ended_s


@contextmanager
def probing(site: Site) -> Iterator[list[Probe]]:
    """Ask for /readyz and send a request again and again; what was answered."""
    probes: list[Probe] = []
    stop = threading.Event()
    body = {"prompt": "a", "max_tokens": 1}

    def probe() -> None:
        while not stop.wait(PROBE_S):
            with contextlib.suppress(httpx.TransportError), site.server.client() as http:
                ready = http.get("/readyz").status_code
                answer = http.post("/v1/completions", json=body)
                probes.append((ready, answer.status_code, answer.headers.get("retry-after")))

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield probes
    finally:
        stop.set()
        thread.join()


def assert_drained(probes: list[Probe]) -> None:
    """From the signal on each probe said 503, with a time to come back."""
    refused = [probe for probe in probes if probe[0] == 503]
    # The very first ones may have been before the signal.
    assert len(refused) >= len(probes) - 2 > 0, probes[:5]
    assert all(status == 503 and int(again or 0) > 0 for _, status, again in refused), refused
