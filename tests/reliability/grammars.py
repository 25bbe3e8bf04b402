"""Class E: structured outputs that can't be or take too much, one at a time, over every API."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import cycle
from typing import Any

from tests.api.kserve.refusals import Witness
from tests.api.test_structured_output_bounds import GOOD
from tests.reliability import bombs
from tests.reliability.case import (
    CHAT,
    COMPLETIONS,
    EITHER,
    MESSAGES,
    OK,
    REFUSED,
    RESPONSES,
    Answer,
    Case,
    post,
)
from tests.reliability.sending import MAX_LARGE_GROWTH_MIB, Tally, late_looks, send_all

# The promises, where limits.max_grammar_compile_s is 2 and the machine has nothing else to do.
REFUSED_S, MAX_LAG_S = 3.0, 0.25
USER = {"role": "user", "content": "Hi"}
Fields = dict[str, Any]
Form = Callable[[Any], tuple[str, Fields]]


def send(witness: Witness) -> Tally:
    """Send all of them, and hold the answers and the server's event loop to the promises."""
    late = late_looks(witness.http, MAX_LAG_S)
    tally = send_in_order(witness, groups(), REFUSED_S)
    late = late_looks(witness.http, MAX_LAG_S) - late
    if late:
        tally.faults.append(f"E: the event loop was {MAX_LAG_S} s late, {late:.0f} times")
    return tally


def send_in_order(
    witness: Witness, of: Iterable[tuple[Case, ...]], refused_within_s: float = math.inf
) -> Tally:
    """Send some of the groups, one case at a time."""
    return send_all(
        witness,
        (case for group in of for case in group),
        at_once=1,
        refused_within_s=refused_within_s,
        max_growth_mib=MAX_LARGE_GROWTH_MIB,
    )


def groups() -> Iterator[tuple[Case, ...]]:
    """All of them; those of one group belong together, in this order."""
    yield from ((case,) for case in _single())
    yield from sequences()


# --- one request each


def _single() -> Iterator[Case]:
    yield from _in_forms("schema", bombs.BAD_SCHEMAS, bombs.ODD_SCHEMAS, FOR_SCHEMAS)
    yield from _in_forms("regex", bombs.BAD_REGEXES, bombs.ODD_REGEXES, _forms_of("regex"))
    yield from _in_forms("grammar", bombs.BAD_GRAMMARS, bombs.ODD_GRAMMARS, _forms_of("grammar"))
    yield from _in_forms("tag", bombs.BAD_TAGS, bombs.ODD_TAGS, FOR_TAGS)
    for name, wanted in bombs.BAD_KINDS.items():
        for path, start in STARTS.items():
            yield post(f"E {name}, {path}", path, start | {"structured_outputs": wanted}, REFUSED)


def _in_forms(
    kind: str, bad: bombs.Named, odd: bombs.Named, forms: Iterable[Form]
) -> Iterator[Case]:
    """Each in one protocol's place for it, the next one in the next."""
    form = cycle(forms)
    for table, allowed in ((bad, REFUSED), (odd, EITHER)):
        for name, wanted in table.items():
            path, fields = next(form)(wanted)
            # Around the schemas of tools vLLM puts another, to whose root the references lead.
            allowed_here = EITHER if "tools" in fields else allowed
            yield post(f"E {kind}: {name}, {path}", path, fields, allowed_here)


STARTS: Mapping[str, Fields] = {
    CHAT: {"messages": [USER], "max_tokens": 5},
    COMPLETIONS: {"prompt": "Hi", "max_tokens": 5},
    RESPONSES: {"input": "Hi", "max_output_tokens": 5, "store": False},
}


def _forms_of(kind: str) -> list[Form]:
    def form(path: str) -> Form:
        return lambda wanted: (path, STARTS[path] | {"structured_outputs": {kind: wanted}})

    return [form(path) for path in STARTS]


def _as_format(schema: Any) -> Fields:
    return {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}


def _chat(schema: Any) -> tuple[str, Fields]:
    return CHAT, STARTS[CHAT] | {"response_format": _as_format(schema)}


def _stream(schema: Any) -> tuple[str, Fields]:
    return CHAT, _chat(schema)[1] | {"stream": True}


def _completion(schema: Any) -> tuple[str, Fields]:
    return COMPLETIONS, STARTS[COMPLETIONS] | {"response_format": _as_format(schema)}


