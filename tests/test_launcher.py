"""
Start and stop of the real program: failing starts, signals, probes, draining, a dead engine.

Every command runs in a session of its own, and every test asks whether something of it is left.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest

from gemma_serve import launcher
from tests.commands import Command, Serve, at_terminal, running

STOPPED = "Stopped before the server was ready."
SERVING = r"Serving tiny at (http://\S+) "
PHASES = ["import", "config", "processes", "weights", "compile", "kv_cache", "warm_up"]
LONG_CHAT = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Tell me a long story."}],
    "ignore_eos": True,
    "stream": True,
}


@pytest.fixture
def serve(tiny_profile: Path, tmp_path: Path) -> Serve:
    """Starts servers of the tiny model without waiting for them."""
    return Serve(tiny_profile, tmp_path)


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port of the loopback that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def assert_refused(command: Command, code: int, sentence: str) -> None:
    """It ended with this code and, as its last line, this sentence; vLLM was never imported."""
    assert (command.ended(), command.last_line()) == (code, f"gemma-serve: {sentence}")
    assert "Traceback" not in command.output()
    assert "Importing vLLM" not in command.output()


# --- starts that fail before vLLM is imported


@pytest.mark.parametrize(
    ("override", "code", "sentence"),
    [
        pytest.param(
            "model=/no/such/model",
            3,
            "Model '/no/such/model' does not exist; name a directory with a checkpoint, or a "
            "Hugging Face id such as google/gemma-3-4b-it.",
            id="no-model",
        ),
        pytest.param(
            "tensor_parallel_size=3",
            3,
            "tensor_parallel_size 3 does not divide the 4 attention heads of {model}; "
            "use 1, 2 or 4.",
            id="heads",
        ),
        pytest.param(
            "engine.quantization=gguf",
            3,
            "engine.quantization 'gguf' needs vllm-gguf-plugin, which is not installed; "
            "run 'pip install vllm-gguf-plugin'.",
            id="gguf-plugin",
        ),
        pytest.param(
            "engine.quantization=bitsandbytes",
            3,
            "engine.quantization 'bitsandbytes' needs vllm-bnb-plugin, which is not installed; "
            "run 'pip install vllm-bnb-plugin'.",
            id="bitsandbytes-plugin",
        ),
        pytest.param(
            "server.host=no.such.host.invalid",
            3,
            "server.host 'no.such.host.invalid' is no address of this machine; "
            "use 127.0.0.1 or 0.0.0.0.",
            id="unknown-host",
        ),
        pytest.param(
            "server.host=192.0.2.1",
            3,
            "server.host '192.0.2.1' is no address of this machine; use 127.0.0.1 or 0.0.0.0.",
            id="other-machines-host",
        ),
        pytest.param(
            "server.api_keys_file=/no/such/keys",
            2,
            "server.api_keys_file '/no/such/keys' can't be read (No such file or directory); "
            "give a file with one key a line.",
            id="no-keys-file",
        ),
        pytest.param(
            "server.api_keys_file=/dev/null",
            2,
            "server.api_keys_file '/dev/null' holds no key; write one key a line.",
            id="empty-keys-file",
        ),
        pytest.param(
            "server.tls={certfile: /no/such/cert.pem, keyfile: /no/such/key.pem}",
            2,
            "server.tls.certfile '/no/such/cert.pem' can't be read (No such file or directory); "
            "give a PEM file.",
            id="no-certificate",
        ),
        pytest.param(
            "sever.port=1",
            2,
            "--set sever.port=1: Unknown key 'sever'; the closest is 'server'.",
            id="unknown-key",
        ),
    ],
)
def test_refused_with_one_sentence(
    serve: Serve, tiny_model: Path, override: str, code: int, sentence: str
) -> None:
    """What can't be served ends at once with its exit code and one sentence that says why."""
    with serve(override) as command:
        assert_refused(command, code, sentence.replace("{model}", str(tiny_model)))


def test_unknown_profile(tmp_path: Path) -> None:
    """A profile that does not exist is exit code 2, and the sentence says how to list them."""
    with running(["serve", "nosuch"], tmp_path / "serve.log") as command:
        assert_refused(
            command, 2, "No profile named 'nosuch'; list them with: gemma-serve profiles."
        )


