"""The model card of a quantised checkpoint: what was made of what, how large it is, how good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma_serve import __version__
from gemma_serve.gemma import embedded
from gemma_serve.quantize.schemes import About

CARD = "README.md"
# What the embedded model was made of.
_EMBEDDED = "google/gemma-3-270m"
_QUALITY = "## Quality"
_NOT_MEASURED = (
    "Not measured. Hold this checkpoint against its source before you serve it to anyone."
)
# The wording that the Gemma Terms of Use ask for, and the notice of what was changed.
_TERMS = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at "
    "ai.google.dev/gemma/terms"
)


@dataclass(frozen=True)
class Made:
    """What a conversion has made."""

    scheme: str
    about: About
    source: str
    revision: str | None
    source_sha256: Mapping[str, str]  # shard -> hash
    source_bytes: int
    num_bytes: int
    kept: tuple[str, ...]  # modules that are as they were
    weights: Mapping[str, Mapping[str, Any]]  # quantised weight -> what its scheme says of it


def write_card(directory: Path, made: Made, figures: Mapping[str, str] | None = None) -> None:
    """Write README.md; `figures` are quality figures by name, such as {"perplexity": "12.3"}."""
    parts = [_front_matter(made), _title(made), _scheme(made), _source(made), _q4_0(made)]
    text = "\n\n".join(part for part in parts if part)
    (directory / CARD).write_text(f"{text}\n\n{_quality(figures)}", encoding="utf-8")


def is_of(directory: Path, scheme: str, source_sha256: Mapping[str, str]) -> bool:
    """Whether a directory is what this scheme made of these files, as its card says."""
    try:
        text = (directory / CARD).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    rows = [f"| {shard} | {sha256} |" for shard, sha256 in source_sha256.items()]
    marks = [f"## Scheme\n\n`{scheme}`: ", _QUALITY, *rows]
    return all(mark in text for mark in marks)


def write_quality(directory: Path, figures: Mapping[str, str]) -> None:
    """Put quality figures in a card that is there; what it said of quality before goes."""
    card = directory / CARD
    text = card.read_text(encoding="utf-8")
    card.write_text(text[: text.index(_QUALITY)] + _quality(figures), encoding="utf-8")


def _quality(figures: Mapping[str, str] | None) -> str:
    if not figures:
        return f"{_QUALITY}\n\n{_NOT_MEASURED}\n"
    return f"{_QUALITY}\n\n{_table(('figure', 'value'), figures.items())}\n"


def _front_matter(made: Made) -> str:
    repository = _EMBEDDED if made.source == embedded.MODEL_ID else made.source
    # Only a repository has a revision: models/gemma may be a path, and looks like one.
    is_known = made.revision is not None or repository == _EMBEDDED
    base = f"base_model: {repository}\n" if is_known else ""
    return f"---\nlicense: gemma\n{base}tags: [gemma, {made.scheme}]\n---"


def _title(made: Made) -> str:
    return (
        f"# {Path(made.source).name}, {made.scheme}\n\n"
        f"gemma-serve {__version__} changed these files: `gemma-serve quantize` made them of "
        f"{made.source}.\n{_TERMS}."
    )


def _scheme(made: Made) -> str:
    change = made.num_bytes / made.source_bytes
    return (
        f"## Scheme\n\n`{made.scheme}`: {made.about.summary}. "
        f"Runs on {made.about.runs_on}.\n\n"
        f"It changed {len(made.weights)} matrices of the text decoder; all else is as it was: "
        "embeddings, lm_head, norms, towers.\n\n"
        f"{made.source_bytes / 1e6:,.1f} MB became {made.num_bytes / 1e6:,.1f} MB "
        f"({change:.0%})."
    )


def _source(made: Made) -> str:
    revision = made.revision or "not from a repository; its files are known by their hashes"
    hashes = _table(("file", "SHA-256"), made.source_sha256.items())
    return f"## Source\n\n`{made.source}`, revision: {revision}.\n\n{hashes}"


def _q4_0(made: Made) -> str:
    """How exact Q4_0 is, tensor by tensor."""
    facts = {name: known for name, known in made.weights.items() if "blocks" in known}
    if not facts:
        return ""
    blocks, off_grid, changed = (
        sum(known[key] for known in facts.values())
        for key in ("blocks", "off_grid_blocks", "changed_blocks")
    )
    rows = [
        (name, f"{known['blocks']:,} | {known['off_grid_blocks']:,} | {known['changed_blocks']:,}")
        for name, known in facts.items()
    ]
    head = ("tensor", "blocks | not on a Q4_0 grid | not the same in bf16")
    return f"## Losslessness\n\n{exactness(blocks, off_grid, changed)}\n\n{_table(head, rows)}"


def exactness(blocks: int, off_grid: int, changed: int) -> str:
    """One sentence about how much of Q4_0's conversion is exact."""
    if not changed:
        return f"All {blocks:,} blocks of 32 weights come back bit for bit."
    return (
        f"Of {blocks:,} blocks of 32 weights, {blocks - changed:,} come back bit for bit; "
        f"{off_grid:,} ({off_grid / blocks:.2%}) are not on a Q4_0 grid and were rounded, "
        f"{changed - off_grid:,} are, but with a scale that bf16 rounds."
    )


def _table(head: tuple[str, str], rows: Any) -> str:
    rule = " | ".join("---" for _ in " | ".join(head).split(" | "))
    lines = [f"| {' | '.join(head)} |", f"| {rule} |"]
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows)])
