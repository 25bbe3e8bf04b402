"""The real HTTP side without an engine. Importing it imports vLLM: not for conftest.py."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gemma_serve.api.app import build_app, only_probes
from gemma_serve.api.keys import KeyRing
from gemma_serve.api.state import ServerState
from gemma_serve.engine.timeline import Timeline
from gemma_serve.listen import HttpServer, open_ports
from gemma_serve.profile.schema import Profile


@dataclass(frozen=True)
class HttpSide:
    """Where the HTTP side of a server is reached."""

    url: str
    metrics_url: str | None
    probe_url: str | None


@contextlib.contextmanager
def http_side(
    settings: Mapping[str, Any],
    key: str | None = None,
    app: Any = None,
    limits: Mapping[str, Any] | None = None,
) -> Iterator[HttpSide]:
    """
    The real HTTP side of a server whose engine still starts, in a thread of this process.

    Args:
        settings: Keys of the profile's `server`.
        key: The API key that it asks for, if any.
        app: Another ASGI application in place of ours.
        limits: Keys of the profile's `limits`.
    """
    profile = Profile.model_validate(
        {
            "model": "google/gemma-3-4b-it",
            "server": {"port": 0, **settings},
            "limits": limits or {},
        }
    )
    keys = KeyRing(None, {"GEMMA_SERVE_API_KEYS": key or ""})
    app = app or build_app(ServerState(profile, Timeline(), keys=keys))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        with open_ports(profile.server) as ports:
            http = HttpServer(app, only_probes(app), ports, profile.server, profile.limits)
            asyncio.run_coroutine_threadsafe(http.start(), loop).result(30)
            beside = [
                port and f"http://127.0.0.1:{port.getsockname()[1]}"
                for port in (ports.metrics, ports.probe)
            ]
            yield HttpSide(http.url, *beside)
            asyncio.run_coroutine_threadsafe(http.stop(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
