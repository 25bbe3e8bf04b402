"""What the routes know of the server: its phase of life, its engine, its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from gemma_serve.errors import UnavailableError

if TYPE_CHECKING:
    from gemma_serve.engine.timeline import Timeline
    from gemma_serve.engine.vllm import Engine
    from gemma_serve.profile.schema import Profile


class Phase(StrEnum):
    """The server's life, in order."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass
class ServerState:
    """One server: shared by its routes and changed by the launcher alone."""

    profile: Profile
    timeline: Timeline
    about: Mapping[str, Any] = field(default_factory=dict)
    phase: Phase = Phase.STARTING
    engine: Engine | None = None
    open_requests: int = 0
    self_check: Mapping[str, Any] | None = None  # the plan's figures against the engine's

    def become_ready(self) -> None:
        """The start is over: take requests, unless a signal came first."""
        if self.phase is Phase.STARTING:
            self.phase = Phase.READY

    def begin_draining(self) -> None:
        """Take no more requests."""
        self.phase = Phase.DRAINING

    @property
    def ready(self) -> bool:
        """Whether requests are taken."""
        return self.phase is Phase.READY and self.alive

    @property
    def alive(self) -> bool:
        """Whether this process can still become, or stay, useful."""
        return self.engine is None or not self.engine.dead

    @property
    def condition(self) -> str:
        """One word for probes and errors: starting, ready, draining or engine_dead."""
        return self.phase.value if self.alive else "engine_dead"

    def running_engine(self) -> Engine:
        """
        The engine.

        Raises:
            UnavailableError: it is not there yet.
        """
        if self.engine is None:
            raise self.unavailable()
        return self.engine

    def unavailable(self) -> UnavailableError:
        """Why no request is taken now, and when to come back."""
        sentences = {
            "starting": "The model is still loading; retry when /readyz answers 200.",
            "draining": "The server is shutting down; retry on another instance.",
            "engine_dead": "The engine is dead and the server is going down; "
            "retry on another instance.",
        }
        return UnavailableError(
            sentences.get(self.condition, "The server takes no requests now; retry."),
            code=self.condition,
            retry_after_s=5,
        )
