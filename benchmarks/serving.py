"""A target as the other parts use it: where to send, what to meter, how to pause."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass

from benchmarks.cell import ServerMeter, Settings
from benchmarks.load.connection import Endpoint
from benchmarks.servers import Server, parse_target, started
from benchmarks.show import doing


@dataclass(frozen=True)
class Served:
    """A server that answers."""

    endpoint: Endpoint
    meter: ServerMeter | None
    server: Server
    settings: Settings  # with what the target says of itself

    @property
    def label(self) -> str:
        """The target as it was written, without its key."""
        return self.server.spec.label

    async def pause(self) -> None:
        """Stop its processes, where the harness started them."""
        self.server.pause()

    async def wake(self) -> None:
        """Continue them."""
        self.server.wake()


@contextlib.asynccontextmanager
async def serving(target: str, settings: Settings) -> AsyncIterator[Served]:
    """
    One that runs already, or one that is started for as long as it is needed.

    What the target says of its model, protocol and contract wins over the settings.

    Raises:
        ServerError: no target is written like this, or it did not start; with the end of its
            output.
    """
    spec = parse_target(target).speaking(settings.protocol, settings.contract)
    own = dataclasses.replace(
        settings,
        model=spec.model or settings.model,
        protocol=spec.protocol or settings.protocol,
        contract=spec.contract or settings.contract,
    )
    async with contextlib.AsyncExitStack() as stack:
        with doing(f"Starting {spec.label}") as say:
            server = await stack.enter_async_context(
                started(
                    spec, on_progress=lambda what, elapsed_s: say(f"{what} ({elapsed_s:.0f} s)")
                )
            )
        meter = None
        if server.process is not None:
            meter = ServerMeter(server.api_cpu_s, server.tree_cpu_s, server.api_rss_mib)
        endpoint = Endpoint(server.url, spec.api_key, server.spec.grpc)
        yield Served(endpoint, meter, server, own)
