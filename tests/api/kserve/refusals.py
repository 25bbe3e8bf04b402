"""What every refusal over KServe v2 must be, and what a server must be after any number of them."""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.servers import Server

# Stands in every prompt that is to be refused; no answer and no log may repeat it.
MARKER = "quokkamarker"
MAX_MESSAGE_CHARS = 1024
COMPILER = "gemma_serve.engine.grammar.process"
IDLE_S = 5  # in which an engine without clients comes to rest
LEAKS = (
    "Traceback",
    "site-packages",
    ".py",
    sys.prefix,
    tempfile.gettempdir(),
    MARKER,
)
ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")
ENGINE_GAUGES = ("vllm:num_requests_running", "vllm:num_requests_waiting")
# What is back at zero when nobody asks for anything.
IDLE_GAUGES = (
    *(*ENGINE_GAUGES, "vllm:kv_cache_usage_perc"),
    *("gemma_serve_admission_waiting_requests", "gemma_serve_engine_stalled"),
)
OPEN_REQUESTS = "gemma_serve_open_requests"
CANARY = {
    "messages": [{"role": "user", "content": "Name three rivers."}],
    "max_tokens": 16,
    "temperature": 0,
    "return_token_ids": True,
}
# The same for the python backend's contract.
GENERATE_CANARY = {"text_input": "Rome is", "max_new_tokens": 8, "do_sample": False}


def faults(message: object) -> list[str]:
    """What is wrong with the text of a refusal; nothing, as a rule."""
    if not isinstance(message, str) or not message.strip():
        return [f"no text: {message!r}"]
    found = [f"holds {leak!r}: {message!r}" for leak in LEAKS if leak in message]
    if ADDRESS.search(message):
        found.append(f"holds an address: {message!r}")
    if len(message) > MAX_MESSAGE_CHARS:
        found.append(f"has {len(message)} characters: {message[:80]!r}")
    return found


class Witness:
    """Knows the server as it was, and says whether it still is."""

    def __init__(self, server: Server, generate: Mapping[str, Any] = GENERATE_CANARY) -> None:
        self.server, self.http, self.generate = server, server.client(), generate
        self.processes = self._processes()
        self.answer = self._canary()
        self.log_chars = len(server.output())

    def check_unharmed(self) -> None:
        """The same processes, ready, idle, with the same greedy answer and no error in the log."""
        assert self._processes() == self.processes
        for probe in ("/v2/health/ready", "/readyz"):
            assert self.http.get(probe).status_code == 200
        self.check_idle()
        assert self._canary() == self.answer
        said = self.server.output()[self.log_chars :]
        self.log_chars += len(said)
        for word in ("ERROR", "Traceback", "exception was never retrieved", MARKER):
            assert word not in said, said

    def check_idle(self) -> None:
        """Within a bound, no request runs or waits, is open, or holds a part of the KV cache."""
        deadline_s = time.monotonic() + IDLE_S
        while busy := self._busy():
            assert time.monotonic() < deadline_s, f"the server is not idle: {busy}"
            time.sleep(0.1)

    def await_running(self) -> None:
        """Within a bound, a request has come to the engine."""
        deadline_s = time.monotonic() + IDLE_S
        while not self.requests_in_engine():
            assert time.monotonic() < deadline_s, "no request has come to the engine"
            time.sleep(0.05)

    def failures(self) -> int:
        """How many requests have ended without their whole answer since the server started."""
        [model] = self.http.get("/v2/models/tiny/stats").json()["model_stats"]
        return int(model["inference_stats"]["fail"]["count"])

    def await_failures(self, count: int) -> None:
        """Within a bound, exactly so many have."""
        deadline_s = time.monotonic() + IDLE_S
        while (found := self.failures()) < count:
            assert time.monotonic() < deadline_s, f"{found} of {count} have ended"
            time.sleep(0.1)
        assert found == count

    def requests_in_engine(self) -> float:
        """How many run or wait."""
        gauges = self._gauges()
        return sum(gauges[name] for name in ENGINE_GAUGES)

    def _busy(self) -> dict[str, float]:
        """The gauges that are not what they are when nothing goes on."""
        gauges = self._gauges()
        busy = {name: gauges[name] for name in IDLE_GAUGES if gauges[name]}
        if (is_open := gauges[OPEN_REQUESTS]) > 1:  # this one
            busy[OPEN_REQUESTS] = is_open
        return busy

    def _gauges(self) -> dict[str, float]:
        """The gauges of an idle server, and the requests that are open, this one among them."""
        names = (*IDLE_GAUGES, OPEN_REQUESTS)
        # To parse the others would take longer than to ask for them.
        lines = [
            line for line in self.http.get("/metrics").text.splitlines() if line.startswith(names)
        ]
        found = dict.fromkeys(names, 0.0)
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            for sample in family.samples:
                if sample.name in found:
                    found[sample.name] += sample.value
        return found

    def _processes(self) -> set[tuple[int, float]]:
        # What compiles structured outputs comes with the first of them, and forks for each.
        return {
            (process.pid, process.create_time())
            for process in self.server.processes()
            if COMPILER not in process.cmdline()
        }

    def _canary(self) -> tuple[list[int], str]:
        chat = self.http.post("/v1/chat/completions", json=CANARY)
        text = self.http.post("/v2/models/tiny/generate", json=self.generate)
        assert (chat.status_code, text.status_code) == (200, 200), (chat.text, text.text)
        return chat.json()["choices"][0]["token_ids"], text.json()["text_output"]

    def close(self) -> None:
        """Let go of the connections."""
        self.http.close()


def client_of(server: Server) -> httpx.Client:
    """A plain HTTP client that follows no redirect."""
    return server.client(follow_redirects=False)
