"""Items that nobody wrote: random prompts, prefix groups, conversations, images."""

from __future__ import annotations

from benchmarks.records import Item
from benchmarks.workload.images import draw_png, image_part
from benchmarks.workload.lengths import AnyLengths
from benchmarks.workload.prompts import Part, user, writer
from benchmarks.workload.spec import Images, MultiTurn, Prefix, Synthetic
from benchmarks.workload.streams import Purpose, Streams
from benchmarks.workload.text import Text


def _lengths(asked: AnyLengths, streams: Streams, purpose: Purpose, count: int) -> list[int]:
    return [int(length) for length in asked.sample(streams.get(purpose), count)]


def synthetic_items(spec: Synthetic, streams: Streams, count: int, text: Text) -> list[Item]:
    """Every prompt by itself."""
    write = writer(spec.style, text, (spec.id_low, spec.id_high), streams.seed)
    inputs = _lengths(spec.input, streams, Purpose.INPUT, count)
    outputs = _lengths(spec.output, streams, Purpose.OUTPUT, count)
    items = []
    for index, length in enumerate(inputs):
        part = Part(streams.get(Purpose.PROMPT, index), length, streams.number(index))
        items.append(Item(index, outputs[index], input_len_tokens=length, **write([part])))
    return items


def prefix_items(spec: Prefix, streams: Streams, count: int, text: Text) -> list[Item]:
    """Groups in turn: the group's prefix, then the request's own suffix."""
    write = writer(spec.style, text, (spec.id_low, spec.id_high), streams.seed)
    inputs = _lengths(spec.input, streams, Purpose.INPUT, count)
    outputs = _lengths(spec.output, streams, Purpose.OUTPUT, count)
    shared = Streams(streams.seed, "measured") if spec.warm_prefixes else streams
    items = []
    for index, length in enumerate(inputs):
        group = index % spec.num_groups
        prefix = Part(shared.get(Purpose.PREFIX, group), spec.prefix_tokens, shared.number(group))
        suffix = Part(streams.get(Purpose.PROMPT, index), length, streams.number(index))
        items.append(
            Item(
                index,
                outputs[index],
                input_len_tokens=spec.prefix_tokens + length,
                prefix_group=shared.number(group),
                **write([prefix, suffix]),
            )
        )
    return items


def multi_turn_items(spec: MultiTurn, streams: Streams, count: int, text: Text) -> list[Item]:
    """Conversation by conversation, each item the new turn alone."""
    inputs = _lengths(spec.input, streams, Purpose.INPUT, count)
    firsts = _lengths(spec.first_input or spec.input, streams, Purpose.FIRST_INPUT, count)
    outputs = _lengths(spec.output, streams, Purpose.OUTPUT, count)
    name = "c" if streams.phase == "measured" else "w"
    items = []
    for index in range(count):
        number, turn = divmod(index, spec.turns)
        length = inputs[index] if turn or not spec.first_input else firsts[index]
        items.append(
            Item(
                index,
                outputs[index],
                input_len_tokens=length,
                conversation=f"{name}{number}",
                turn=turn,
                think_s=spec.think_s if turn else 0.0,
                **user(text.draw(streams.get(Purpose.PROMPT, index), length)),
            )
        )
    return items


def image_items(spec: Images, streams: Streams, count: int, text: Text) -> list[Item]:
    """The images first, then the text, as Gemma was trained; an image's tokens are not counted."""
    inputs = _lengths(spec.input, streams, Purpose.INPUT, count)
    outputs = _lengths(spec.output, streams, Purpose.OUTPUT, count)
    items = []
    for index, length in enumerate(inputs):
        content = [
            image_part(draw_png(streams.get(Purpose.IMAGE, index, i), spec.width, spec.height))
            for i in range(spec.num_images)
        ]
        words = text.draw(streams.get(Purpose.PROMPT, index), length)
        content.append({"type": "text", "text": words})
        items.append(Item(index, outputs[index], input_len_tokens=length, **user(content)))
    return items
