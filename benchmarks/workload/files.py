"""Items from a file: our own workload.jsonl as it is, or recorded requests cut to measure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.records import Item
from benchmarks.workload.errors import WorkloadError
from benchmarks.workload.recorded import Turn, entries, turns_of
from benchmarks.workload.spec import File
from benchmarks.workload.stored import Workload, replay_stored
from benchmarks.workload.streams import Purpose, Streams
from benchmarks.workload.text import Text


@dataclass(frozen=True)
class Request:
    """A recorded turn with its lengths."""

    turn: Turn
    input_tokens: int
    output_tokens: int  # as recorded; the most it can be, where the spec's own is drawn


@dataclass(frozen=True)
class Found:
    """What a file gives: conversations of one request or more, and how many were left out."""

    name: str
    conversations: list[list[Request]]
    num_left_out: int


def replay_file(spec: File, count: int | None, num_warm_up: int) -> Workload:
    """Our own workload, or its beginning."""
    if spec.output or spec.shuffle or spec.split_turns or spec.max_model_len:
        raise WorkloadError(
            f"{spec.path.name} is a workload.jsonl, which is replayed as it is; "
            "leave out output, shuffle, split_turns and max_model_len"
        )
    return replay_stored(spec.path, count, num_warm_up)


def find(spec: File, seed: int, text: Text) -> Found:
    """Every request of the file that can be sent, in the order asked for."""
    conversations = []
    num_left_out = 0
    for where, entry in entries(spec.path):
        turns = turns_of(entry, where, split_turns=spec.split_turns)
        requests = [_request(turn, spec, text) for turn in turns]
        if "conversations" not in entry and any(request is None for request in requests):
            raise WorkloadError(
                f"{where} has no answer and no max_tokens, so the length of its output is unknown; "
                "give output"
            )
        fitting = _fitting(requests, spec.max_model_len)
        num_left_out += max(1, len(turns)) - len(fitting)
        if fitting:
            conversations.append(fitting)
    if spec.shuffle:
        order = Streams(seed, "measured").get(Purpose.ORDER).permutation(len(conversations))
        conversations = [conversations[number] for number in order]
    return Found(spec.path.name, conversations, num_left_out)


def _request(turn: Turn, spec: File, text: Text) -> Request | None:
    output = spec.output.longest() if spec.output else turn.output_tokens(text)
    return None if output is None else Request(turn, turn.input_tokens(text), output)


def _fitting(requests: list[Request | None], max_model_len: int | None) -> list[Request]:
    """The first turns, as long as they fit with their history."""
    fitting: list[Request] = []
    tokens = 0
    for request in requests:
        if request is None:
            break
        tokens += request.input_tokens + request.output_tokens
        if max_model_len is not None and tokens > max_model_len:
            break
        fitting.append(request)
    return fitting


def file_items(
    spec: File, found: Found, seed: int, count: int | None, num_warm_up: int, text: Text
) -> tuple[list[Item], list[Item]]:
    """Measured items from the file's beginning, warm-up from its end: none is in both."""
    warm_up, num_used = _take(found.conversations[::-1], num_warm_up)
    left = found.conversations[: len(found.conversations) - num_used]
    available = sum(len(conversation) for conversation in left)
    measured, _ = _take(left, available if count is None else count)
    missing = (count or 1) - len(measured)
    if missing > 0 or len(warm_up) != num_warm_up:
        total = sum(len(conversation) for conversation in found.conversations)
        raise WorkloadError(
            f"{count or 'all'} requests and {num_warm_up} for the warm-up were asked for, and "
            f"{found.name} has {total} that can be sent; ask for fewer"
        )
    return (
        _items(spec, measured, Streams(seed, "measured"), text),
        _items(spec, warm_up, Streams(seed, "warm_up"), text),
    )


Placed = tuple[int, int, Request]  # conversation, turn, request


def _take(conversations: list[list[Request]], count: int) -> tuple[list[Placed], int]:
    """The first `count` requests, the last conversation cut, and how many conversations it took."""
    taken: list[Placed] = []
    for number, conversation in enumerate(conversations):
        if len(taken) >= count:
            return taken, number
        wanted = conversation[: count - len(taken)]
        taken += [(number, turn, request) for turn, request in enumerate(wanted)]
    return taken, len(conversations)


def _items(spec: File, placed: list[Placed], streams: Streams, text: Text) -> list[Item]:
    outputs = [request.output_tokens for _, _, request in placed]
    if spec.output:
        outputs = spec.output.sample(streams.get(Purpose.OUTPUT), len(placed)).tolist()
    name = "c" if streams.phase == "measured" else "w"
    items = []
    for index, (number, turn, request) in enumerate(placed):
        item = Item(index, outputs[index], turn=turn, **request.turn.fields)
        if text.exact or item.prompt_token_ids is not None:
            item.input_len_tokens = request.input_tokens
        if spec.split_turns:
            think_s = spec.think_s if turn else 0.0
            item = replace(item, conversation=f"{name}{number}", think_s=think_s)
        items.append(item)
    return items
