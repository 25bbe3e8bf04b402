"""`gemma-serve top`: against the shared server, at a terminal, and where there is none."""

from __future__ import annotations

import io
import json
import re
import socket
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Info, make_asgi_app
from rich.console import Console

from gemma_serve.top import MAX_KEYS, TopError, Watch, duration, number, screen, seconds
from tests.commands import at_terminal, running
from tests.http_side import http_side
from tests.servers import Server


def generate(server: Server, tokens: int = 50) -> None:
    """One finished request, streamed."""
    message = {"role": "user", "content": "What is a haiku?"}
    body = {"messages": [message], "max_tokens": tokens, "ignore_eos": True, "stream": True}
    with server.client() as client:
        assert client.post("/v1/chat/completions", json=body).status_code == 200


# --- with a server


def test_once_as_json(tiny_server: Server, tmp_path: Path) -> None:
    """`--once --json` is one JSON object of the real server's figures, and exit code 0."""
    generate(tiny_server)
    words = ["top", tiny_server.base_url, "--once", "--json", "--interval", "0.2"]
    with running(words, tmp_path / "top.log") as command:
        assert command.ended() == 0

    shown = json.loads(command.output())
    assert (shown["url"], shown["status"]) == (tiny_server.base_url, "ready")
    assert shown["server"]["profile"] == "tiny"
    assert shown["uptime_s"] > 0
    assert shown["running"] == shown["waiting"] == 0
    assert 0 <= shown["kv_cache_usage"] < 1
    assert shown["generation_tokens_per_s"] == 0
    assert shown["latencies"]["ttft"]["count"] == 0


def test_what_happens_between_two_looks(tiny_server: Server) -> None:
    """Tokens, latencies and errors of the window are those of the requests in it."""
    with Watch(tiny_server.base_url, window_s=600) as watch, tiny_server.client() as client:
        watch.look()
        generate(tiny_server, 50)
        generate(tiny_server, 30)
        assert client.get("/nowhere").status_code == 404
        watch.look()
        shown = watch.view()

    assert shown.generation_tokens_per_s == pytest.approx(80 / shown.window_s)
    assert shown.finished_per_s == pytest.approx(2 / shown.window_s)
    assert shown.errors == {"4xx": 1, "5xx": 0, "499": 0}
    for name in ("ttft", "tpot", "e2e", "queue"):
        latency = shown.latencies[name]
        assert latency.count == 2
        assert latency.percentiles_s[50] <= latency.percentiles_s[99]
    assert shown.latencies["ttft"].mean_s < shown.latencies["e2e"].mean_s


def test_the_window_slides(tiny_server: Server) -> None:
    """Readings older than the window go, but for the one that the window begins with."""
    with Watch(tiny_server.base_url, window_s=0.001) as watch:
        for _ in range(5):
            watch.look()

        assert len(watch.readings) == 2


def test_at_a_terminal(tiny_server: Server, tmp_path: Path) -> None:
    """The view is drawn and drawn again; q leaves with 0."""
    words = ["top", tiny_server.base_url, "--interval", "0.2"]
    with at_terminal(words, tmp_path / "screen.log") as command:
        command.wait_for(r"tiny .*bf16 · vLLM 0\.32\.\d+ · ready · up \d+")
        command.wait_for(r"0 running, 0 waiting")
        generate(tiny_server)
        command.wait_for(r"time to first token +\d[\d.,]* m?s")
        command.type("q")

        assert command.ended() == 0


def test_ctrl_c_leaves(tiny_server: Server, tmp_path: Path) -> None:
    """Ctrl-C leaves as q does."""
    with at_terminal(["top", tiny_server.base_url], tmp_path / "screen.log") as command:
        command.wait_for("KV cache")
        command.type("\x03")

        assert command.ended() == 0
        assert "Traceback" not in command.output()


# --- with none, or one that refuses


def refusal(url: str) -> str:
    """The one sentence that a look at this server ends in."""
    with pytest.raises(TopError) as caught, Watch(url, 30) as watch:
        watch.look()
    return caught.value.message


