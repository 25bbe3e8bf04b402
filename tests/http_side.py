"""The real HTTP side without an engine. Importing it imports vLLM: not for conftest.py."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gemma_serve.api.app import build_app
from gemma_serve.api.keys import read_keys
from gemma_serve.api.state import ServerState
from gemma_serve.engine.timeline import Timeline
from gemma_serve.listen import HttpServer, open_ports
from gemma_serve.profile.schema import Profile


@dataclass(frozen=True)
class HttpSide:
    """Where the HTTP side of a server is reached."""

    url: str
    metrics_url: str | None


@contextlib.contextmanager
def http_side(
    settings: Mapping[str, Any], key: str | None = None, app: Any = None
) -> Iterator[HttpSide]:
    """
    The real HTTP side of a server whose engine still starts, in a thread of this process.

    Args:
        settings: Keys of the profile's `server`.
        key: The API key that it asks for, if any.
        app: Another ASGI application in place of ours.
    """
    profile = Profile.model_validate(
        {"model": "google/gemma-3-4b-it", "server": {"port": 0, **settings}}
    )
    keys = read_keys(None, {"GEMMA_SERVE_API_KEYS": key}) if key else frozenset()
    app = app or build_app(ServerState(profile, Timeline()), keys)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        with open_ports(profile.server) as ports:
            http = HttpServer(app, ports, profile.server)
            asyncio.run_coroutine_threadsafe(http.start(), loop).result(30)
            metrics = ports.metrics and f"http://127.0.0.1:{ports.metrics.getsockname()[1]}"
            yield HttpSide(http.url, metrics)
            asyncio.run_coroutine_threadsafe(http.stop(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
