"""A target as the other parts use it: where to send, what to meter, how to pause."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass

from benchmarks.cell import Prepared, ServerMeter, Settings, check_cell, prepare
from benchmarks.load.connection import Endpoint
from benchmarks.records import Load
from benchmarks.servers import Server, ServerError, TargetSpec, parse_target, started
from benchmarks.show import doing
from benchmarks.workload import Workload


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

    async def prepared(self, workload: Workload) -> Prepared:
        """
        It, looked at and ready to be measured.

        Raises:
            ConnectionError: it is gone.
            ValueError: it does not answer the workload's kind of request.
        """
        return await prepare(
            self.endpoint,
            workload,
            self.settings,
            label=self.label,
            meter=self.meter,
            promised=self.server.slo,
        )

    async def pause(self) -> None:
        """Stop its processes, where the harness started them."""
        self.server.pause()

    async def wake(self) -> None:
        """Continue them."""
        self.server.wake()


def of_target(target: str, settings: Settings) -> tuple[TargetSpec, Settings]:
    """
    What a target names, and the settings with what it says of its model, protocol and contract.

    Raises:
        ServerError: no target is written like this.
    """
    spec = parse_target(target).speaking(settings.protocol, settings.contract)
    spec = dataclasses.replace(spec, model=spec.model or settings.model)
    own = dataclasses.replace(
        settings,
        model=spec.model,
        protocol=spec.protocol or settings.protocol,
        contract=spec.contract or settings.contract,
    )
    return spec, own


def check_asked(target: str, settings: Settings, workload: Workload, load: Load) -> None:
    """
    Say what is wrong with a command before a server is started for it, which takes minutes.

    Raises:
        ServerError, ValueError: the target, or the requests to it.
    """
    check_cell(workload, load, of_target(target, settings)[1])


@contextlib.asynccontextmanager
async def serving(target: str, settings: Settings) -> AsyncIterator[Served]:
    """
    One that runs already, or one that is started for as long as it is needed.

    Raises:
        ServerError: no target is written like this, or it did not start, or ended by itself; with
            the end of its output.
    """
    spec, own = of_target(target, settings)
    async with contextlib.AsyncExitStack() as stack:
        with doing(f"Starting {spec.label}") as say:
            server = await stack.enter_async_context(started(spec, on_progress=say))
        meter = None
        if server.process is not None:
            meter = ServerMeter(
                server.api_cpu_s, server.tree_cpu_s, server.api_rss_mib, server.ended
            )
        endpoint = Endpoint(server.url, spec.api_key, server.spec.grpc)
        try:
            yield Served(endpoint, meter, server, own)
        except Exception as error:
            # That nobody answers, or what came of it, says less than why.
            if (why := server.ended()) is not None:
                raise ServerError(why) from error
            raise