def _text(schema: Any) -> tuple[str, Fields]:
    return CHAT, STARTS[CHAT] | {"structured_outputs": {"json": json.dumps(schema)}}


def _response(schema: Any) -> tuple[str, Fields]:
    wanted = {"type": "json_schema", "name": "a", "schema": schema}
    return RESPONSES, STARTS[RESPONSES] | {"text": {"format": wanted}}


def _message(schema: Any) -> tuple[str, Fields]:
    wanted = {"format": {"type": "json_schema", "schema": schema}}
    message = {"model": "tiny", "max_tokens": 5, "messages": [USER]}
    return MESSAGES, message | {"output_config": wanted}


def _tool(schema: Any) -> tuple[str, Fields]:
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    return CHAT, STARTS[CHAT] | {"tools": [tool], "tool_choice": "required"}


def _tag(wanted: Any) -> tuple[str, Fields]:
    return CHAT, STARTS[CHAT] | {"response_format": {"type": "structural_tag", **wanted}}


def _tag_as_text(wanted: Any) -> tuple[str, Fields]:
    text = json.dumps({"type": "structural_tag", **wanted})
    return COMPLETIONS, STARTS[COMPLETIONS] | {"structured_outputs": {"structural_tag": text}}


FOR_SCHEMAS: tuple[Form, ...] = (_chat, _text, _stream, _completion, _response, _message, _tool)
FOR_TAGS: tuple[Form, ...] = (_tag, _tag_as_text)

# --- good, bad, good: what a backend keeps of a bad one must not show in the next


def sequences() -> Iterator[tuple[Case, ...]]:
    """Each good one before and after each bad one, with the same answer."""
    for good, (wanted, holds) in GOODS.items():
        for bad, (unwanted, allowed) in BADS.items():
            name = f"E {good} around {bad}"
            same = _Same(holds)
            yield (
                _wanting(f"{name}: before", wanted, OK, same),
                _wanting(f"{name}: the bad one", unwanted, allowed),
                _wanting(f"{name}: after", wanted, OK, same),
            )


def _wanting(name: str, wanted: Fields, allowed: frozenset[int], look: _Same | None = None) -> Case:
    fields = {"messages": [USER], "max_tokens": 30, "temperature": 0} | wanted
    return Case(name, CHAT, json.dumps(fields).encode(), allowed, look=look)


class _Same:
    """Whether answers hold to what was wanted, and are all the same."""

    def __init__(self, holds: Callable[[str], bool]) -> None:
        self._holds, self._first = holds, ""

    def __call__(self, answer: Answer) -> list[str]:
        if answer.status != 200:  # which is a fault already
            return []
        text = str(json.loads(answer.body)["choices"][0]["message"]["content"])
        before, self._first = self._first, self._first or text
        found = [] if self._holds(text) else [f"{text!r} is not what was wanted"]
        return found if text == (before or text) else [*found, f"{text!r} after {before!r}"]


def _is_good(text: str) -> bool:
    try:
        return type(json.loads(text)["on"]) is bool
    except (ValueError, LookupError, TypeError):
        return False


def _structured(**wanted: Any) -> Fields:
    return {"structured_outputs": wanted}


GOODS: Mapping[str, tuple[Fields, Callable[[str], bool]]] = {
    "a schema": ({"response_format": _as_format(GOOD)}, _is_good),
    "a regex": (_structured(regex="(red|green)"), lambda text: text in ("red", "green")),
    "choices": (_structured(choice=["red", "green"]), lambda text: text in ("red", "green")),
    "a grammar": (_structured(grammar='root ::= "yes" | "no"'), lambda text: text in ("yes", "no")),
    # Thirty tokens may not be enough for its end.
    "any object": ({"response_format": {"type": "json_object"}}, lambda text: text[:1] == "{"),
}
BADS: Mapping[str, tuple[Fields, frozenset[int]]] = {
    "json_object false": (_structured(json_object=False), REFUSED),
    "an empty schema": (_structured(json=""), REFUSED),
    "a grammar that is none": (_structured(grammar="root ::= ("), REFUSED),
    "nothing or anything": (_structured(regex="^(|.*)$"), EITHER),
    "an array of draft 7": (_structured(json={"type": "array", "items": [{}]}), EITHER),
    "a schema of itself": (_structured(json={"$ref": "#"}), REFUSED),
    "a regex counted twice": (_structured(regex="(.{0,9999}){9999}"), REFUSED),
    "two kinds": (_structured(regex="a", choice=["a"]), REFUSED),
}
