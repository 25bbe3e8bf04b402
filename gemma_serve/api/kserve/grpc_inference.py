"""One inference over gRPC, alone or one of a stream's: read, held, counted, traced."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.trace import INVALID_SPAN, Span

from gemma_serve import logs, metrics
from gemma_serve.api.budget import header_seconds
from gemma_serve.api.held import Hold
from gemma_serve.api.keys import Key
from gemma_serve.api.kserve.grpc_errors import NobodyReadsError, code_of
from gemma_serve.api.kserve.grpc_ids import name_call
from gemma_serve.api.kserve.grpc_keys import UNKNOWN_KEY, find_key
from gemma_serve.api.kserve.grpc_messages import SERVICE, read_request
from gemma_serve.api.kserve.service import TRACE_HEADERS, InferRequest
from gemma_serve.api.observe import begin_flight, end_flight, open_request, say_it_is_over
from gemma_serve.api.request_id import HEADER, harmless_id
from gemma_serve.api.state import ServerState
from gemma_serve.api.tracing import begin_call_span, end_call_span
from gemma_serve.engine.cache_salt import cache_salt, salt_of
from gemma_serve.errors import AuthenticationError, GemmaServeError


class Inference:
    """A message's inference, from its arrival on; `with inference.of(message)` is its length."""

    def __init__(self, state: ServerState, context: Any, *, in_stream: bool) -> None:
        self.state, self.context, self.in_stream = state, context, in_stream
        self.method = "ModelStreamInfer" if in_stream else "ModelInfer"
        self.metadata: dict[str, Any] = dict(context.invocation_metadata() or ())
        self.began_s = time.perf_counter()
        self.flight = begin_flight(state)
        self.span, self.trace_headers = self._begin_span()

    @contextmanager
    def of(self, message: Any) -> Iterator[InferRequest]:
        """
        The message as a request, which is open until the block ends, and then counted by its end.

        Raises:
            GemmaServeError: it can't be read, has no room, or came without a key.
        """
        code = "OK"
        try:
            with open_request(self.state), Hold(self.state.held) as hold:
                yield self._read(message, hold)
        except GemmaServeError as error:
            code = code_of(error).name
            raise
        except (asyncio.CancelledError, grpc.aio.BaseError, NobodyReadsError):
            code = "CANCELLED"  # by its client, or with its stream
            raise
        except Exception:
            code = "INTERNAL"
            raise
        finally:
            self._record(code)

    def _read(self, message: Any, hold: Hold) -> InferRequest:
        id_ = harmless_id(str(self.metadata.get(HEADER, "")), message.id)
        logs.request_facts.set({"request_id": id_})
        if not self.in_stream:  # a stream has many, and the id that it came with
            name_call(self.context, id_)
        key = self._key()
        num_bytes = message.ByteSize()
        if self.flight is not None:
            self.flight.num_bytes = num_bytes
        hold.add(num_bytes)
        return read_request(
            message,
            may_stream=self.in_stream,
            timeout_s=_sooner(self.context.time_remaining(), header_seconds(self.metadata)),
            request_id=id_,
            trace_headers=self.trace_headers,
            key=key,
        )

    def _key(self) -> Key | None:
        """Whose inference it is; found for each again, as a stream may outlive its key."""
        keys = self.state.keys
        if not keys:
            return None
        key = find_key(keys, self.metadata.items())
        if key is None:
            raise AuthenticationError(UNKNOWN_KEY)
        if not self.state.profile.server.shared_prefix_cache:
            cache_salt.set(salt_of(key.tenant))
        return key

    def _begin_span(self) -> tuple[Span, dict[str, str]]:
        """The span, and the W3C headers that vLLM's own is to stand under."""
        sent = {name: str(self.metadata[name]) for name in TRACE_HEADERS if name in self.metadata}
        if self.state.profile.otlp_traces_endpoint is None:
            return INVALID_SPAN, sent
        return begin_call_span(f"{SERVICE}/{self.method}", sent)

    def _record(self, code: str) -> None:
        """Count the inference, once it is over."""
        metrics.GRPC_REQUESTS.labels(self.method, code).inc()
        outcome = {"method": "gRPC", "route": self.method, "status": code}
        facts = logs.request_facts.get() or {}
        end_flight(self.flight, outcome, facts)
        end_call_span(self.span, status=code, request_id=facts.get("request_id", ""))
        say_it_is_over(self.state, outcome, time.perf_counter() - self.began_s, facts)


def _sooner(*seconds: float | None) -> float | None:
    return min((value for value in seconds if value is not None), default=None)
