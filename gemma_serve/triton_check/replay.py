"""Replays a golden file against a server, and judges each pair."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, unquote

from gemma_serve.triton_check.answers import Reading, read_answer, read_response, renamed
from gemma_serve.triton_check.differences import Difference, compare, worst
from gemma_serve.triton_check.golden import Pair, Request
from gemma_serve.triton_check.lines import Place
from gemma_serve.triton_check.sampling import why_not_comparable
from gemma_serve.triton_check.sending import Answer, Failure, Target, send_all
from gemma_serve.triton_check.texts import TextRule

Verdict = Literal["same", "harmless", "text", "breaks", "error", "not sent"]
# The model's name; what may follow it is Triton's, and `stats` alone is no model.
MODEL_PATH = re.compile(
    r"(?P<before>/v2/models/)(?!stats$)(?P<name>[^?]+?)"
    r"(?P<after>(/versions/[^/?]+)?(/(infer|generate|generate_stream|ready|config|stats))?(\?.*)?)"
)


@dataclass(frozen=True)
class Result:
    """One pair, judged."""

    place: Place
    request: Request
    recorded_status: int
    status: int | None
    differences: tuple[Difference, ...] = ()
    uncounted: str | None = None  # why what the outputs say was not compared
    failure: Failure | None = None

    @property
    def verdict(self) -> Verdict:
        """The gravest thing that is to be said of it."""
        if self.failure is not None:
            return "error"
        return worst(self.differences) or "same"


@dataclass(frozen=True)
class Report:
    """What a replay found, in the golden file's order."""

    url: str
    rule: TextRule
    results: tuple[Result, ...]
    not_sent: tuple[Place, ...]
    interrupted: bool

    @property
    def exit_code(self) -> int:
        """130 interrupted, 3 something was not answered, 1 something differs, 0 nothing does."""
        if self.interrupted:
            return 130
        verdicts = {result.verdict for result in self.results}
        if self.not_sent or "error" in verdicts:
            return 3
        return 1 if verdicts & {"breaks", "text"} else 0


def replay(
    pairs: Sequence[tuple[Place, Pair]],
    target: Target,
    rule: TextRule,
    model: str | None = None,
    on_result: Callable[[], None] = lambda: None,
) -> Report:
    """
    Send every request and compare its answer with the recorded one.

    Args:
        model: Asked instead of the recorded models, and expected in the answers.

    Raises:
        UnreachableError: the server answered nothing at all.
    """
    names = _new_names([pair for _, pair in pairs], model)
    sent = [_for_model(pair, names) for _, pair in pairs]
    results: dict[int, Result] = {}

    def judge(index: int, answer: Answer | Failure) -> bool:
        place, _ = pairs[index]
        pair, reading = sent[index]
        results[index] = _judged(place, pair, reading, answer, rule)
        on_result()
        # Once the server can't be reached, the next request would fail in the same way.
        return not isinstance(answer, Failure) or answer.reachable

    interrupted = False
    try:
        asyncio.run(send_all([pair.request for pair, _ in sent], target, judge))
    except KeyboardInterrupt:
        interrupted = True
    done = [results[index] for index in sorted(results)]
    failures = [result.failure for result in done if result.failure is not None]
    if not interrupted and len(failures) == len(done) and not failures[0].reachable:
        raise target.unreachable(failures[0].reason)
    not_sent = tuple(place for index, (place, _) in enumerate(pairs) if index not in results)
    return Report(target.url, rule, tuple(done), not_sent, interrupted)


def _new_names(pairs: Sequence[Pair], model: str | None) -> dict[str, str]:
    """The recorded models' names and the new one; what got errors alone may be no model's name."""
    if model is None:
        return {}
    asked = [
        (unquote(found["name"]), pair.response.status)
        for pair in pairs
        if (found := MODEL_PATH.fullmatch(pair.request.path))
    ]
    served = {name for name, status in asked if status < 400}
    return dict.fromkeys(served or {name for name, _ in asked}, model)


def _for_model(pair: Pair, names: Mapping[str, str]) -> tuple[Pair, Reading]:
    """The pair and its response, for models of other names."""
    reading = renamed(read_response(pair.request.path, pair.response), names)
    found = MODEL_PATH.fullmatch(pair.request.path)
    name = names.get(unquote(found["name"])) if found else None
    if found is None or name is None:
        return pair, reading
    path = f"{found['before']}{quote(name)}{found['after']}"
    request = pair.request.model_copy(update={"path": path})
    return pair.model_copy(update={"request": request}), reading


def _judged(
    place: Place, pair: Pair, recorded: Reading, answer: Answer | Failure, rule: TextRule
) -> Result:
    request, status = pair.request, pair.response.status
    if isinstance(answer, Failure):
        return Result(place, request, status, None, failure=answer)
    uncounted = why_not_comparable(pair) if recorded.outputs else None
    now = read_answer(request.path, answer)
    differences = compare(recorded, now, rule, values=uncounted is None)
    return Result(place, request, status, now.status, tuple(differences), uncounted)
