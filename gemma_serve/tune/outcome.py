"""From the harness's record of a comparison to what it found, and whether the setting is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from gemma_serve.errors import StartupError

Verdict = Literal["faster", "slower", "equivalent", "inconclusive", "invalid"]
THROUGHPUT = "output_tps"


class Part(BaseModel):
    """A part of a file: of the harness's, whose other keys are passed over, or of ours."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Ratio(Part):
    """One metric of the candidate over what it was held against."""

    metric: str
    unit: str
    primary: bool
    a_median: float
    b_median: float
    ratio_mean: float
    ci_low: float
    ci_high: float
    num_pairs: int
    noise_floor: float | None = None
    verdict: Verdict

    def __str__(self) -> str:
        interval = f"{self.ci_low:.3f} to {self.ci_high:.3f}"
        return f"{self.ratio_mean:.3f} (95 % {interval}, {self.num_pairs} pairs)"


class Agreement(Part):
    """How far the greedy answers of both agree."""

    num_prompts: int
    exact_match: float
    mean_agreement: float
    mean_agreement_tokens: float
    length_ratio: float
    same: bool

    def __str__(self) -> str:
        said = "same output" if self.same else "output differs"
        return (
            f"{said}: {self.exact_match:.0%} of {self.num_prompts} greedy answers are identical, "
            f"{self.mean_agreement:.0%} of an answer agrees"
        )


class Compared(Part):
    """What a comparison found."""

    verdict: Verdict
    message: str
    ratios: list[Ratio]
    agreement: Agreement | None = None
    attainment: float | None = None  # part of the candidate's requests that kept the SLO
    attainment_before: float | None = None  # of those of what it was held against
    started_at: str
    host: dict[str, Any]

    def ratio(self, metric: str) -> Ratio | None:
        """The metric's, None where it was not measured on both sides."""
        return next((ratio for ratio in self.ratios if ratio.metric == metric), None)

    @property
    def throughput(self) -> Ratio | None:
        """Output tokens/s."""
        return self.ratio(THROUGHPUT)


class _Target(Part):
    label: str


class _Pair(Part):
    a_directory: str | None = None
    b_directory: str | None = None


class _Metric(Part):
    metric: str
    unit: str
    primary: bool
    pairs: list[_Pair]
    a_median: float
    b_median: float
    ratio_mean: float
    ci_low: float
    ci_high: float
    noise_floor: float | None
    verdict: Verdict


class _Record(Part):
    """The keys of compare.json that are read; the rest is for people and other tools."""

    a: _Target
    b: _Target
    metrics: list[_Metric]
    quality: Agreement | None = None
    started_at: str
    host: dict[str, Any]
    verdict: Verdict
    message: str


def read_comparison(file: Path) -> Compared:
    """
    Read a compare.json, and the run.json of its blocks for the SLO.

    Raises:
        StartupError: It is no record of `python -m benchmarks compare`.
    """
    try:
        record = _Record.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        what = (
            f"{error.error_count()} keys are wrong" if isinstance(error, ValidationError) else error
        )
        raise StartupError(
            f"{file} is no record of 'python -m benchmarks compare' ({what}); take harness and "
            "gemma-serve from one version."
        ) from None
    pairs = record.metrics[0].pairs if record.metrics else []
    return Compared(
        verdict=record.verdict,
        message=record.message,
        ratios=[_ratio(metric) for metric in record.metrics],
        agreement=record.quality,
        attainment=_attainment(file.parent, [pair.a_directory for pair in pairs]),
        attainment_before=_attainment(file.parent, [pair.b_directory for pair in pairs]),
        started_at=record.started_at,
        host=record.host,
    )


def _ratio(metric: _Metric) -> Ratio:
    fields = metric.model_dump(exclude={"pairs"})
    return Ratio(**fields, num_pairs=len(metric.pairs))


def _attainment(root: Path, blocks: list[str | None]) -> float | None:
    """Good requests over counted ones in all blocks of a side; None where no SLO was given."""
    counts = [found for block in blocks if block for found in _goodput(root / block / "run.json")]
    counted = sum(number for _, number in counts)
    return sum(good for good, _ in counts) / counted if counted else None


def _goodput(file: Path) -> Iterator[tuple[int, int]]:
    if not file.exists():
        return
    goodput = json.loads(file.read_text(encoding="utf-8"))["metrics"]["full_run"].get("goodput")
    if isinstance(goodput, Mapping):
        yield goodput["num_good"], goodput["num_counted"]


def judge(found: Compared, required_attainment: float | None) -> tuple[bool, str]:
    """
    Whether a setting is kept, and why.

    It is where the harness calls it faster and the SLO is kept by the required part of the requests
    (or by more than before, while neither reaches it). With an SLO, more tokens/s are enough where
    the harness speaks of a trade: what latency may be paid for them is what the SLO says.

    Args:
        required_attainment: Part of the requests that has to keep the SLO; None without one.
    """
    if found.verdict == "invalid":
        return False, found.message
    if required_attainment is not None and not _keeps_slo(found, required_attainment):
        return False, f"the SLO is kept by {_percent(found.attainment)} of the requests"
    gains = found.throughput is not None and found.throughput.verdict == "faster"
    if found.verdict == "faster":
        return True, found.message
    if gains and required_attainment is not None and found.verdict != "slower":
        return True, f"more tokens/s within the SLO; {found.message}"
    return False, found.message


def _keeps_slo(found: Compared, required: float) -> bool:
    if found.attainment is None:
        return False
    return found.attainment >= min(required, found.attainment_before or 0.0)


def _percent(part: float | None) -> str:
    return "an unknown part" if part is None else f"{part:.0%}"