def test_a_server_that_asks_for_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key, and with a wrong one, the variable is named; with it, the start is shown."""
    with http_side({}, key="right") as side:
        url = side.url
        monkeypatch.delenv("GEMMA_SERVE_API_KEY", raising=False)
        expected = (
            f"{url} asks for a key it knows; set GEMMA_SERVE_API_KEY, or name the port of "
            "server.metrics_port, which needs none."
        )
        assert refusal(url) == expected
        monkeypatch.setenv("GEMMA_SERVE_API_KEY", "wrong")
        assert refusal(url) == expected

        monkeypatch.setenv("GEMMA_SERVE_API_KEY", "right")
        with Watch(url, 30) as watch:
            watch.look()
            assert watch.status == "starting"
            assert watch.view().running is None
            Console(file=io.StringIO()).print(screen(watch))


def test_another_kind_of_server() -> None:
    """A server that is none of ours is one sentence too."""
    with http_side({}, app=make_asgi_app(CollectorRegistry())) as side:
        assert refusal(side.url) == (
            f"{side.url} is no gemma-serve (no series gemma_serve_info); name one as "
            "'gemma-serve top http://HOST:PORT'."
        )


@pytest.mark.parametrize(
    ("version", "title"),
    [("0.31.1", "vLLM 0.31.1, not 0.32: figures may be missing"), ("0.32.4", "vLLM 0.32.4 ")],
)
def test_another_release_of_vllm(version: str, title: str) -> None:
    """A vLLM whose series have other names is named in the title, and nothing fails for it."""
    registry = CollectorRegistry()
    Info("gemma_serve", "What is served.", registry=registry).info({"vllm_version": version})
    shown = Console(file=io.StringIO(), width=100)
    with http_side({}, app=make_asgi_app(registry)) as side, Watch(side.url, 30) as watch:
        watch.look()
        shown.print(screen(watch))
    assert title in shown.file.getvalue()


class Keys:
    """The series of each key's use, as the server has them, in a registry of the test's own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        Info("gemma_serve", "What is served.", registry=self.registry).info({"profile": "tiny"})
        self.requests = self._counter("requests", "key", "outcome")
        self.prompts = self._counter("prompt_tokens", "key")
        self.generated = self._counter("generation_tokens", "key")

    def _counter(self, what: str, *labels: str) -> Counter:
        return Counter(f"gemma_serve_key_{what}_total", what, labels, registry=self.registry)

    def use(self, key: str, taken: int, refused: int, prompt: int, generated: int) -> None:
        """Count requests and tokens of a key."""
        self.requests.labels(key, "taken").inc(taken)
        self.requests.labels(key, "refused").inc(refused)
        self.prompts.labels(key).inc(prompt)
        self.generated.labels(key).inc(generated)


def key_rows(watch: Watch) -> list[list[str]]:
    """The table of keys as it is drawn: words of its head, then of each key's line."""
    shown = Console(file=io.StringIO(), width=100)
    shown.print(screen(watch))
    lines = [line.strip("│ ") for line in shown.file.getvalue().splitlines()]
    head = next(place for place, line in enumerate(lines) if line.startswith("key "))
    rows = [re.split(r" {2,}", line) for line in lines[head:]]
    return rows[: next(place for place, row in enumerate(rows) if len(row) != len(rows[0]))]


def test_keys() -> None:
    """Each key's use in the window, whatever its name holds; most generated tokens first."""
    keys = Keys()
    keys.use("team-a", taken=7, refused=0, prompt=700, generated=70)  # before the window
    side = http_side({}, app=make_asgi_app(keys.registry))
    with side as running, Watch(running.url, 30) as watch:
        watch.look()
        keys.use("team-a", taken=2, refused=1, prompt=20, generated=1_000)
        keys.use("[bold]b", taken=4, refused=0, prompt=12_345, generated=6_000)
        watch.look()

        assert key_rows(watch) == [
            ["key", "requests", "tokens in", "tokens out"],
            ["[bold]b", "4", "12,345", "6,000"],
            ["team-a", "3", "20", "1,000"],
        ]


def test_of_many_keys_the_first_few() -> None:
    """Of more keys than fit, those with the most generated tokens."""
    keys = Keys()
    names = [f"key-{number:02}" for number in range(MAX_KEYS + 3)]
    side = http_side({}, app=make_asgi_app(keys.registry))
    with side as running, Watch(running.url, 30) as watch:
        watch.look()
        for generated, name in enumerate(names):
            keys.use(name, taken=1, refused=0, prompt=1, generated=generated)
        watch.look()

        assert [row[0] for row in key_rows(watch)[1:]] == names[: -MAX_KEYS - 1 : -1]


def test_no_server(tmp_path: Path) -> None:
    """No server there: one line, and exit code 1."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with running(["top", url, "--once"], tmp_path / "top.log") as command:
            assert command.ended() == 1

    assert command.output() == (
        f"gemma-serve: No answer from {url} (ConnectError); start a server with 'gemma-serve "
        "serve', or name another as 'gemma-serve top http://HOST:PORT'.\n"
    )


@pytest.mark.parametrize("url", ["127.0.0.1:1", "http://[x", "http://a b"])
def test_no_address(url: str) -> None:
    """What is no URL is told as a server that is not there."""
    assert refusal(url).startswith(f"No answer from {url} (")


def test_metrics_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """The port without keys has no probe, and so no status; its series are read all the same."""
    monkeypatch.delenv("GEMMA_SERVE_API_KEY", raising=False)
    with http_side({"metrics_port": 0}, key="right") as side, Watch(side.metrics_url, 30) as watch:
        watch.look()

        assert watch.status is None
        assert watch.view().uptime_s > 0


# --- figures as people read them


def test_units() -> None:
    """Large ones separated, latencies in the unit that fits, durations in two units."""
    assert [number(value) for value in (None, 3, 12.34, 1234.5)] == ["-", "3", "12.3", "1,234"]
    assert [seconds(value) for value in (None, 0.0123, 0.999, 12.5)] == [
        *("-", "12.3 ms", "999.0 ms", "12.50 s")
    ]
    assert [duration(value) for value in (0, 59, 61, 3_600, 90_061)] == [
        *("0 s", "59 s", "1 min 1 s", "1 h 0 min", "1 d 1 h")
    ]
