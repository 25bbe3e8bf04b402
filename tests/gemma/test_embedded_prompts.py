"""
Conversations at the embedded model: the prompts and the answers are those of transformers.

The prompts of `apply_chat_template`, by Google's tokenizer and template and by ours; the greedy
answers to them, in float32.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from gemma_serve.gemma.embedded import prepare
from tests.gemma.realistic_conversations import realistic_conversation
from tests.gemma.test_embedded_greedy import choices, judged
from tests.official_gemma3 import official_gemma3
from tests.servers import Server

CONVERSATIONS = [realistic_conversation(seed) for seed in range(50)]
MAX_TOKENS = 8
NUM_CLIENTS = 8
SLIDING_WINDOW = 512
BOS = 2
STOPS = {1, 106}  # <eos>, <end_of_turn>


def prompts_of(directory: Path) -> list[list[int]]:
    """All prompts as transformers makes them of a checkpoint's tokenizer and template."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    return [
        tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        for messages in CONVERSATIONS
    ]


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> list[list[int]]:
    """The prompts by Google's published tokenizer and template."""
    return prompts_of(official_gemma3(tmp_path_factory.getbasetemp()))


def asked(server: Server, path: str, messages: list[dict[str, Any]], **fields: Any) -> Any:
    """The server's answer to a conversation."""
    with server.client() as client:
        body = {"model": "gemma-3-270m", "messages": messages, **fields}
        answer = client.post(f"/v1/chat/completions{path}", json=body)
        answer.raise_for_status()
        return answer.json()


def test_conversations_are_many(official: list[list[int]]) -> None:
    """50 different ones, half with a system message, on either side of the sliding window."""
    assert len({str(messages) for messages in CONVERSATIONS}) == 50
    assert sum(messages[0]["role"] == "system" for messages in CONVERSATIONS) == 25
    assert min(map(len, official)) < SLIDING_WINDOW < max(map(len, official))
    assert all(ids[0] == BOS and ids.count(BOS) == 1 for ids in official)


def test_own_template_gives_the_published_prompts(official: list[list[int]]) -> None:
    """The embedded model's tokenizer and template give transformers the same 50 prompts."""
    assert prompts_of(prepare()) == official


@pytest.mark.engine
def test_server_gives_the_published_prompts(
    float32_server: Server, official: list[list[int]]
) -> None:
    """The server makes the same 50 prompts of them, and no rule has anything to change."""
    rendered = [asked(float32_server, "/render", messages) for messages in CONVERSATIONS]
    assert [prompt["token_ids"] for prompt in rendered] == official
    assert [prompt["rules"] for prompt in rendered] == [[]] * 50


@pytest.mark.engine
def test_float32_answers_equal_transformers(
    float32_server: Server, official: list[list[int]]
) -> None:
    """Greedy answers to all 50 over HTTP, several at a time: ids, text and end are the same."""

    def answer(messages: list[dict[str, Any]]) -> Any:
        fields = {"temperature": 0, "max_tokens": MAX_TOKENS, "return_token_ids": True}
        return asked(float32_server, "", messages, **fields)

    with ThreadPoolExecutor(NUM_CLIENTS) as clients:
        answers = list(clients.map(answer, CONVERSATIONS))
    prompts = [answer["prompt_token_ids"] for answer in answers]
    assert prompts == official

    ours = [answer["choices"][0] for answer in answers]
    ids = [choice["token_ids"] for choice in ours]
    steps = judged(prepare(), "float32", list(zip(prompts, ids, strict=True)))
    assert [choices(one) for one in steps] == ids
    decode = AutoTokenizer.from_pretrained(prepare()).decode
    assert [choice["message"]["content"] for choice in ours] == [
        decode(one, skip_special_tokens=True) for one in ids
    ]
    # The first stop id ends an answer, or its length does.
    assert not any(id_ in STOPS for one in ids for id_ in one[:-1])
    assert [choice["finish_reason"] for choice in ours] == [
        "stop" if one[-1] in STOPS else "length" for one in ids
    ]
    assert all(len(one) == MAX_TOKENS for one in ids if one[-1] not in STOPS)
