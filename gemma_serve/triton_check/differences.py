"""
What differs between a recorded response and an answer, and what that means to a client.

    breaks    a client would fail: status class, a missing key or output, another datatype or rank
    text      the answer says something else
    harmless  what no client reads: words of an error, more keys, how a stream is cut
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gemma_serve.triton_check.answers import OTHER, Reading
from gemma_serve.triton_check.json_values import kind
from gemma_serve.triton_check.tensors import Output
from gemma_serve.triton_check.texts import Divergence, TextRule, divergence
from gemma_serve.triton_check.values import are_close

Severity = Literal["breaks", "text", "harmless"]
SEVERITIES: tuple[Severity, ...] = ("breaks", "text", "harmless")
# A client that finds another value here has another answer in its hands.
IDENTITIES = frozenset({"id", "model_name", "datatype", "data_type"})
SHAPES = frozenset({"shape", "dims"})
TEXT_OUTPUT = "text_output"
# Triton adds them to an ensemble's answers; they mean something to sequence batching alone.
SEQUENCE_PARAMETERS = frozenset({"sequence_id", "sequence_start", "sequence_end"})
SHOWN_CHARS = 60


@dataclass(frozen=True)
class Difference:
    """One difference; `where` is a dotted path, `divergence` is there where two texts part."""

    severity: Severity
    where: str
    message: str
    divergence: Divergence | None = None


def compare(recorded: Reading, now: Reading, rule: TextRule, *, values: bool) -> list[Difference]:
    """
    All differences, in the order in which a client would meet them.

    Args:
        values: Whether what the outputs say is compared too; of sampled answers it can't be.
    """
    return list(_differences(recorded, now, rule, values=values))


def worst(differences: Sequence[Difference]) -> Severity | None:
    """The gravest of the severities."""
    found = {difference.severity for difference in differences}
    return next((severity for severity in SEVERITIES if severity in found), None)


def _differences(
    recorded: Reading, now: Reading, rule: TextRule, *, values: bool
) -> Iterator[Difference]:
    if recorded.status // 100 != now.status // 100:
        said = f": {_shown(now.error)}" if now.error is not None else ""
        yield Difference("breaks", "status", f"{now.status} instead of {recorded.status}{said}")
        return
    if recorded.status != now.status:
        yield Difference("harmless", "status", f"{now.status} instead of {recorded.status}")
    if recorded.status >= 400 or recorded.error is not None or now.error is not None:
        yield from _error_differences(recorded, now)
        return
    if recorded.form != now.form:
        severity: Severity = "harmless" if recorded.form == "no body" else "breaks"
        yield Difference(severity, "body", f"{now.form} instead of {recorded.form}")
        return
    if recorded.media_type and recorded.media_type != now.media_type:
        message = f"{now.media_type or 'none'} instead of {recorded.media_type}"
        yield Difference("harmless", "content-type", message)
    yield from _tree_differences("", recorded.head, now.head)
    yield from _output_differences(recorded, now, rule, values=values)
    if recorded.form == OTHER and recorded.body != now.body:
        severity = "text" if values and rule.is_exact else "harmless"
        yield Difference(severity, "body", "the bytes differ, and they are no JSON")
    if recorded.num_events != now.num_events:
        message = f"{now.num_events} instead of {recorded.num_events}"
        yield Difference("harmless", "number of events", message)


def _error_differences(recorded: Reading, now: Reading) -> Iterator[Difference]:
    if recorded.error is not None and now.error is None:
        message = f'no {{"error": "..."}} in the body ({now.form})'
        yield Difference("breaks", "error", message)
    elif recorded.error is None and now.error is not None and now.status < 400:
        yield Difference("breaks", "error", f"an error in the stream: {_shown(now.error)}")
    elif recorded.error != now.error:
        message = f"{_shown(now.error)} instead of {_shown(recorded.error)}"
        yield Difference("harmless", "error wording", message)


# --- JSON that is no output


def _tree_differences(where: str, recorded: Any, now: Any) -> Iterator[Difference]:
    if kind(recorded) != kind(now):
        yield Difference("breaks", where or "body", f"{kind(now)} instead of {kind(recorded)}")
    elif isinstance(recorded, dict):
        yield from _object_differences(where, recorded, now)
    elif isinstance(recorded, list):
        yield from _list_differences(where, recorded, now)
    elif not are_close(recorded, now):
        severity: Severity = "breaks" if _key(where) in IDENTITIES else "harmless"
        yield Difference(severity, where or "body", f"{_shown(now)} instead of {_shown(recorded)}")


def _object_differences(
    where: str, recorded: dict[str, Any], now: dict[str, Any]
) -> Iterator[Difference]:
    for name, value in recorded.items():
        below = f"{where}.{name}" if where else name
        if name not in now:
            yield Difference(_missing(name, value), below, "missing")
        else:
            yield from _tree_differences(below, value, now[name])
    for name in (name for name in now if name not in recorded):
        yield Difference("harmless", f"{where}.{name}" if where else name, "not recorded")


def _missing(name: str, value: Any) -> Severity:
    held = {name} if name != "parameters" or not isinstance(value, dict) else value.keys()
    return "harmless" if held <= SEQUENCE_PARAMETERS else "breaks"


def _list_differences(where: str, recorded: list[Any], now: list[Any]) -> Iterator[Difference]:
    if _key(where) in SHAPES:
        if len(recorded) != len(now):
            yield Difference("breaks", where, f"{len(now)} dimensions instead of {len(recorded)}")
        elif recorded != now:
            yield Difference("harmless", where, f"{_shown(now)} instead of {_shown(recorded)}")
        return
    if recorded and _have_names(recorded) and _have_names(now):
        by_name = [{item["name"]: item for item in items} for items in (recorded, now)]
        yield from _object_differences(where, *by_name)
    elif not are_close(recorded, now):
        yield Difference("harmless", where or "body", "another list than the recorded one")


def _have_names(items: list[Any]) -> bool:
    return all(isinstance(item, dict) and isinstance(item.get("name"), str) for item in items)


def _key(where: str) -> str:
    return where.rpartition(".")[2]


# --- outputs


def _output_differences(
    recorded: Reading, now: Reading, rule: TextRule, *, values: bool
) -> Iterator[Difference]:
    for name, output in recorded.outputs.items():
        other = now.outputs.get(name)
        if other is None:
            yield Difference(_missing(name, None), name, "missing")
            continue
        form = list(_form_differences(output, other))
        yield from form
        if values and not form:
            yield from _value_differences(output, other, rule)
    for name in (name for name in now.outputs if name not in recorded.outputs):
        yield Difference("harmless", name, "not recorded")


def _form_differences(recorded: Output, now: Output) -> Iterator[Difference]:
    """What keeps a client from reading an output at all."""
    name = recorded.name
    if recorded.in_every_event and not now.in_every_event:
        yield Difference("breaks", name, "missing in some events")
    # An empty list of the generate extension has no datatype.
    if recorded.datatype and now.datatype and recorded.datatype != now.datatype:
        message = f"{now.datatype} instead of {recorded.datatype}"
        yield Difference("breaks", f"{name}.datatype", message)
        return
    if recorded.shape is not None and len(recorded.shape) != len(now.shape or ()):
        message = f"{_dims(now)} instead of {_dims(recorded)}"
        yield Difference("breaks", f"{name}.shape", message)
    if recorded.is_binary != now.is_binary:
        forms = {True: "bytes", False: "JSON"}
        message = f"{forms[now.is_binary]} instead of {forms[recorded.is_binary]}"
        yield Difference("breaks", f"{name}.data", message)
    if recorded.values is not None and now.values is None:
        yield Difference("breaks", f"{name}.data", "does not fit its own datatype and shape")
    counts = [len(output.values or ()) for output in (recorded, now)]
    if name == TEXT_OUTPUT and now.values is not None and counts[0] != counts[1]:
        yield Difference("breaks", name, f"{counts[1]} texts instead of {counts[0]}")


def _dims(output: Output) -> str:
    return str(list(output.shape)) if output.shape is not None else "no shape"


def _value_differences(recorded: Output, now: Output, rule: TextRule) -> Iterator[Difference]:
    severity: Severity = "text" if rule.is_exact else "harmless"
    # Text is exact to the letter, also where it is JSON.
    is_same = operator.eq if recorded.name == TEXT_OUTPUT else are_close
    pair = (recorded.values or (), now.values or ())
    if recorded.shape != now.shape or len(pair[0]) != len(pair[1]):
        said = f"{_dims(now)} instead of {_dims(recorded)}" if recorded.shape else "more or fewer"
        yield Difference(severity, recorded.name, f"another number of values: {said}")
        return
    unequal = [
        (index, *values)
        for index, values in enumerate(zip(*pair, strict=True))
        if not is_same(*values)
    ]
    texts = [found for found in unequal if isinstance(found[1], str) and isinstance(found[2], str)]
    for index, want, got in texts:
        where = recorded.name if len(pair[0]) == 1 else f"{recorded.name}[{index}]"
        counts: Severity = "text" if rule.counts(want, got) else "harmless"
        yield Difference(counts, where, "another text", divergence(want, got))
    if unequal and not texts:
        index, want, got = unequal[0]
        more = f", and {len(unequal) - 1} more" if len(unequal) > 1 else ""
        message = f"{_shown(got)} instead of {_shown(want)}{more}"
        yield Difference(severity, f"{recorded.name}[{index}]", message)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}..."
