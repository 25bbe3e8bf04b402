"""Two targets side by side: whose tokens may be held against each other, and what each is asked."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from benchmarks.cell import Prepared, Settings
from benchmarks.comparing import _same_counting
from benchmarks.load.connection import Endpoint
from benchmarks.load.runner import Sending
from benchmarks.records import Protocol, Target, TokenSource
from benchmarks.servers import ServerError
from benchmarks.serving import Served, serving

URL = "http://127.0.0.1:9,model=m"


def prepared(protocol: Protocol, source: TokenSource) -> Prepared:
    """A server that was looked at."""
    endpoint = Endpoint("http://127.0.0.1:9")
    sending = Sending(endpoint, protocol, "m", token_source=source)
    target = Target(url=endpoint.url, protocol=protocol, model="m", label="m")
    return Prepared(endpoint, sending, target, None, True)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (("triton-generate", "event_counts"), ("openai-chat", "token_ids")),
        (("triton-grpc", "event_counts"), ("openai-chat", "continuous_usage")),
        (("triton-grpc", "event_counts"), ("openai-chat", "usage")),
        (("triton-grpc", "event_counts"), ("triton-generate", "event_counts")),
        (("triton-grpc", "events"), ("triton-generate", "events")),
        (("openai-chat", "usage"), ("openai-completions", "usage")),
    ],
)
def test_exact_counts_go_together(
    a: tuple[Protocol, TokenSource], b: tuple[Protocol, TokenSource]
) -> None:
    """The server's count of each response is as exact as its ids, or its usage."""
    _same_counting([prepared(*a), prepared(*b)])


@pytest.mark.parametrize(
    ("a", "b", "advice"),
    [
        (("triton-generate", "events"), ("openai-chat", "token_ids"), "contract=vllm-backend"),
        (("triton-grpc", "event_counts"), ("triton-generate", "events"), "contract=vllm-backend"),
        (("triton-grpc", "event_counts"), ("openai-chat", "events"), "contract=vllm-backend"),
        (("openai-chat", "token_ids"), ("openai-chat", "usage"), "--token-source usage"),
    ],
)
def test_other_pairs_are_refused_with_advice(
    a: tuple[Protocol, TokenSource], b: tuple[Protocol, TokenSource], advice: str
) -> None:
    """A ratio of two counters is no ratio of servers."""
    with pytest.raises(ValueError, match=f"would be counted by .*{advice}"):
        _same_counting([prepared(*a), prepared(*b)])


def served(target: str, settings: Settings) -> Served:
    """A target that runs already, as the commands see it."""

    async def look() -> Served:
        async with serving(target, settings) as found:
            return found

    return asyncio.run(look())


def test_target_wins_over_the_options() -> None:
    """Protocol, contract and model behind a target are its own; the rest is the command line's."""
    settings = Settings(protocol="openai-chat", model="other", seed=7)
    one = served(f"{URL},protocol=triton-grpc,contract=vllm-backend,grpc_port=8001", settings)
    two = served("http://127.0.0.1:9,model=n", dataclasses.replace(settings, protocol=None))

    assert (one.settings.protocol, one.settings.contract) == ("triton-grpc", "vllm-backend")
    assert (one.settings.model, one.settings.seed) == ("m", 7)
    assert one.endpoint.grpc == "127.0.0.1:8001"
    assert one.label == "http://127.0.0.1:9,protocol=triton-grpc,contract=vllm-backend"
    assert (two.settings.protocol, two.settings.model, two.endpoint.grpc) == (None, "n", None)
    assert two.label == "http://127.0.0.1:9"


def test_options_hold_where_the_target_says_nothing() -> None:
    """--protocol and --triton-contract are for both sides, and stand in the label."""
    settings = Settings(protocol="triton-generate", contract="tensorrtllm")
    one = served(URL, settings)

    assert (one.settings.protocol, one.settings.contract) == ("triton-generate", "tensorrtllm")
    assert one.label == "http://127.0.0.1:9,protocol=triton-generate,contract=tensorrtllm"


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (f"{URL},protocol=triton-grpc", r"write ,grpc_port=8001 or ,grpc=HOST:PORT"),
        ("vllm:p,protocol=triton-generate", r"vllm's server does not speak triton-generate"),
    ],
)
def test_target_that_cannot_speak_so(target: str, sentence: str) -> None:
    """What is missing is said before anything is started."""
    with pytest.raises(ServerError, match=sentence):
        served(target, Settings())
