"""
The reference of all profile keys, as Markdown.

    python -m scripts.profile_reference

Writes the part of docs/profiles.md below the marker anew, from gemma_serve/profile/schema.py and
what that imports. The part above it is written by hand.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic.fields import FieldInfo

from gemma_serve.profile.json_schema import Schema, branches, describe, profile_schema
from gemma_serve.profile.schema import Profile
from gemma_serve.profile.section import Section

COMMAND = "python -m scripts.profile_reference"
PAGE = Path(__file__).parent.parent / "docs" / "profiles.md"
MARKER = f"<!-- From here on generated from gemma_serve/profile/schema.py; run: {COMMAND} -->\n"


def main() -> None:
    """Write the page anew."""
    PAGE.write_text(generated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def generated(page: str) -> str:
    """
    The page with its generated part made anew.

    Raises:
        ValueError: The page has no marker.
    """
    by_hand, marker, _ = page.partition(MARKER)
    if not marker:
        raise ValueError(f"{PAGE.name} has no line {MARKER.strip()!r}; put it back.")
    return by_hand + MARKER + reference()


def reference() -> str:
    """Every section, the top level first, each with a table of its keys."""
    sections = _sections(Profile, profile_schema())
    return "".join(
        f"\n## {name or 'Top level'}\n\n{_text(section)}\n\n{_table(name, section, schema)}"
        for name, section, schema in sections
    )


def _sections(
    section: type[Section], schema: Schema, name: str = ""
) -> Iterator[tuple[str, type[Section], Schema]]:
    yield name, section, schema
    for key, field in section.model_fields.items():
        if inner := _section_of(field):
            [below] = branches(schema["properties"][key])
            yield from _sections(inner, below, _place(name, key))


def _place(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _section_of(field: FieldInfo) -> type[Section] | None:
    """The section that a key opens; None where it holds a value."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if inspect.isclass(kind) and issubclass(kind, Section):
            return kind
    return None


def _text(section: type[Section]) -> str:
    return inspect.cleandoc(section.__doc__ or "")


def _table(name: str, section: type[Section], schema: Schema) -> str:
    rows = ["| key | type | default | what it does |", "|---|---|---|---|"]
    for key, field in section.model_fields.items():
        kind, text = describe(schema["properties"][key]), field.description or ""
        if inner := _section_of(field):
            kind = f"[section](#{_anchor(_place(name, key))})"
            text = text or _text(inner).partition("\n")[0]
        rows.append(_row(f"`{key}`", kind, _default(field), text))
    return "\n".join(rows) + "\n"


def _anchor(heading: str) -> str:
    """As GitHub makes it of a heading."""
    return heading.lower().replace(".", "")


def _row(*cells: str) -> str:
    escaped = [cell.replace("|", r"\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True, validated_data={})
    # A section's default is that of its keys; None is told in the description.
    return "" if value is None or isinstance(value, Section) else f"`{json.dumps(value)}`"


if __name__ == "__main__":
    main()
