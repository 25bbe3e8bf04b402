"""What the routes know of the server: its phase of life, its engine, its settings."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from gemma_serve.api.admission import Admission
from gemma_serve.api.held import HeldBytes
from gemma_serve.engine.watchdog import Progress
from gemma_serve.errors import UnavailableError

if TYPE_CHECKING:
    from gemma_serve.api.keys import KeyRing
    from gemma_serve.engine.timeline import Timeline
    from gemma_serve.engine.vllm import Engine
    from gemma_serve.flight import FlightRecorder
    from gemma_serve.profile.schema import Profile


# Of requests that are over, for who asks what came before an incident.
NUM_LAST_REQUESTS = 100


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
    keys: KeyRing | None = None  # None or empty: no key is asked for
    phase: Phase = Phase.STARTING
    engine: Engine | None = None
    open_requests: int = 0
    # How the engine gets on, as `watch.py` sees it, and whether that has seen enough.
    progress: Progress = Progress.IDLE
    silent_s: float = 0.0
    given_up: bool = False
    node_lost: bool = False  # of a model over several hosts
    event_loop_lag_s: float = 0.0
    flight: FlightRecorder | None = None  # where requests are recorded
    # What the access log says of the last ones, whether or not it is written.
    last_requests: deque[dict[str, Any]] = field(
        default_factory=lambda: deque(maxlen=NUM_LAST_REQUESTS)
    )
    self_check: Mapping[str, Any] | None = None  # the plan's figures against the engine's
    is_multimodal: bool = False  # whether the checkpoint has an image tower

    def __post_init__(self) -> None:
        self.admission = Admission(self.profile.limits, self.profile.slo, self.keys)
        self.held = HeldBytes(self.profile.limits.max_held_bytes)

    def become_ready(self) -> None:
        """The start is over: take requests, unless a signal came first."""
        if self.phase is Phase.STARTING:
            self.phase = Phase.READY

    def begin_draining(self) -> None:
        """Take no more requests."""
        self.phase = Phase.DRAINING

    @property
    def max_body_bytes(self) -> int:
        """The largest request body."""
        return self.profile.max_body_bytes(is_multimodal=self.is_multimodal)

    @property
    def draining(self) -> bool:
        """Whether the server is on its way down."""
        return self.phase is Phase.DRAINING

    @property
    def ready(self) -> bool:
        """Whether requests are taken."""
        return self.phase is Phase.READY and self.alive and not self.stalled

    @property
    def welcoming(self) -> bool:
        """Whether a load balancer should send more requests: they are taken, and not too many."""
        return self.condition == "ready"

    @property
    def alive(self) -> bool:
        """Whether this process can still become, or stay, useful."""
        return self.engine is None or not (self.engine.dead or self.given_up or self.node_lost)

    @property
    def stalled(self) -> bool:
        """Whether the engine has given no sign of life for `limits.stall_s`."""
        return self.progress is Progress.STALLED

    @property
    def condition(self) -> str:
        """
        One word for probes and errors.

        It is starting, ready, overloaded, stalled, draining or engine_dead.
        """
        if not self.alive:
            return "engine_dead"
        if self.phase is not Phase.READY:
            return self.phase.value
        if self.stalled:
            return "stalled"
        return "overloaded" if self.admission.overloaded else "ready"

    def running_engine(self) -> Engine:
        """
        The engine.

        Raises:
            UnavailableError: it is not there yet.
        """
        if self.engine is None:
            raise self.unavailable()
        return self.engine

    @property
    def reason(self) -> str:
        """The condition in a sentence, with what a client may do."""
        sentences = {
            "starting": "The model is still loading; retry when /readyz answers 200.",
            "overloaded": "Requests come faster than they are served; send them elsewhere.",
            "stalled": "The engine has given no sign of life for a while; "
            "retry on another instance.",
            "draining": "The server is shutting down; retry on another instance.",
            "engine_dead": "The engine is dead and the server is going down; "
            "retry on another instance.",
        }
        return sentences.get(self.condition, "The server takes no requests now; retry.")

    def unavailable(self) -> UnavailableError:
        """Why no request is taken now, and when to come back."""
        return UnavailableError(self.reason, code=self.condition, retry_after_s=5)
