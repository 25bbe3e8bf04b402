"""
Write what a published template renders: python -m tests.chat.make_golden gemma3n --stock FILE

Fills in the texts of the conversations in golden/NAME.json, and one digest per generated
conversation in golden/NAME.sha256. Both stay with us because not every published template is on a
package index.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from tests.chat.generated_conversations import generated
from tests.chat.stock import outcome

GOLDEN = Path(__file__).parent / "golden"
TEMPLATES = ("gemma1", "gemma2", "gemma3", "gemma3n", "gemma4", "gemma4_large")
SEEDS = range(600)


def read_golden(name: str) -> dict[str, Any]:
    """The source of a template, and conversations with the text that it gives."""
    golden: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))
    return golden


def rendered(template: str, case: dict[str, Any]) -> list[str]:
    """What a template makes of one conversation of a golden file."""
    variables = {"bos_token": "<bos>", **case.get("variables", {})}
    return list(outcome(template, case["messages"], case.get("tools"), **variables))


def digests(name: str, template: str) -> list[str]:
    """One short SHA-256 for the outcome of each generated conversation."""
    return [_digest(name, template, seed) for seed in SEEDS]


def _digest(name: str, template: str, seed: int) -> str:
    case = generated(name, seed)
    result = outcome(template, case.messages, case.tools, **case.variables)
    return hashlib.sha256(json.dumps(result).encode()).hexdigest()[:16]


def make_golden(name: str, template: str) -> None:
    """Write both files of a template."""
    golden = read_golden(name)
    golden["sha256"] = hashlib.sha256(template.encode()).hexdigest()
    for case in golden["conversations"]:
        case["outcome"] = rendered(template, case)
    text = json.dumps(golden, indent=1, ensure_ascii=False)
    (GOLDEN / f"{name}.json").write_text(f"{text}\n", "utf-8")
    (GOLDEN / f"{name}.sha256").write_text("\n".join(digests(name, template)) + "\n", "ascii")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=TEMPLATES)
    parser.add_argument("--stock", type=Path, required=True, help="the published template")
    arguments = parser.parse_args()
    make_golden(arguments.name, arguments.stock.read_text("utf-8"))