def test_directory_without_weights(serve: Serve, tiny_model: Path, tmp_path: Path) -> None:
    """A checkpoint directory without weights is refused before anything is started."""
    shutil.copytree(tiny_model, tmp_path / "m", ignore=shutil.ignore_patterns("*.safetensors"))

    with serve(f"model={tmp_path / 'm'}") as command:
        assert_refused(
            command,
            3,
            f"Model '{tmp_path / 'm'}' has no *.safetensors weights; fetch the whole checkpoint.",
        )


def test_model_that_is_not_gemma(serve: Serve, tmp_path: Path) -> None:
    """A model that is not Gemma is refused, with the key that would allow it."""
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config))

    with serve(f"model={tmp_path}") as command:
        assert_refused(
            command,
            3,
            f"Model '{tmp_path}' is not Gemma 1 to 4 (its config.json says 'LlamaForCausalLM'); "
            "serve a Gemma checkpoint, or set allow_other_models: true.",
        )


def test_unknown_model_id_without_network(serve: Serve) -> None:
    """A Hub id whose config.json can be had nowhere is one sentence, not a stack trace."""
    with serve("model=nobody/nothing", environ={"HF_HUB_OFFLINE": "1"}) as command:
        assert_refused(
            command,
            3,
            "The config.json of model 'nobody/nothing' is not in the Hugging Face cache and "
            "HF_HUB_OFFLINE is set; unset it, or name a local directory.",
        )


def test_more_workers_than_cores(serve: Serve) -> None:
    """More workers than the cores that the process may use is refused."""
    one_core = {min(os.sched_getaffinity(0))}

    with serve("tensor_parallel_size=2", cores=one_core) as command:
        assert_refused(
            command,
            3,
            "tensor_parallel_size 2 needs 2 CPU cores and this machine has 1; "
            "use at most 1 in all.",
        )


def test_more_memory_than_the_machine(serve: Serve) -> None:
    """A KV cache larger than the free memory is refused before vLLM tries to take it."""
    with serve("kv_cache_memory_gib=400000") as command:
        assert command.ended() == 3
        assert command.last_line().startswith("gemma-serve: ")
        assert "400000.0 GiB for the KV cache that it is given" in command.last_line()
        assert "; use kv_cache_memory_gib: " in command.last_line()
        assert "Importing vLLM" not in command.output()


@pytest.mark.parametrize("key", ["server.port", "server.metrics_port"])
def test_port_taken(serve: Serve, taken_port: int, key: str) -> None:
    """A port that is taken is refused with the process that has it."""
    owner = f"process {os.getpid()} ({psutil.Process().name()})"

    with serve(f"{key}={taken_port}") as command:
        assert_refused(
            command,
            3,
            f"Port {taken_port} on 127.0.0.1 is taken by {owner}; stop that program or choose "
            f"another {key}.",
        )


# --- starts that are interrupted


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_vllm_is_imported(serve: Serve, number: signal.Signals) -> None:
    """A signal before there is an event loop ends the start just as well."""
    with serve() as command:
        command.wait_for("Importing vLLM")
        command.process.send_signal(number)

        assert (command.ended(), command.last_line()) == (0, STOPPED)
        assert "Traceback" not in command.output()


@pytest.mark.usefixtures("serve_profile")
def test_sigterm_while_the_engine_loads(serve: Serve) -> None:
    """SIGTERM while vLLM's processes come up ends all of them, also those that are being born."""
    with serve() as command:
        command.wait_for_process("EngineCore")
        command.process.send_signal(signal.SIGTERM)

        assert (command.ended(), command.last_line()) == (0, STOPPED)


@pytest.mark.usefixtures("serve_profile")
def test_ctrl_c_at_a_terminal(tiny_profile: Path, tmp_path: Path) -> None:
    """A person sees what is going on; Ctrl-C, which reaches every process, ends it cleanly."""
    words = ["serve", tiny_profile, "--set=server.port=0"]
    with at_terminal(words, tmp_path / "screen.log") as command:
        command.wait_for("Importing vLLM")
        command.wait_for(r"import +\d+\.\d s\n")
        command.wait_for("Starting the engine and loading the model")
        command.wait_for_process("Worker")
        command.type("\x03")

        assert command.ended() == 0
        assert STOPPED in command.output()


# --- a start that fails inside vLLM


