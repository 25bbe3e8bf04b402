"""What became of each setting, and the profile that grows of those that were kept."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal

from gemma_serve.errors import ProfileError
from gemma_serve.profile.check import EngineFields, check
from gemma_serve.profile.tree import KeyPath, Node, Origin, dotted

Outcome = Literal["kept", "renamed", "changed", "dropped"]
MAX_SHOWN_CHARS = 60
HIDDEN = "(hidden)"
_SECRET_NAME = re.compile(
    r"(?:^|[_.])(?:token|secret|password|passwd|api_?key|access_?key|credentials?)$", re.IGNORECASE
)
_SECRET_VALUE = re.compile(r"^(?:hf_|sk-|nvapi-)[\w-]{16,}$")


@dataclass(frozen=True)
class Finding:
    """One setting of the repository: where it stands, what became of it, as what, and why."""

    file: str  # within the model directory
    setting: str
    value: str
    outcome: Outcome
    target: str | None  # "dtype: bf16"
    reason: str


@dataclass(frozen=True)
class Setting:
    """A setting as it stands in a file of the repository."""

    file: str
    name: str
    value: Any

    @property
    def shown(self) -> str:
        """The value, short, and not at all if it could be a secret."""
        return shown(self.name, self.value)


def shown(name: str, value: Any) -> str:
    """
    A value as it is shown: short, on one line, and hidden where it could be a secret.

    A tuple is a list of names, and shown whole.
    """
    is_secret = isinstance(value, str) and _SECRET_VALUE.match(value)
    if _SECRET_NAME.search(name) or is_secret:
        return HIDDEN
    if isinstance(value, Mapping):
        return f"a map of {len(value)}"
    if isinstance(value, tuple):
        return ", ".join(shown(name, each) for each in value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}..."


@dataclass
class Draft:
    """The profile so far, and the findings."""

    engine_fields: EngineFields | None = None
    values: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    comments: dict[KeyPath, str] = field(default_factory=dict)

    def put(
        self, setting: Setting, path: KeyPath, value: Any, reason: str, outcome: Outcome
    ) -> str | None:
        """
        Write a value into the profile, if it may stand there, and say so.

        Returns:
            Why it may not; nothing is written then.
        """
        # With what its section has already: a key may need another one there.
        section = {key: deepcopy(said) for key, said in self.values.items() if key == path[0]}
        _write(section, path, value)
        if mistake := mistake_in(path, section, self.engine_fields):
            return mistake
        self.values |= section
        target = f"{dotted(path)}: {shown(str(path[-1]), value)}"
        if outcome == "changed":
            self.comment(path, f"{setting.file} had {setting.name} {setting.shown}: {reason}")
        self._add(setting, outcome, target, reason)
        return None

    def must_put(
        self, setting: Setting, path: KeyPath, value: Any, reason: str, outcome: Outcome
    ) -> None:
        """
        As `put`, for what no profile can do without.

        Raises:
            ProfileError: the value may not stand there.
        """
        if mistake := self.put(setting, path, value, reason, outcome):
            raise ProfileError(f"{setting.file}: {setting.name} can't be taken over: {mistake}")

    def keep(self, setting: Setting, reason: str) -> None:
        """It holds here too, without a key of its own."""
        self._add(setting, "kept", None, reason)

    def change(self, setting: Setting, reason: str) -> None:
        """It is another thing here, without a key of its own."""
        self._add(setting, "changed", None, reason)

    def drop(self, setting: Setting, reason: str) -> None:
        """It is not in the profile."""
        self._add(setting, "dropped", None, reason)

    def comment(self, path: KeyPath, text: str) -> None:
        """What the profile says above a key."""
        self.comments[path] = text

    def says(self, file: str, name: str) -> bool:
        """Whether there is a finding of a setting."""
        return any((each.file, each.setting) == (file, name) for each in self.findings)

    def _add(self, setting: Setting, outcome: Outcome, target: str | None, reason: str) -> None:
        self.findings.append(
            Finding(setting.file, setting.name, setting.shown, outcome, target, reason)
        )


def mistake_in(
    path: KeyPath, values: Mapping[str, Any], engine_fields: EngineFields | None
) -> str | None:
    """What is wrong with a part of a profile to which `path` was added, in its reader's words."""
    if not _is_text(values):
        return f"{dotted(path)} has a character that no file can hold."
    found = next(check(_node(values), engine_fields), None)
    return found.message if found else None


def _node(value: Any) -> Node:
    origin = Origin("default")
    if isinstance(value, Mapping):
        return Node({str(key): _node(child) for key, child in value.items()}, origin)
    if isinstance(value, list | tuple):
        return Node([_node(child) for child in value], origin)
    return Node(value, origin, str(value), quoted=isinstance(value, str))


def _is_text(value: Any) -> bool:
    """Whether all strings in it are text that YAML can hold: no lone surrogates, no NUL."""
    if isinstance(value, Mapping):
        return all(_is_text(key) and _is_text(child) for key, child in value.items())
    if isinstance(value, list | tuple):
        return all(_is_text(child) for child in value)
    if not isinstance(value, str):
        return True
    return "\0" not in value and not any("\ud800" <= char <= "\udfff" for char in value)


def _write(values: dict[str, Any], path: KeyPath, value: Any) -> None:
    *sections, last = map(str, path)
    for section in sections:
        values = values.setdefault(section, {})
    values[last] = value
