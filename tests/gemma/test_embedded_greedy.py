"""
The engine computes what transformers computes, on the embedded model's directory.

In float32 each token is the one that transformers chooses. In bfloat16 the two round in another
order (fused against separate kernels, batches against single rows), so a logit may move by a few
units in its last place, and the choice with it where two tokens nearly tie.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from tokenizers import Tokenizer

from gemma_serve.gemma.embedded import prepare
from tests.gemma.conftest import EMBEDDED
from tests.servers import Server

MAX_TOKENS = 32
NUM_CLIENTS = 8

# How far below the reference's best logit the server's choice may lie: 4 units in the last place
# (bfloat16: 8 significant bits) of a logit of ordinary size, so 0.5. A logit is a sum of 640
# rounded products: its error follows the size of the terms, so a small logit has no smaller one,
# and two correct implementations are one such error each away from the truth. Measured on generated
# texts: 15 to 19 of 26 parted, at gaps of 0 to 0.25; at 72 % of all steps the best two are further
# than 0.5 from each other, so that a wrong model can't hide here (nor in float32).
BOUND_ULPS = 4
ORDINARY_LOGIT = 16.0

# Many scripts, code, and every length that counts.
PARAGRAPH = (
    "The harbour was quiet in the early morning, and the boats that had come in during the night "
    "lay side by side along the wall. A woman with a basket of bread walked from one to the next. "
)

TEXTS = [
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "Water boils at 100 degrees Celsius because",
    "Die Hauptstadt von Österreich ist",
    "Il était une fois une princesse qui",
    "El perro corre por el parque y",
    "La pizza napoletana si prepara con",
    "Москва является столицей",
    "Η Αθήνα είναι η πρωτεύουσα",  # noqa: RUF001
    "日本の首都は東京で、人口は",
    "中国最长的河流是",
    "대한민국의 수도는",
    "القاهرة هي عاصمة",
    "भारत की राजधानी",
    "İstanbul, Türkiye'nin en kalabalık",  # noqa: RUF001
    "def fibonacci(n):\n    if n < 2:\n        return n\n",
    "import json\n\nwith open('data.json') as file:\n",
    "<html>\n<body>\n  <h1>Welcome</h1>\n",
    "SELECT name, count(*) FROM orders\nWHERE",
    "1, 1, 2, 3, 5, 8, 13,",
    "Ingredients:\n- 200 g flour\n- 2 eggs\n-",
    "🙂 🙂 🙂 emoji are",
    "A",
    "<start_of_turn>user\nName three rivers in Europe.<end_of_turn>\n<start_of_turn>model\n",
    # Longer than the sliding window of 512 tokens, and one that crosses it while it decodes.
    PARAGRAPH * 16,
    PARAGRAPH * 12 + "She stopped at the last boat and",
]

ServeProfile = Callable[..., AbstractContextManager[Any]]


class Step(NamedTuple):
    """What the reference finds at one step of an answer."""

    best_id: int
    best_logit: float
    logit: float  # of the answer's own token


def greedy_ids(base_url: str, prompt_ids: list[int]) -> list[int]:
    """The server's greedy continuation, as token ids; stop ids are ignored."""
    answer = httpx.post(
        f"{base_url}/v1/completions",
        json={
            "model": httpx.get(f"{base_url}/v1/models").json()["data"][0]["id"],
            "prompt": prompt_ids,
            "temperature": 0,
            "max_tokens": MAX_TOKENS,
            "ignore_eos": True,
            "return_token_ids": True,
        },
        timeout=120,
    )
    answer.raise_for_status()
    ids: list[int] = answer.json()["choices"][0]["token_ids"]
    return ids


def judged(
    directory: Path, dtype: str, answers: list[tuple[list[int], list[int]]]
) -> list[list[Step]]:
    """What transformers would have chosen at each step of these (prompt, answer) pairs."""
    question = {"directory": str(directory), "dtype": dtype, "answers": answers}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("greedy_reference.py"))],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return [[Step(*step) for step in answer] for answer in json.loads(done.stdout)]


def choices(steps: list[Step]) -> list[int]:
    """The token ids that the reference would have chosen."""
    return [step.best_id for step in steps]


def bound(best_logit: float) -> float:
    """The largest gap that counts as a near tie."""
    exponent = math.floor(math.log2(max(abs(best_logit), ORDINARY_LOGIT)))
    return float(BOUND_ULPS * 2.0 ** (exponent - 7))


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    """The embedded model's directory, where the server finds it too."""
    return prepare()


@pytest.fixture(scope="module")
def prompts(checkpoint: Path) -> list[list[int]]:
    """Token ids of the prompts, with their one <bos>."""
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    ids = [tokenizer.encode(text).ids for text in TEXTS]
    assert len(ids) >= 20
    assert max(map(len, ids)) > 512, "a prompt must be longer than the sliding window"
    assert all(prompt.count(2) == 1 and prompt[0] == 2 for prompt in ids)
    return ids


def served(server: Server, prompts: list[list[int]]) -> list[list[int]]:
    """The server's continuations, several at a time, as it is used."""
    with ThreadPoolExecutor(NUM_CLIENTS) as clients:
        return list(clients.map(partial(greedy_ids, server.base_url), prompts))


@pytest.mark.engine
def test_bfloat16_differs_only_at_near_ties(
    serve_profile: ServeProfile, checkpoint: Path, prompts: list[list[int]]
) -> None:
    """In bfloat16 each token is one that the reference chose, or nearly, within rounding."""
    with serve_profile(EMBEDDED, ["dtype=bf16"]) as server:
        ours = served(server, prompts)
    assert all(len(ids) == MAX_TOKENS for ids in ours)
    answers = judged(checkpoint, "bfloat16", list(zip(prompts, ours, strict=True)))
    wrong = [
        (text[:40], at, ids[at], step)
        for text, ids, steps in zip(TEXTS, ours, answers, strict=True)
        for at, step in enumerate(steps)
        if step.best_logit - step.logit > bound(step.best_logit)
    ]
    assert wrong == []


# Last, because test_embedded_prompts.py goes on with its server.
@pytest.mark.engine
def test_float32_equals_transformers(
    float32_server: Server, checkpoint: Path, prompts: list[list[int]]
) -> None:
    """In float32 each of the greedy tokens is the one that transformers chooses."""
    ours = served(float32_server, prompts)
    assert all(len(ids) == MAX_TOKENS for ids in ours)
    answers = judged(checkpoint, "float32", list(zip(prompts, ours, strict=True)))
    assert [choices(steps) for steps in answers] == ours