@pytest.mark.usefixtures("serve_profile")
def test_kv_cache_too_small(serve: Serve) -> None:
    """What vLLM finds out late is still one sentence with what to change, and leaves nothing."""
    # With hf_overrides nothing is counted before, and vLLM is left to find it out.
    overrides = "engine.hf_overrides.max_position_embeddings=8192"
    with serve("kv_cache_memory_gib=0.0005", overrides) as command:
        assert (command.ended(), command.last_line()) == (
            3,
            "gemma-serve: max_model_len 4096 needs 0.0 GiB of KV cache and there are 0.0 GiB; "
            "set max_model_len to at most 896, or kv_cache_memory_gib (CPU) or "
            "engine.gpu_memory_utilization (GPU) higher.",
        )
        assert "gemma_serve/launcher.py" not in command.output()


# --- running servers and their ends


def events_of(answer: httpx.Response) -> list[str]:
    """The data of each server-sent event up to the end of the stream, however it ends."""
    events: list[str] = []
    try:
        events.extend(line[6:] for line in answer.iter_lines() if line.startswith("data: "))
    except httpx.RemoteProtocolError:
        events.append("cut")
    return events


def first_event(lines: Iterator[str]) -> str:
    """The data of the next server-sent event."""
    return next(line[6:] for line in lines if line.startswith("data: "))


def status_of(client: httpx.Client, path: str) -> tuple[int, str]:
    """A probe's HTTP status and its word."""
    answer = client.get(path)
    return answer.status_code, answer.json()["status"]


def assert_refuses_chats(client: httpx.Client, code: str) -> None:
    """A new chat gets 503, its reason as the code, and when to come back."""
    refused = client.post("/v1/chat/completions", json=LONG_CHAT)

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, code)
    # Of a server that goes down, no connection is used again.
    assert (refused.headers.get("connection") == "close") is (code == "draining")
    assert int(refused.headers["retry-after"]) > 0


def assert_answers_while_vllm_is_imported(client: httpx.Client) -> None:
    """Probes, and 503 for the rest; each connection ends, as another server follows."""
    for path, status in {
        "/livez": 200,
        "/v2/health/live": 200,
        "/readyz": 503,
        "/startupz": 503,
        "/health": 503,
        "/v1/models": 503,
    }.items():
        answer = client.get(path)
        assert (answer.status_code, answer.headers["connection"]) == (status, "close")
        assert answer.headers["x-request-id"]
    refused = client.post("/v1/messages", json=LONG_CHAT)
    assert refused.json()["error"]["type"] == "overloaded_error"
    assert int(refused.headers["retry-after"]) > 0


def assert_timeline(info: dict[str, Any]) -> None:
    """All phases are there, and no more than the whole start."""
    *phases, (_, total_s) = info["startup_seconds"].items()

    assert [name for name, _ in phases] == PHASES
    assert all(seconds >= 0 for _, seconds in phases)
    assert sum(seconds for _, seconds in phases) <= total_s + 0.005 * (len(phases) + 1)


@pytest.mark.usefixtures("serve_profile")
def test_from_starting_to_drained(serve: Serve, tmp_path: Path) -> None:
    """
    Probes answer while the model loads; SIGTERM refuses what is new and finishes what is open.

    systemd is told that the server is ready, and that it stops.
    """
    port, manager = free_port(), tmp_path / "notify"
    # The bound is another test's: a busy machine may take its time over 3000 tokens.
    keys = (f"server.port={port}", "limits.drain_s=600")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
        serve(*keys, environ={"NOTIFY_SOCKET": str(manager)}) as command,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client,
    ):
        systemd.bind(str(manager))
        systemd.settimeout(0)
        command.wait_for("Importing vLLM")
        assert_answers_while_vllm_is_imported(client)
        assert "Starting the engine" not in command.output()

        command.wait_for("Starting the engine")
        command.wait_for_process("EngineCore")
        assert status_of(client, "/livez") == (200, "starting")
        assert status_of(client, "/startupz") == (503, "starting")
        assert status_of(client, "/readyz") == (503, "starting")
        assert_refuses_chats(client, "starting")

        assert command.wait_for(SERVING) == str(client.base_url).rstrip("/")
        for probe in ("/livez", "/startupz", "/readyz"):
            assert status_of(client, probe) == (200, "ready")
        assert_timeline(client.get("/v1/info").json())

        body = LONG_CHAT | {"max_tokens": 3000, "stream_options": {"include_usage": True}}
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = answer.iter_lines()
            first_event(lines)
            command.process.send_signal(signal.SIGTERM)
            command.wait_for("Draining")
            assert status_of(client, "/readyz") == (503, "draining")
            assert status_of(client, "/livez") == (200, "draining")
            assert_refuses_chats(client, "draining")
            *_, usage, done = [line[6:] for line in lines if line.startswith("data: ")]

        assert done == "[DONE]"
        assert json.loads(usage)["usage"]["completion_tokens"] == 3000
        assert command.ended() == 0
        assert systemd.recv(1024).splitlines()[0] == b"READY=1"
        assert systemd.recv(1024).splitlines() == [
            b"STOPPING=1",
            b"STATUS=Shutting down (open requests: 1)",
        ]


