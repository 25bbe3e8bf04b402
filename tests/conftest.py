"""
What all tests share: the tiny model, and one server of it for the session.

At most one engine runs at a time. Tests run in this order: those without an engine, those of each
shared server, those that start one of their own. With `-n 2` those with an engine have a worker of
their own, and the others run beside them.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers import Server, serving
from tests.tiny_gemma import make_tiny_gemma

TINY = {
    "served_model_name": "tiny",
    "max_model_len": 4096,
    "kv_cache_memory_gib": 0.25,
    "engine": {
        "enforce_eager": True,
        # Random weights would put spaces between a grammar's tokens for ever.
        "structured_outputs_config": {"disable_any_whitespace": True, "backend": "xgrammar"},
    },
}
ServeProfile = Callable[..., AbstractContextManager[Server]]
# Each is started once, for all tests that ask for it.
SHARED = (
    *("tiny_server", "keyed_server", "vllm_backend_server"),
    *("tensorrtllm_server", "multimodal_server"),  # in tests/api/kserve
)


KEY, OTHER_KEY = "correct-horse", "battery"  # from the file, from the environment
ORIGIN = "https://chat.example"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Cheap tests first; then the shared server's, so that it is started once."""
    for item in items:
        if _engine_order(item):
            item.add_marker(pytest.mark.engine)
            item.add_marker(pytest.mark.xdist_group("engine"))
    items.sort(key=_engine_order)


def _engine_order(item: pytest.Item) -> int:
    fixtures = getattr(item, "fixturenames", ())
    for order, name in enumerate(SHARED, 1):
        if name in fixtures:
            return order
    own = "serve_profile" in fixtures or item.get_closest_marker("engine")
    return len(SHARED) + 1 if own else 0


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How long the bad inputs took, for which there are fifteen minutes (reliability/subset.py)."""
    reports = [report for of in terminalreporter.stats.values() for report in of]
    took_s = [
        report.duration
        for report in reports
        if getattr(report, "when", "") == "call" and report.nodeid.startswith("tests/reliability/")
    ]
    if took_s:
        line = f"tests/reliability: {len(took_s)} tests in {sum(took_s) / 60:.1f} minutes"
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random-weight Gemma 3 that real vLLM serves in seconds."""
    return make_tiny_gemma(tmp_path_factory.mktemp("tiny-gemma"))


@pytest.fixture(scope="session")
def tiny_profile(tiny_model: Path) -> Path:
    """A profile of the tiny model."""
    profile = tiny_model.parent / "tiny.yaml"
    profile.write_text(yaml.safe_dump({"model": str(tiny_model), **TINY}))
    return profile


@pytest.fixture(scope="session")
def engine_slot() -> Iterator[contextlib.ExitStack]:
    """Holds the session's one running server; to take the slot is to end the one before."""
    with contextlib.ExitStack() as slot:
        yield slot


@pytest.fixture(scope="session")
def tiny_server(
    tiny_profile: Path, engine_slot: contextlib.ExitStack, tmp_path_factory: pytest.TempPathFactory
) -> Server:
    """The shared server of the tiny model; tools by the pythonic parser, gRPC on a free port."""
    overrides = [
        "chat.tool_call_parser=pythonic",
        "limits.max_body_bytes=1000000",
        "server.grpc_port=0",
        "server.playground=true",
        "limits.max_grammar_compile_s=0.5",
        # For the first logprobs vLLM compiles a kernel, which took longer than 15 s on two cores.
        "limits.stall_s=60",
        "limits.wedge_s=300",
    ]
    log = tmp_path_factory.mktemp("log") / "tiny.log"
    engine_slot.close()
    return engine_slot.enter_context(serving(tiny_profile, overrides, log, dict(os.environ)))


@pytest.fixture(scope="session")
def metrics_port() -> int:
    """Where the server with keys shows its metrics too."""
    return free_port()


@pytest.fixture(scope="session")
def keyed_server(
    tiny_profile: Path,
    engine_slot: contextlib.ExitStack,
    metrics_port: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> Server:
    """A server as an operator would run it: keys, a metrics port, one origin, no documentation."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"{KEY}\n")
    overrides = [
        f"server.api_keys_file={keys}",
        f"server.metrics_port={metrics_port}",
        f"server.cors_allow_origins=[{ORIGIN}]",
        "server.docs=false",
        "server.grpc_port=0",
        "observability.log_format=json",
        "observability.access_log=true",
    ]
    log = tmp_path_factory.mktemp("log") / "keyed.log"
    environ = dict(os.environ) | {"GEMMA_SERVE_API_KEYS": OTHER_KEY, "VLLM_LOGGING_LEVEL": "DEBUG"}
    engine_slot.close()
    return engine_slot.enter_context(serving(tiny_profile, overrides, log, environ))


@pytest.fixture(scope="session")
def vllm_backend_server(
    tiny_profile: Path, engine_slot: contextlib.ExitStack, tmp_path_factory: pytest.TempPathFactory
) -> Server:
    """The tiny model with the tensors of Triton's vLLM backend."""
    overrides = ["triton.contract=vllm-backend", "server.grpc_port=0"]
    log = tmp_path_factory.mktemp("log") / "vllm-backend.log"
    engine_slot.close()
    return engine_slot.enter_context(serving(tiny_profile, overrides, log, dict(os.environ)))


@pytest.fixture
def serve_profile(engine_slot: contextlib.ExitStack, tmp_path: Path) -> ServeProfile:
    """`with serve_profile(name_or_path, overrides) as server`: a server of the test's own."""
    engine_slot.close()

    def serve(
        profile: str | Path, overrides: Sequence[str] = (), environ: dict[str, str] | None = None
    ) -> AbstractContextManager[Server]:
        environment = dict(os.environ) | (environ or {})
        return serving(profile, overrides, tmp_path / "server.log", environment)

    return serve
