"""What is counted of a model before anybody has asked it anything; no engine."""

from __future__ import annotations

from gemma_serve.api.kserve.statistics import COUNTERS, ModelStatistics, Took, TritonCounters

STATISTICS = {
    *("name", "version", "last_inference", "inference_count", "execution_count"),
    *("inference_stats", "response_stats", "batch_stats", "memory_usage"),
}


def test_counters_begin_at_0() -> None:
    """Every served model has every series from the start, and keeps it when the server drains."""
    served: list[str] = []
    counters = TritonCounters({}, "1", lambda: served)
    assert [metric.samples for metric in counters.collect()] == [[]] * len(COUNTERS)
    for names in (["tiny"], []):
        served[:] = names
        samples = [sample for metric in counters.collect() for sample in metric.samples]
        assert {sample.name for sample in samples} == COUNTERS.keys()
        labels = {"model": "tiny", "version": "1"}
        assert {(*sample.labels.items(), sample.value) for sample in samples} == {
            (*labels.items(), 0)
        }


def test_statistics_have_tritons_keys() -> None:
    """All of the statistics extension, before the first request and after it."""
    statistics = ModelStatistics()
    assert statistics.as_dict("tiny", "1").keys() == STATISTICS
    assert statistics.as_dict("tiny", "1")["batch_stats"] == []
    statistics.succeeded(Took(4.0, queue_s=1.0, input_s=0.5, infer_s=2.0), num_prompts=3)
    said = statistics.as_dict("tiny", "1")
    (batch,) = said["batch_stats"]
    assert said.keys() == STATISTICS
    assert (batch.pop("batch_size"), batch.keys()) == (
        1,
        {"compute_input", "compute_infer", "compute_output"},
    )
    assert batch["compute_infer"] == {"count": 1, "ns": 2_000_000_000}
