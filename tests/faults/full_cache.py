"""F15: more long prompts, with long answers, than the KV cache holds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.faults.figures import Figures
from tests.faults.site import Scale, Site

NUM_PROMPTS, PROMPT_TOKENS, ANSWER_TOKENS = 16, 500, 300
PREEMPTIONS = "vllm:num_preemptions_total"


def cache_is_full(site: Site, scale: Scale) -> Figures:
    """
    Requests are put off, and begun anew, as others need their place; each is answered, in the very
    words that it gets alone.
    """
    alone = [ask(site, i) for i in range(scale.compared)]
    before, finished = site.value(PREEMPTIONS), site.finished()
    with ThreadPoolExecutor(NUM_PROMPTS) as clients:
        together = list(clients.map(lambda i: ask(site, i), range(NUM_PROMPTS)))
    preemptions = site.value(PREEMPTIONS) - before
    assert site.finished() - finished == NUM_PROMPTS
    assert preemptions > 0, "the cache was never full"
    assert {usage["completion_tokens"] for _, usage in together} == {ANSWER_TOKENS}
    assert [text for text, _ in together[: scale.compared]] == [text for text, _ in alone]
    site.assert_at_rest()
    return {
        "sent": NUM_PROMPTS,
        "ends": {"completed": NUM_PROMPTS},
        "lost": 0,
        "preemptions": preemptions,
        "texts_compared": scale.compared,
    }


def ask(site: Site, number: int) -> tuple[str, dict[str, Any]]:
    """A greedy answer to a long prompt of its own, and how many tokens it took."""
    # No beginning in common: the cache of prefixes would make room.
    prompt = [300 + (number * 131 + at * 7) % 3000 for at in range(PROMPT_TOKENS)]
    body = {"prompt": prompt, "max_tokens": ANSWER_TOKENS, "temperature": 0, "ignore_eos": True}
    with site.server.client() as http:
        answer = http.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    [choice], usage = answer.json()["choices"], answer.json()["usage"]
    return choice["text"], usage