@pytest.mark.usefixtures("serve_profile")
def test_drain_bound_cuts_a_long_stream(serve: Serve) -> None:
    """A stream that outlives limits.drain_s ends with an error event, and the exit code is 0."""
    with (
        serve("limits.drain_s=0.5", "max_model_len=8192") as command,
        httpx.Client(base_url=command.wait_for(SERVING), timeout=60) as client,
        client.stream("POST", "/v1/chat/completions", json=LONG_CHAT) as answer,
    ):
        command.process.send_signal(signal.SIGTERM)

        assert json.loads(events_of(answer)[-1])["error"]["code"] == "draining"
        assert command.ended() == 0
        assert "Cut off (open requests: 1)." in command.output()
        assert "Traceback" not in command.output()


@pytest.mark.usefixtures("serve_profile")
def test_ctrl_c_drains_and_a_second_one_does_not_wait(tiny_profile: Path, tmp_path: Path) -> None:
    """
    Ctrl-C, which a terminal sends to vLLM's processes too, leaves an open answer whole; a second
    one ends what is left without waiting for limits.drain_s.
    """
    settings = ["server.port=0", "server.docs=false", "limits.drain_s=3600", "max_model_len=8192"]
    words = ["serve", tiny_profile, *(f"--set={setting}" for setting in settings)]
    with (
        at_terminal(words, tmp_path / "screen.log") as command,
        httpx.Client(base_url=command.wait_for(SERVING), timeout=60) as client,
        client.stream("POST", "/v1/chat/completions", json=LONG_CHAT) as endless,
        client.stream("POST", "/v1/chat/completions", json=LONG_CHAT | {"max_tokens": 500}) as long,
    ):
        assert "(Ctrl-C stops)" in command.output()
        command.type("\x03")
        command.wait_for("Draining")
        assert events_of(long)[-1] == "[DONE]"

        command.type("\x03")
        assert json.loads(events_of(endless)[-1])["error"]["code"] == "draining"
        assert command.ended() == 0
        assert "Cut off (open requests: 1)." in command.output()


@pytest.mark.parametrize(
    ("number", "num_open", "listens"),
    [(signal.SIGTERM, 1, True), (signal.SIGTERM, 0, False), (signal.SIGINT, 1, False)],
    ids=["under load", "idle", "Ctrl-C"],
)
def test_port_stays_open_for_a_while(
    monkeypatch: pytest.MonkeyPatch, number: int, num_open: int, listens: bool
) -> None:
    """After SIGTERM under load, also when all is answered; a second signal ends that too."""
    monkeypatch.setattr(launcher, "LISTEN_S", 3600.0)
    monkeypatch.setattr(launcher, "POLL_S", 0.001)
    limits = SimpleNamespace(drain_s=7200.0)
    plan = SimpleNamespace(loaded=SimpleNamespace(profile=SimpleNamespace(limits=limits)))
    state = SimpleNamespace(open_requests=num_open, alive=True)
    rest: Any = SimpleNamespace(say=lambda _: None)
    server = launcher.Server(
        plan,  # type: ignore[arg-type]
        state,  # type: ignore[arg-type]
        http=rest,
        events=Path(),
        progress=rest,
        kserve=rest,
        keys=rest,
        gate=None,
    )

    async def drain() -> bool:
        server._on_signal(number)
        draining = asyncio.create_task(server._drain())
        await asyncio.sleep(0)
        state.open_requests = 0
        await asyncio.sleep(0.1)
        still_open = not draining.done()
        server._on_signal(signal.SIGTERM)
        await draining
        return still_open

    assert asyncio.run(drain()) is listens
