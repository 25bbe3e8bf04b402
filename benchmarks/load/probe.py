"""What a server can do, asked before anything is measured: its model, token ids, salts, metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from benchmarks.load.answer import Sent, to_record
from benchmarks.load.connection import Endpoint
from benchmarks.load.protocols import Extras, has_ignore_eos, path
from benchmarks.load.wire import open_pool, request_bytes
from benchmarks.records import TRITON_PROTOCOLS, Item, Protocol, TokenSource, TritonContract

PROBE_S = 120.0
PROBE_TOKENS = 4
# What a server may say of itself, in the order that is asked; none of them is needed.
ABOUT = {"info": "/v1/info", "version": "/version", "triton": "/v2"}


@dataclass(frozen=True)
class Abilities:
    """What the harness may use."""

    token_source: TokenSource
    ignore_eos: bool
    salts: bool  # it takes cache_salt, or the salt goes into the prompt


async def first_model(endpoint: Endpoint) -> str:
    """
    The first name in /v1/models.

    Raises:
        ConnectionError: no server there.
        ValueError: it names no model.
    """
    try:
        answer = await _get(endpoint, "/v1/models")
        return str(answer.json()["data"][0]["id"])
    except httpx.TransportError as error:
        raise ConnectionError(
            f"no server answers at {endpoint.url} ({type(error).__name__}); start one, or give "
            "its address as the target"
        ) from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ValueError(
            f"{endpoint.url}/v1/models names no model; say which one with --model"
        ) from error


async def about(endpoint: Endpoint) -> dict[str, Any]:
    """What the server says of itself, route by route."""
    said = {}
    for name, route in ABOUT.items():
        try:
            answer = await _get(endpoint, route)
            if answer.status_code == 200:
                said[name] = answer.json()
        except (httpx.HTTPError, ValueError):
            continue
    return said


async def scrape(endpoint: Endpoint) -> str | None:
    """The server's Prometheus text, or None."""
    try:
        answer = await _get(endpoint, "/metrics")
    except httpx.HTTPError:
        return None
    return answer.text if answer.status_code == 200 else None


async def abilities(
    endpoint: Endpoint,
    protocol: Protocol,
    model: str,
    item: Item,
    contract: TritonContract = "python-backend",
) -> Abilities:
    """
    Send the item's prompt, with everything asked for and then with nothing, and see.

    Raises:
        ValueError: the server answers neither; with its own words.
    """
    short = Item(
        index=item.index,
        max_tokens=PROBE_TOKENS,
        messages=item.messages,
        prompt=item.prompt,
        prompt_token_ids=item.prompt_token_ids,
    )
    message, in_text = "", protocol in TRITON_PROTOCOLS
    exact: TokenSource = "event_counts" if in_text else "token_ids"
    for extras in (Extras(ignore_eos=True, token_ids=True, cache_salt="probe"), Extras()):
        request = request_bytes(endpoint, protocol, model, short, extras, contract=contract)
        async with open_pool(endpoint, protocol, stall_s=PROBE_S, timeout_s=PROBE_S) as pool:
            sent = Sent(short, "warm_up", await pool.send(request), None, 0.0)
        ends = extras.ignore_eos and has_ignore_eos(protocol, contract)
        salts = extras.ignore_eos or in_text
        if to_record(sent, protocol, exact, 0.0).error is None:
            return Abilities(exact, ends, salts)
        by_usage = to_record(sent, protocol, "usage", 0.0)
        if by_usage.error is None:
            return Abilities(by_usage.token_source or "events", ends, salts)
        message = f"{by_usage.error}: {by_usage.error_message}"
    where = endpoint.grpc if protocol == "triton-grpc" else endpoint.url
    check = "--protocol, --triton-contract and --model" if in_text else "--protocol and --model"
    raise ValueError(
        f"{where}{path(protocol, model)} does not answer a request of {PROBE_TOKENS} "
        f"tokens ({message}); check {check}"
    )


async def _get(endpoint: Endpoint, route: str) -> httpx.Response:
    key = {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}
    scheme = "https" if endpoint.tls else "http"
    url = f"{scheme}://{endpoint.authority}{endpoint.prefix}{route}"
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        return await client.get(url, headers=key)
