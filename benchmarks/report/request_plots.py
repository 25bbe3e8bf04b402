"""Plots of a run's requests one by one: their timeline, and first token against prompt length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from benchmarks.metrics.requests import icl_s, prompt_tokens, ttft_s
from benchmarks.records import RequestRecord
from benchmarks.report import svg, words
from benchmarks.report.axes import WIDE, Box, Panel, plot_box
from benchmarks.report.data import RunData
from benchmarks.report.figures import Figure, LeftOut, LegendItem
from benchmarks.report.scales import Linear, linear, log, ticks_between

MAX_ROWS = 96
# A pause this many times the run's median gap is drawn as a stall, and none below 20 ms, which
# nobody sees.
STALL_TIMES = 5.0
STALL_S = 0.02
MAX_POINTS = 1500
HELD_S = 1e-3  # less is not to be seen
TIMELINE = "Each request from its sending to its last token"
LENGTHS = "Time to first token against prompt length"


def timeline(data: RunData) -> Figure | LeftOut:
    """One row a request: waiting for the first token, decoding, and the stalls in it."""
    if not data.records:
        return LeftOut("timeline", TIMELINE, "the run has no requests.jsonl")
    every = sorted(data.records, key=lambda record: record.send_s)
    shown = every[:MAX_ROWS]
    stall_s = stall_limit_s(data.records)
    row = max(4.0, min(16.0, 420 / len(shown)))
    height = 32 + row * len(shown) + 48
    box = Box(56, 32, WIDE - 20, height - 48)
    x = linear([0.0, max(record.end_s for record in shown)], box.left, box.right, count=10)
    y = Linear(0, len(shown), box.top, box.bottom, _row_ticks(len(shown)))
    panel = Panel(box, x, y, "Seconds since the run began", "Request, in order of sending")
    body = panel.axes()
    body += [_request(panel, record, i, row, stall_s) for i, record in enumerate(shown)]
    count = f"The first {len(shown)} of {len(every)} requests" if len(every) > len(shown) else ""
    note = f"{count or f'All {len(every)} requests'}, the warm-up's pale."
    said, legend = _timeline_words(shown, stall_s), _timeline_legend(shown, stall_s)
    return Figure("timeline", TIMELINE, note, said, body, legend, WIDE, height)


def stall_limit_s(records: Sequence[RequestRecord]) -> float:
    """From which gap on a pause is drawn as a stall."""
    gaps = [gap for record in records for gap in icl_s(record)]
    return max(STALL_S, STALL_TIMES * float(np.median(gaps))) if gaps else STALL_S


def _row_ticks(num_rows: int) -> list[float]:
    step = next(step for step in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0) if num_rows / step <= 12)
    return ticks_between(0, num_rows, step)


def _request(panel: Panel, record: RequestRecord, i: int, row: float, stall_s: float) -> Markup:
    thick = row * 0.72
    top = panel.y(i) + (row - thick) / 2
    drawn = []

    def bar(began_s: float, ended_s: float, class_: str) -> None:
        left = panel.x(began_s)
        drawn.append(svg.rectangle(left, top, panel.x(ended_s) - left, thick, class_))

    if (held_s := _held_s(record)) > HELD_S:
        bar(record.send_s - held_s, record.send_s, "held")
    first_s = record.send_s + (ttft_s(record) or record.end_s - record.send_s)
    bar(record.send_s, first_s, "wait")
    bar(first_s, record.end_s, "decode")
    for before, gap in zip(record.chunks, icl_s(record), strict=False):
        if gap > stall_s:
            began_s = record.send_s + before.at_s
            bar(began_s, began_s + gap, "stall")
    if record.error is not None:
        x = min(panel.x(record.end_s) + 6, panel.box.right - 4)
        drawn.append(svg.marker(x, top + thick / 2, "cross", "cross failed", min(4.0, row / 2)))
    pale = " pale" if record.phase == "warm_up" else ""
    tip = svg.element("title", _request_words(record))
    return svg.element("g", tip, *drawn, class_=f"request{pale}")


def _held_s(record: RequestRecord) -> float:
    """How long the client held a request back after it was due."""
    return record.queue_s if record.sched_s is None else record.send_s - record.sched_s


def _request_words(record: RequestRecord) -> str:
    first = ttft_s(record)
    said = [f"Request {record.index}{' (warm-up)' if record.phase == 'warm_up' else ''}"]
    said.append(f"first token after {words.seconds(first)}" if first is not None else "no token")
    said.append(f"{record.num_output_tokens} tokens in {words.seconds(_length_s(record))}")
    if record.error is not None:
        said.append(f"failed: {record.error}")
    return ", ".join(said)


def _length_s(record: RequestRecord) -> float:
    return record.end_s - record.send_s


def _timeline_words(shown: Sequence[RequestRecord], stall_s: float) -> str:
    stalls = sum(gap > stall_s for record in shown for gap in icl_s(record))
    failed = sum(record.error is not None for record in shown)
    return f"{len(shown)} requests, {stalls} stalls over {words.seconds(stall_s)}, {failed} failed"


def _timeline_legend(shown: Sequence[RequestRecord], stall_s: float) -> list[LegendItem]:
    legend = [
        LegendItem("waiting for the first token: queue and prefill", "k-wait", "box"),
        LegendItem("decoding", "k-decode", "box"),
        LegendItem(f"stall: pause over {words.seconds(stall_s)}", "k-stall", "box"),
    ]
    if any(_held_s(record) > HELD_S for record in shown):
        legend.insert(0, LegendItem("due, held back in the client", "k-held", "box"))
    if any(record.error is not None for record in shown):
        legend.append(LegendItem("failed", "k-failed", "dot", "cross"))
    return legend


def prompt_lengths(data: RunData) -> Figure | LeftOut:
    """Each request's time to first token over its prompt's length."""
    found = [
        (length, first_s, record)
        for record in data.measured
        if record.error is None
        and (length := prompt_tokens(record)) is not None
        and (first_s := ttft_s(record)) is not None
    ]
    lengths = {length for length, _, _ in found}
    if len(lengths) < 3:
        return LeftOut("prompt-length", LENGTHS, _too_alike(sorted(lengths)))
    box = plot_box()
    firsts = [first_s for _, first_s, _ in found]
    x = linear([length for length, _, _ in found], box.left, box.right, zero=min(lengths) < 1000)
    spread = max(firsts) / min(firsts) > 20
    y = log(firsts, box.bottom, box.top) if spread else linear(firsts, box.bottom, box.top)
    y_name = "Time to first token, logarithmic" if spread else "Time to first token"
    panel = Panel(box, x, y, "Prompt tokens", y_name, y_tick=words.seconds_tick)
    dots = [
        svg.marker(*panel.at(length, first_s), "circle", "dot faint", 3.5, _length_tip(*one))
        for one in found[:MAX_POINTS]
        for length, first_s, _ in [one]
    ]
    medians = _medians([(length, first_s) for length, first_s, _ in found])
    middle = svg.polyline([panel.at(*point) for point in medians], "line")
    body = [*panel.axes(), svg.group(dots, class_="c1"), svg.group([middle], class_="c2")]
    legend = [LegendItem("a request", "c1", "dot", "circle"), LegendItem("median by length", "c2")]
    said = f"{len(found)} requests of {min(lengths)} to {max(lengths)} prompt tokens"
    note = "A rising line is prefill work; height without a slope is waiting."
    return Figure("prompt-length", LENGTHS, note, said, body, legend)


def _too_alike(lengths: Sequence[int]) -> str:
    if not lengths:
        return "no request has a prompt length and a first token"
    named = " and ".join(words.tick(length) for length in lengths)
    return f"prompts have {'one length' if len(lengths) == 1 else 'two lengths'} only: {named}"


def _length_tip(length: int, first_s: float, record: RequestRecord) -> str:
    return f"Request {record.index}: {length} prompt tokens, first token {words.seconds(first_s)}"


def _medians(points: Sequence[tuple[int, float]], num_bins: int = 8) -> list[tuple[float, float]]:
    """The median of both in bins of equally many requests, by length."""
    ordered = np.array(sorted(points))
    bins = np.array_split(ordered, min(num_bins, max(1, len(ordered) // 6)))
    return [(float(x), float(y)) for x, y in (np.median(part, axis=0) for part in bins)]
