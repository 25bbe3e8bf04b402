"""The small parts of a drawing: elements, words, labels."""

from __future__ import annotations

import pytest
from markupsafe import Markup

from benchmarks.records import Load
from benchmarks.report import svg, words
from benchmarks.report.axes import Box, Labels, x_tick_labels
from benchmarks.report.scales import Linear

AREA = Box(0, 0, 200, 100)


def test_elements_escape_what_is_in_them() -> None:
    """Text and attributes are escaped; markup made here is not escaped again."""
    made = svg.element("text", "<b>", Markup("<title>&amp;</title>"), class_='a"b', view_box="0")

    assert made == '<text class="a&#34;b" viewBox="0">&lt;b&gt;<title>&amp;</title></text>'


def test_steps() -> None:
    """A value is kept until the next x, and changes there."""
    assert svg.steps([(0, 1), (5, 3), (8, 2)]) == [(0, 1), (5, 1), (5, 3), (8, 3), (8, 2)]


def test_shorten() -> None:
    """What does not fit ends in an ellipsis, and then fits."""
    long = "a server with a very long name"

    assert svg.shorten("short", 100) == "short"
    cut = svg.shorten(long, 100)
    assert cut.endswith("…")
    assert long.startswith(cut[:-1])
    assert svg.text_width(cut) <= 100


def test_labels_stay_clear_of_each_other() -> None:
    """Two points at one place get labels at two; a third finds none when all around is taken."""
    labels = Labels(AREA)
    first, second = labels.place(100, 50, "c=32"), labels.place(100, 50, "c=64")

    assert first is not None
    assert second is not None
    assert str(first).split(">")[0] != str(second).split(">")[0]
    labels.keep_clear_of(AREA)
    assert labels.place(100, 50, "c=128") is None


def test_labels_stay_inside() -> None:
    """A label of a point at the right edge goes to its left."""
    label = Labels(AREA).place(198, 50, "c=32")

    assert label is not None
    x = float(str(label).split('x="')[1].split('"')[0])
    assert x + svg.text_width("c=32") <= 200


def test_labels_stay_off_lines() -> None:
    """A label does not lie on the line that runs to the right of its point."""
    labels = Labels(AREA)
    labels.keep_clear_of_line([(50, 50), (190, 50)])
    label = labels.place(50, 50, "c=8")

    assert label is not None
    assert 'y="54"' not in str(label)  # the first choice: right, at the line's height


def test_tick_labels_that_would_touch_are_left_out() -> None:
    """Of ticks closer together than their words only some are written."""
    ticks = [float(value) for value in range(0, 1001, 50)]
    crowded = x_tick_labels(Linear(0, 1000, 0, 200, ticks), words.tick, 10)
    roomy = x_tick_labels(Linear(0, 1000, 0, 2000, ticks), words.tick, 10)

    assert len(roomy) == 21
    assert 2 <= len(crowded) < 10


@pytest.mark.parametrize(
    ("value_s", "said"),
    [(1.2345, "1.23 s"), (0.0351, "35.1 ms"), (0.01, "10 ms"), (4e-5, "40 µs"), (0, "0 s")],
)
def test_seconds(value_s: float, said: str) -> None:
    """A duration has three digits, and the unit that fits it."""
    assert words.seconds(value_s).replace("\u00a0", " ") == said


def test_numbers() -> None:
    """Three digits, thin spaces between thousands, a true minus, and no zeros on whole numbers."""
    assert words.number(12345.6) == "12\u2009346"
    assert words.number(-0.12345) == "\u22120.123"
    assert words.number(8.0) == "8"
    assert words.signed_percent(0.962) == "\u22123.8\u00a0%"


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("ttft_p50_s", "Time to first token, median"),
        ("itl_p95_s", "Inter-token latency, p95"),
        ("output_tps", "Output tokens per second"),
        ("kv_cache_mib", "KV cache MiB"),
    ],
)
def test_metric_names(metric: str, name: str) -> None:
    """Names of metrics in the files become words, known ones in full."""
    assert words.metric_name(metric) == name


def test_loads() -> None:
    """A load is said with everything that shapes it."""
    gamma = Load(mode="open", rate_rps=2.5, arrivals="gamma", burstiness=0.5, max_concurrency=64)

    assert words.load_words(Load(mode="closed", concurrency=8)) == (
        "closed loop, 8 requests at a time"
    )
    assert words.load_words(gamma) == (
        "open loop, 2.5 requests a second, gamma arrivals (burstiness 0.5), at most 64 open"
    )
