"""Differences of the server's own counters."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from benchmarks.metrics.server_side import COUNTERS, HISTOGRAMS, server_side
from tests.benchmarks.metrics.made import failed, request


def scrape(scale: float, extra: str = "") -> str:
    """A page of vLLM's metrics with two engines, all values times `scale`."""
    lines = []
    for name, total, count in (
        ("vllm:time_to_first_token_seconds", 0.2, 4),
        ("vllm:inter_token_latency_seconds", 0.5, 100),
        ("vllm:request_queue_time_seconds", 0.1, 4),
        ("vllm:request_prefill_time_seconds", 0.05, 4),
        ("vllm:request_decode_time_seconds", 0.6, 4),
    ):
        lines.append(f"# TYPE {name} histogram")
        for engine in "01":
            lines.append(f'{name}_bucket{{engine="{engine}",le="+Inf"}} {count * scale}')
            lines.append(f'{name}_sum{{engine="{engine}"}} {total * scale}')
            lines.append(f'{name}_count{{engine="{engine}"}} {count * scale}')
    for name in COUNTERS.values():
        lines.append(f"# TYPE {name.removesuffix('_total')} counter")
        lines += [f'{name}{{engine="{engine}"}} {10 * scale}' for engine in "01"]
    return "\n".join([*lines, extra, ""])


def test_means_of_the_difference() -> None:
    """A mean is delta(sum) / delta(count), over all engines: what was before is not in it."""
    before = scrape(1.0)
    after = scrape(1.0).replace(
        'vllm:time_to_first_token_seconds_sum{engine="0"} 0.2',
        'vllm:time_to_first_token_seconds_sum{engine="0"} 1.4',
    )
    after = after.replace(
        'vllm:time_to_first_token_seconds_count{engine="0"} 4.0',
        'vllm:time_to_first_token_seconds_count{engine="0"} 8.0',
    )
    found = server_side(before, after)
    assert found is not None
    # (1.4 - 0.2) / (8 - 4)
    assert found.ttft_mean_s == pytest.approx(0.3)
    # nothing else happened: no mean of nothing
    assert found.queue_mean_s is None
    assert found.preemptions == 0


def test_all_fields() -> None:
    """Twice the counters: the difference of each, summed over the engines."""
    found = server_side(scrape(1.0), scrape(2.0))
    assert found is not None
    # 0.2 / 4, 0.5 / 100, 0.1 / 4, 0.05 / 4, 0.6 / 4
    assert found.ttft_mean_s == pytest.approx(0.05)
    assert found.itl_mean_s == pytest.approx(0.005)
    assert found.queue_mean_s == pytest.approx(0.025)
    assert found.prefill_mean_s == pytest.approx(0.0125)
    assert found.decode_mean_s == pytest.approx(0.15)
    # 2 engines x 10
    assert {getattr(found, name) for name in COUNTERS} == {20.0}


def test_the_older_name() -> None:
    """Where there is no inter_token_latency, time_per_output_token is the same histogram."""
    old, new = "time_per_output_token_seconds", "inter_token_latency_seconds"
    found = server_side(scrape(1.0).replace(new, old), scrape(2.0).replace(new, old))
    assert found is not None
    assert found.itl_mean_s == pytest.approx(0.005)


def test_overhead() -> None:
    """What the client's mean TTFT has beyond the engine's is HTTP, network and client."""
    records = [
        request((0.06, 0.2)),
        request((0.07, 0.2)),
        request((9.0, 9.1), phase="warm_up"),
        failed(),
    ]
    found = server_side(scrape(1.0), scrape(2.0), records)
    assert found is not None
    # (0.06 + 0.07) / 2 - 0.05
    assert found.overhead_ttft_s == pytest.approx(0.015)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ""),
        ("python_info 1\n", "python_info 1\n"),
        ("<html>hello</html>", "<html>hello</html>"),
        (scrape(2.0), scrape(1.0)),
    ],
    ids=["empty", "another server", "no metrics", "restarted"],
)
def test_nothing_to_tell(before: str, after: str) -> None:
    """No counters of vLLM's, or counters that began anew, are no figures."""
    assert server_side(before, after) is None


def test_a_series_that_appears() -> None:
    """A counter that is first written during the run began at 0."""
    found = server_side("", scrape(1.0))
    assert found is not None
    assert found.generation_tokens == 20


def test_names_are_vllms() -> None:
    """Each series stands in the installed vLLM, counters without the suffix that is appended."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        pytest.skip("vLLM is not installed")
    source = (Path(spec.origin).parent / "v1/metrics/loggers.py").read_text()
    theirs = set(re.findall(r'name="(vllm:[a-z_]+)"', source))
    assert {names[0] for names in HISTOGRAMS.values()} <= theirs
    assert {name.removesuffix("_total") for name in COUNTERS.values()} <= theirs
