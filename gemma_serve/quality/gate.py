"""The check before a server is ready: a part of the corpus against the profile's reference."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gemma_serve import metrics
from gemma_serve.errors import QualityError, StartupError
from gemma_serve.quality.compare import reference_windows
from gemma_serve.quality.figures import kl_divergence
from gemma_serve.quality.record import Record, read_record
from gemma_serve.quality.score import score, windows_of

if TYPE_CHECKING:
    from gemma_serve.engine.vllm import Engine
    from gemma_serve.profile.schema import Quality

# Scored of each window, so that a thousand tokens are of eight texts.
SCORED_TOKENS = 128


@dataclass(frozen=True)
class Gate:
    """A profile's `quality` section with its reference read."""

    quality: Quality
    reference: Record

    def part(self) -> tuple[int, int]:
        """How many windows are scored, and how many tokens of each (BOS included)."""
        num_windows, window_tokens = self.reference.scores.token_ids.shape
        max_tokens = self.quality.max_tokens
        chosen = min(num_windows, max(max_tokens // SCORED_TOKENS, 1))
        return chosen, min(window_tokens, max_tokens // chosen + 1)


def read_gate(quality: Quality | None, folders: Iterable[Path]) -> Gate | None:
    """
    Read the reference; None where the profile asks for no check.

    Args:
        folders: Where a relative path is looked for, in this order.

    Raises:
        StartupError: there is no such record.
    """
    if quality is None:
        return None
    path = Path(quality.reference).expanduser()
    candidates = [folder / path for folder in folders]
    found = next((candidate for candidate in candidates if candidate.is_file()), path)
    try:
        return Gate(quality, read_record(found))
    except QualityError as error:
        raise StartupError(f"quality.reference: {error.message}") from None


async def check(engine: Engine, gate: Gate) -> str:
    """
    Score the short part on the engine and hold it to the bound.

    Returns:
        `verdict`'s line.

    Raises:
        StartupError: `verdict`'s, or the reference is of another corpus or tokenizer.
    """
    try:
        reference_windows(gate.reference, windows_of(engine))
    except QualityError as error:
        raise StartupError(f"quality.reference: {error.message}") from None
    reference = gate.reference.scores.first(*gate.part())
    num_top = reference.top_ids.shape[2]
    candidate = await score(engine, reference.token_ids, num_top=num_top, with_continuations=False)
    kl = float(kl_divergence(reference, candidate).mean())
    metrics.QUALITY_KL.labels(engine.served_model_names()[0]).set(kl)
    return verdict(gate, kl, reference.num_scored)


def verdict(gate: Gate, kl: float, num_tokens: int) -> str:
    """
    One line for the log: the divergence, and whether it is within the bound.

    Raises:
        StartupError: it is beyond the bound and the profile says `refuse`.
    """
    quality, of_model = gate.quality, gate.reference.about.get("model")
    measured = (
        f"mean KL divergence of {kl:.4f} nats a token from {of_model} over {num_tokens} tokens"
    )
    # What is no number is not within.
    if kl <= quality.max_kl:
        return f"Quality: {measured}, within quality.max_kl {quality.max_kl:g}."
    failed = f"The quality check found a {measured}, and quality.max_kl is {quality.max_kl:g}"
    if quality.action == "warn":
        return f"Warning: {failed}; serving all the same, as quality.action says."
    raise StartupError(
        f"{failed}; 'gemma-serve quality compare REFERENCE PROFILE' shows where they differ; mend "
        "the checkpoint or its precision, or raise quality.max_kl."
    )
