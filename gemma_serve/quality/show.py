"""A comparison for people, and for machines."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gemma_serve.quality.compare import Comparison
from gemma_serve.quality.figures import perplexity
from gemma_serve.quality.record import Record

# Of what a record says of itself, what tells two models apart.
ABOUT = ("model", "revision", "profile", "dtype", "quantization", "kv_cache_dtype", "vllm_version")


@contextlib.contextmanager
def scoring_bar(num_windows: int) -> Iterator[Callable[[], None]]:
    """Call what is yielded once a window; shown where stderr is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("Scoring"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    shown = console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not shown) as bar:
        task = bar.add_task("", total=num_windows)
        yield lambda: bar.advance(task)


def record_json(record: Record) -> dict[str, Any]:
    """What was recorded, without the numbers of each token."""
    scores = record.scores
    return {
        **record.about,
        "texts": list(record.texts),
        "num_tokens": scores.num_scored,
        "num_top": scores.top_ids.shape[2],
        "perplexity": perplexity(scores.target_logprobs),
    }


def print_record(record: Record, path: Path) -> None:
    """One line."""
    made = record_json(record)
    print(
        f"Recorded {made['num_tokens']:,} tokens of {made['model']} (perplexity "
        f"{made['perplexity']:.4f}) in {path}."
    )


def comparison_json(comparison: Comparison, max_kl: float | None) -> dict[str, Any]:
    """All of it; null where a figure is no number (a candidate that gives NaN)."""
    return {
        "reference": dict(comparison.reference),
        "candidate": dict(comparison.candidate),
        "figures": _finite(comparison.figures),
        "max_kl": max_kl,
        "within": None if max_kl is None else not comparison.exceeds(max_kl),
    }


def _finite(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _finite(value)
        if isinstance(value, Mapping)
        else value
        if math.isfinite(value)
        else None
        for key, value in figures.items()
    }


def card_figures(comparison: Comparison) -> dict[str, str]:
    """The figures as a model card has them: each with what it is held against."""
    figures = comparison.figures
    return {
        "tokens": f"{figures['num_tokens']:,}, of gemma-serve's corpus in twelve languages",
        "perplexity": f"{figures['perplexity']:.3f} (source {figures['reference_perplexity']:.3f})",
        "KL divergence, mean": f"{figures['kl_mean_nats']:.4f} nats a token, a lower bound",
        "KL divergence, p99": f"{figures['kl_p99_nats']:.4f} nats",
        "top-1 agreement": f"{figures['top1_agreement']:.2%}",
        "greedy agreement": f"{figures['greedy_agreement_tokens']:.1f} "
        f"of {figures['greedy_tokens']} tokens, mean",
        "KV cache": str(comparison.candidate.get("kv_cache_dtype")),
        "measured with": f"vLLM {comparison.candidate.get('vllm_version')} on "
        f"{comparison.candidate.get('platform')}",
    }


def print_comparison(comparison: Comparison, max_kl: float | None) -> None:
    """Who was compared, the figures, the figures by text, and the verdict."""
    # A pipe has no width; a line is not cut for one.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(_about_table(comparison))
    console.print()
    console.print(_figures_table(comparison.figures))
    console.print()
    console.print(_by_text_table(comparison.figures))
    if max_kl is not None:
        verdict = "beyond" if comparison.exceeds(max_kl) else "within"
        console.print(
            f"\nMean KL divergence {comparison.kl:.5f} nats a token: {verdict} {max_kl:g}."
        )


def _about_table(comparison: Comparison) -> Table:
    table = Table("", "reference", "candidate", box=None, pad_edge=False)
    for key in ABOUT:
        pair = (comparison.reference.get(key), comparison.candidate.get(key))
        if pair != (None, None):
            table.add_row(key, *("-" if value is None else str(value) for value in pair))
    return table


def _figures_table(figures: Mapping[str, Any]) -> Table:
    before, after = figures["reference_perplexity"], figures["perplexity"]
    greedy, length = figures["greedy_agreement_tokens"], figures["greedy_tokens"]
    table = Table("figure", "value", "what it is", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    table.add_row("tokens", f"{figures['num_tokens']:,}", "scored, in all languages")
    table.add_row("perplexity", f"{after:.4f}", f"reference {before:.4f}, x {after / before:.4f}")
    table.add_row("KL mean", f"{figures['kl_mean_nats']:.5f}", "nats a token, a lower bound")
    table.add_row("KL p99", f"{figures['kl_p99_nats']:.5f}", "99 of 100 tokens differ less")
    table.add_row("KL max", f"{figures['kl_max_nats']:.5f}", "the token that differs most")
    table.add_row("top-1 agreement", f"{figures['top1_agreement']:.2%}", "same most likely token")
    table.add_row("greedy agreement", f"{greedy:.1f}", f"of {length} tokens until they part, mean")
    kept = f"of the reference's probability is in its {figures['num_top']} kept tokens"
    table.add_row("kept", f"{figures['kept_mass']:.2%}", kept)
    return table


def _by_text_table(figures: Mapping[str, Any]) -> Table:
    table = Table("text", "KL mean", "perplexity", "reference", "top-1", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for text, of_text in figures["by_text"].items():
        table.add_row(
            text,
            f"{of_text['kl_mean_nats']:.5f}",
            f"{of_text['perplexity']:.3f}",
            f"{of_text['reference_perplexity']:.3f}",
            f"{of_text['top1_agreement']:.2%}",
        )
    return table
