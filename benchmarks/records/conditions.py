"""What all records have in common: the server, the load, what was sent, and its validity."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from benchmarks.records.requests import Protocol, TritonContract


class Model(BaseModel):
    """A part of a file: frozen, and no key that the schema does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Load(Model):
    """
    How requests are offered.

    closed: `concurrency` clients, each with one request at a time. open: by the clock at
    `rate_rps`, arrivals constant, poisson or gamma (shape `burstiness`; 1 is poisson). trace: at
    the times that the workload carries. `max_concurrency` caps the two last. Over the first
    `ramp_s` seconds the first two grow evenly: clients start one after another, the rate rises
    from 0.
    """

    mode: Literal["closed", "open", "trace"]
    concurrency: int | None = None
    rate_rps: float | None = None
    arrivals: Literal["constant", "poisson", "gamma"] | None = None
    burstiness: float | None = None
    max_concurrency: int | None = None
    ramp_s: float | None = None

    def label(self) -> str:
        """A few characters for a plot's point."""
        if self.mode == "closed":
            return f"c={self.concurrency}"
        return f"{self.rate_rps:g}/s" if self.rate_rps else self.mode


class Slo(Model):
    """What one request has to keep to be good; all that are given, together. Milliseconds."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None
    max_stall_ms: float | None = None


class Target(Model):
    """The server that was measured."""

    url: str
    protocol: Protocol
    model: str
    label: str
    contract: TritonContract | None = None  # of a Triton protocol
    grpc: str | None = None  # HOST:PORT, where requests went there
    server: dict[str, Any] = {}  # what it says of itself: version, settings


class WorkloadInfo(Model):
    """What was sent."""

    kind: str
    sha256: str
    num_requests: int
    num_warm_up: int
    description: str
    cache: Literal["cold", "warm"]
    ignore_eos: bool


class Check(Model):
    """One question to the run's validity; `value` and `limit` in `unit`."""

    name: str
    status: Literal["ok", "red", "not_measured"]
    value: float | None = None
    limit: float | None = None
    unit: str = ""
    message: str


class Validity(Model):
    """INVALID as soon as one check is red."""

    verdict: Literal["VALID", "INVALID"]
    checks: list[Check]
