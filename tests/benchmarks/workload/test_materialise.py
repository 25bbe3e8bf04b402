"""From a spec to requests: shapes, lengths, what is shared and what never is."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.records import Item
from benchmarks.workload import Workload, WorkloadError, materialise, parse_spec
from benchmarks.workload.stored import encode

SPECS: list[dict[str, Any]] = [
    {"kind": "synthetic", "input": "normal:20,8", "output": "3-9"},
    {"kind": "synthetic", "input": 12, "output": "lognormal:8,0.5", "style": "text-completion"},
    {"kind": "synthetic", "input": "5-40", "output": 8, "style": "ids"},
    {"kind": "prefix", "num_groups": 3, "prefix_tokens": 16, "input": 5, "output": 4},
    {"kind": "multi_turn", "turns": 3, "input": "4-8", "output": 4, "think_s": 0.5},
    {"kind": "images", "width": 8, "height": 6, "input": 5, "output": 4},
]


def made(count: int | None = 6, num_warm_up: int = 2, seed: int = 1, **fields: Any) -> Workload:
    """A small workload."""
    return materialise(parse_spec(fields), seed, count, num_warm_up)


def ids(**fields: Any) -> Workload:
    """Of token ids."""
    return made(style="ids", output=4, **fields)


def content(item: Item) -> Any:
    """The content of the one message."""
    assert item.messages is not None
    assert len(item.messages) == 1
    return item.messages[0]["content"]


def prompts(workload: Workload) -> list[str]:
    """What every request says, as text that can be compared."""
    sent = [*workload.items, *workload.warm_up]
    return [str(item.messages or item.prompt or item.prompt_token_ids) for item in sent]


@given(st.sampled_from(SPECS), st.integers(0, 2**64), st.integers(1, 7), st.integers(0, 3))
@settings(deadline=None, max_examples=40)
def test_same_seed_same_bytes(spec: dict[str, Any], seed: int, count: int, warm_up: int) -> None:
    """The same spec, seed and numbers give the same bytes, and of a longer workload the first."""
    workload = made(count, warm_up, seed, **spec)
    longer = made(count + 3, warm_up + 1, seed, **spec)

    assert made(count, warm_up, seed, **spec) == workload
    assert longer.items[:count] == workload.items
    assert longer.warm_up[:warm_up] == workload.warm_up


@pytest.mark.parametrize("spec", SPECS)
def test_no_two_prompts_alike(spec: dict[str, Any]) -> None:
    """No prompt comes twice: not in the measured part, not in the warm-up, not by another seed."""
    sent = prompts(made(20, 10, 1, **spec)) + prompts(made(20, 10, 2, **spec))

    assert len(set(sent)) == len(sent) == 60


GOLDEN = [
    "70f4a027ff0475c17a0b6eb63c7480a76ce55fe040280e6b68e9616a2a73afd7",
    "45c6fb4d665f9445d0ee138fb0982b101abbc813880c454284cc800020dce60b",
    "7f8355193f54bcc45ced751d1bfffa692e0068af66958fd5144fa32f077b3fc1",
    "2bfdbcfb2939c178ef0a3ba1b5dc81569904bbf5d0b9f35cfacef323eb172253",
    "5a973a616048d54eee909552f4dab31befaf41a73e82704cd0c32ad459b2aee2",
]


@pytest.mark.parametrize(("spec", "sha256"), list(zip(SPECS[:5], GOLDEN, strict=True)))
def test_golden_bytes(spec: dict[str, Any], sha256: str) -> None:
    """A seed means the same requests in every version; a change here makes old results no guide."""
    assert made(8, 2, 7, **spec).sha256 == sha256


def test_styles() -> None:
    """The same lengths as a chat, as a prompt and as token ids."""
    chat, plain, exact = (
        made(3, 0, kind="synthetic", input="5-9", output=4, style=style)
        for style in ("text", "text-completion", "ids")
    )
    lengths = [item.input_len_tokens for item in chat.items]

    assert [len(content(item).split()) for item in chat.items] == lengths
    assert [item.prompt for item in plain.items] == [content(item) for item in chat.items]
    assert [len(item.prompt_token_ids or []) for item in exact.items] == lengths
    assert all(item.messages is None and item.prompt is None for item in exact.items)


def test_warm_up_has_the_same_shape() -> None:
    """Warm-up has indices and lengths of its own, from the same distributions."""
    workload = ids(kind="synthetic", input="100-200", count=50, num_warm_up=50)
    lengths = [item.input_len_tokens or 0 for item in workload.warm_up]

    assert [item.index for item in workload.warm_up] == list(range(50))
    assert lengths != [item.input_len_tokens for item in workload.items]
    assert 100 <= min(lengths) < 120
    assert 180 < max(lengths) <= 200


def test_ids_share_no_block() -> None:
    """Prompts of ids differ in their first token, warm-up too, so no cache block is shared."""
    workload = ids(kind="synthetic", input=20, count=60, num_warm_up=20)
    sent = [item.prompt_token_ids or [] for item in [*workload.items, *workload.warm_up]]

    assert len({prompt[0] for prompt in sent}) == 80
    assert all(1000 <= token < 4000 for prompt in sent for token in prompt)


def test_id_range() -> None:
    """Ids come from the range that was asked for."""
    workload = ids(kind="synthetic", input=50, id_low=10, id_high=20)
    drawn = {token for item in workload.items for token in item.prompt_token_ids or []}

    assert drawn == set(range(10, 20))


@pytest.mark.parametrize("style", ["text", "text-completion", "ids"])
def test_prefix_groups(style: str) -> None:
    """Requests of a group share exactly the prefix; the next token and other groups differ."""
    workload = made(
        8, 4, kind="prefix", num_groups=2, prefix_tokens=10, input=6, output=4, style=style
    )
    sent = [
        item.prompt_token_ids or (item.prompt or content(item)).split() for item in workload.items
    ]

    assert [item.prefix_group for item in workload.items] == [0, 1] * 4
    assert [item.input_len_tokens for item in workload.items] == [16] * 8
    assert all(len(prompt) == 16 for prompt in sent)
    assert all(prompt[:10] == sent[number % 2][:10] for number, prompt in enumerate(sent))
    assert sent[0][:10] != sent[1][:10]
    assert len({str(prompt[10:]) for prompt in sent}) == 8


@pytest.mark.parametrize("warm_prefixes", [False, True])
def test_prefixes_of_the_warm_up(warm_prefixes: bool) -> None:
    """Warm-up fills the cache with the measured prefixes only where that is asked for."""
    workload = ids(
        kind="prefix", num_groups=2, prefix_tokens=10, input=6, warm_prefixes=warm_prefixes
    )
    measured = [(item.prompt_token_ids or [])[:10] for item in workload.items[:2]]
    warm = [(item.prompt_token_ids or [])[:10] for item in workload.warm_up]

    assert (warm == measured) is warm_prefixes
    assert [item.prefix_group for item in workload.warm_up] == (
        [0, 1] if warm_prefixes else [-1, -2]
    )


def test_conversations() -> None:
    """An item is one new turn; thinking comes before every turn but the first."""
    workload = made(None, 2, **SPECS[4], num_conversations=2, first_input=30)

    assert [(i.conversation, i.turn, i.think_s) for i in workload.items] == [
        ("c0", 0, 0.0),
        ("c0", 1, 0.5),
        ("c0", 2, 0.5),
        ("c1", 0, 0.0),
        ("c1", 1, 0.5),
        ("c1", 2, 0.5),
    ]
    assert [i.input_len_tokens == 30 for i in workload.items] == [True, False, False] * 2
    assert [(i.conversation, i.turn) for i in workload.warm_up] == [("w0", 0), ("w0", 1)]


def test_conversations_for_a_number_of_requests() -> None:
    """Without a number of conversations there are as many as the requests take, the last cut."""
    workload = made(5, 0, **SPECS[4])

    assert [(i.conversation, i.turn) for i in workload.items][3:] == [("c1", 0), ("c1", 1)]


def test_images() -> None:
    """Each prompt has its images as PNG of the size asked for, all different, then the text."""
    workload = made(2, 1, kind="images", num_images=2, width=8, height=6, input=5, output=4)
    parts = [content(item) for item in [*workload.items, *workload.warm_up]]
    urls = [part["image_url"]["url"] for parts_ in parts for part in parts_[:2]]

    assert len(set(urls)) == 6
    assert [part["type"] for part in parts[0]] == ["image_url", "image_url", "text"]
    assert len(parts[0][2]["text"].split()) == 5
    prefix, _, encoded = urls[0].partition(",")
    image = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert prefix == "data:image/png;base64"
    assert (image.format, image.size, image.mode) == ("PNG", (8, 6), "RGB")


def test_description() -> None:
    """The description has the lengths, how they were counted, and what came of them."""
    text = made(2, 0, kind="synthetic", input="6", output="4-8")

    output = sum(item.max_tokens for item in text.items) / 2
    assert text.description == (
        "chat text; input 6 tokens; output 4 to 8 tokens, uniform; lengths of text approximate, a "
        f"word counted as a token; 2 requests, input mean 6 tokens, output mean {output:.0f} tokens"
    )
    assert ids(kind="synthetic", input=6, count=2).description == (
        "token ids; input 6 tokens; output 4 tokens; 2 requests, input mean 6 tokens, "
        "output mean 4 tokens"
    )


def test_sha_is_of_the_bytes() -> None:
    """One other token is another SHA-256."""
    workload = ids(kind="synthetic", input=6)
    before = encode(workload.items, workload.warm_up)
    other = ids(kind="synthetic", input=6, seed=2)

    assert before != encode(other.items, other.warm_up)
    assert workload.sha256 != other.sha256


@pytest.mark.parametrize(
    ("count", "warm_up", "seed", "fields", "sentence"),
    [
        (0, 0, 1, SPECS[0], "0 requests and 0 for the warm-up were asked for; ask for at least 1"),
        (1, -1, 1, SPECS[0], "1 requests and -1 for the warm-up"),
        (1, 0, -1, SPECS[0], "seed=-1 is below 0; give 0 or more"),
        (None, 0, 1, SPECS[0], "a workload of kind synthetic needs a number of requests"),
        (
            5,
            0,
            1,
            {**SPECS[4], "num_conversations": 2},
            "5 requests were asked for, and 2 conversations of 3 turns are 6; give one of the two",
        ),
    ],
)
def test_wrong_numbers(
    count: int | None, warm_up: int, seed: int, fields: dict[str, Any], sentence: str
) -> None:
    """Numbers that cannot be had are one sentence."""
    with pytest.raises(WorkloadError) as caught:
        made(count, warm_up, seed, **fields)

    assert sentence in str(caught.value)
