"""F15: more long prompts, with long answers, than the KV cache holds."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from tests.faults.figures import Figures, figures
from tests.faults.ledger import End, Entry
from tests.faults.site import Scale, Site

NUM_PROMPTS, ANSWER_TOKENS = 16, 300
PATH = "/v1/completions"
PREEMPTIONS = "vllm:num_preemptions_total"


def cache_is_full(site: Site, scale: Scale) -> Figures:
    """
    Requests are put off, and begun anew, as others need their place; each is answered, in the very
    words that it gets alone.
    """
    alone = [ask(site, number, scale.prompt_tokens) for number in range(scale.compared)]
    before = site.value(PREEMPTIONS)
    with (
        site.loaded("F15", **scale.load) as load,
        ThreadPoolExecutor(NUM_PROMPTS) as clients,
    ):
        numbers = range(NUM_PROMPTS)
        together = list(clients.map(lambda at: ask(site, at, scale.prompt_tokens), numbers))
        load.ledger.entries += together
    preemptions = site.value(PREEMPTIONS) - before
    assert load.ledger.summary().keys() == {"sent", "completed"}, load.ledger.summary()
    assert preemptions > 0, "the cache was never full"
    texts = [entry.detail for entry in together[: scale.compared]]
    assert texts == [entry.detail for entry in alone]
    return figures(load.ledger.entries, preemptions=preemptions, long_texts_compared=len(texts))


def ask(site: Site, number: int, prompt_tokens: int) -> Entry:
    """A greedy answer to a long prompt of its own; its detail is the text."""
    # No beginning in common: the cache of prefixes would make room.
    prompt = [300 + (number * 131 + at * 7) % 3000 for at in range(prompt_tokens)]
    body = {"prompt": prompt, "max_tokens": ANSWER_TOKENS, "temperature": 0, "ignore_eos": True}
    began_s = time.monotonic()
    id_ = f"F15-long-{number}-{began_s}"
    with site.server.client() as http:
        answer = http.post(PATH, json=body, headers={"x-request-id": id_})
    assert answer.status_code == 200, answer.text
    [choice], usage = answer.json()["choices"], answer.json()["usage"]
    assert usage["completion_tokens"] == ANSWER_TOKENS
    return Entry(PATH, False, End.COMPLETED, choice["text"], id_, began_s, time.monotonic())
