"""YAML text and files become a tree; what is wrong with the text itself becomes mistakes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from gemma_serve.errors import Mistake
from gemma_serve.profile.tree import Node, Origin

PACKAGED_DIR = Path(__file__).resolve().parent.parent / "profiles"
MAX_FILE_BYTES = 256 * 1024
MAX_DEPTH = 40
# Aliases make a small file large ("billion laughs"); a real profile has fewer than 100 values.
MAX_VALUES = 10_000

SourceKind = Literal["extends", "file", "--set"]
_STANDARD = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """
    YAML 1.2's numbers, YAML 1.1's booleans, and no dates.

    In YAML 1.1 `010` is 8, `22:22` is 1342 and `2026-03-01` an object; nobody means that. `on`,
    `off`, `yes` and `no` stay booleans: people write them.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


_COLLECTIONS = (f"{_STANDARD}map", f"{_STANDARD}seq")
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_SCALARS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"(?i:true|yes|on|false|no|off)",
    "int": r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+",
    # A point or an exponent makes it a float: 010 is neither, and stays text.
    "float": r"[-+]?(?=.*[.eE])(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?i:inf)|\.(?i:nan)",
}
for _kind, _pattern in _SCALARS.items():
    _Loader.add_implicit_resolver(f"{_STANDARD}{_kind}", re.compile(rf"(?:{_pattern})\Z"), None)


def _construct(tag: str, text: str) -> Any:
    kind = tag.removeprefix(_STANDARD)
    if kind == "str":
        return text
    if kind == "null":
        return None
    if kind == "bool":
        return _BOOLEANS[text.lower()]
    if kind == "int":
        return int(text.replace("_", ""), 0)
    if kind == "float":
        return float(re.sub(r"\.(inf|nan)$", r"\1", text.lower().replace("_", "")))
    raise KeyError(tag)


@dataclass
class _Reader:
    """Turns PyYAML's nodes into ours and keeps what is wrong with them."""

    kind: SourceKind
    file: str | None
    option: str | None
    mistakes: list[Mistake] = field(default_factory=list)
    num_values: int = 0

    def origin(self, node: yaml.Node) -> Origin:
        line = None if self.option else node.start_mark.line + 1
        return Origin(self.kind, self.file, line, self.option)

    def wrong(self, node: yaml.Node, message: str) -> None:
        self.mistakes.append(self.origin(node).mistake(message))

    def read(self, node: yaml.Node, origin: Origin, depth: int = 0) -> Node:
        self.num_values += 1
        # An alias inside its own anchor ends here too.
        if depth > MAX_DEPTH or self.num_values > MAX_VALUES:
            raise _TooLargeError
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _COLLECTIONS:
            self.wrong(node, f"The YAML tag {node.tag!r} is not read here; remove it.")
        if isinstance(node, yaml.MappingNode):
            return Node(self._map(node, depth), origin)
        if isinstance(node, yaml.SequenceNode):
            return Node([self.read(n, self.origin(n), depth + 1) for n in node.value], origin)
        assert isinstance(node, yaml.ScalarNode)  # PyYAML has these three kinds of nodes
        return self._scalar(node, origin)

    def _map(self, node: yaml.MappingNode, depth: int) -> dict[str, Node]:
        children: dict[str, Node] = {}
        first_lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            value = self.read(value_node, self.origin(key_node), depth + 1)
            key = self._key(key_node)
            if key is None:
                continue
            if key in children:
                again = f" (first on line {first_lines[key]})" if not self.option else ""
                self.wrong(key_node, f"The key {key!r} is given twice{again}; keep one.")
                continue
            children[key] = value
            first_lines[key] = key_node.start_mark.line + 1
        return children

    def _key(self, node: yaml.Node) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self.wrong(node, "A key must be a word, not a list or a map.")
        elif node.value == "<<" and not node.style:
            self.wrong(node, "YAML's merge key '<<' is not read here; use extends to share keys.")
        elif node.tag == f"{_STANDARD}str":
            return str(self._scalar(node, self.origin(node)).value)
        else:
            self.wrong(
                node,
                f"A key must be a word, and YAML reads {node.value!r} as {_kind_of(node)}; "
                f'if you mean that word, put it in quotes: "{node.value}".',
            )
        return None

    def _scalar(self, node: yaml.ScalarNode, origin: Origin) -> Node:
        try:
            value = _construct(node.tag, node.value)
            _check_text(node.value)
        except (KeyError, ValueError):
            self.wrong(
                node,
                f"{_short(node.value)} can't be read as {_kind_of(node)}; "
                "write plain text, a number, true, false or null.",
            )
            value = None
        return Node(value, origin, node.value, quoted=bool(node.style))


def _check_text(text: str) -> None:
    text.encode()  # a lone surrogate, which YAML can escape, is no text: UnicodeEncodeError
    if "\0" in text:  # no path, name or environment variable can hold it
        raise ValueError(text)


class _TooLargeError(Exception):
    """The tree is deeper or larger than any profile."""


def _kind_of(node: yaml.Node) -> str:
    kinds = {
        "bool": "true or false",
        "int": "a number",
        "float": "a number",
        "null": "null",
        "str": "text",
    }
    return kinds.get(node.tag.removeprefix(_STANDARD), f"the YAML tag {node.tag!r}")


def _short(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 60 else f"{shown[:56]}...'"


def read_text(
    text: str,
    kind: SourceKind,
    *,
    file: str | None = None,
    option: str | None = None,
) -> tuple[Node | None, list[Mistake]]:
    """The tree of a YAML text (None where there is none) and all that is wrong with the text."""
    reader = _Reader(kind, file, option)
    start = Origin(kind, file, None if option else 1, option)
    try:
        top = yaml.compose(text, Loader=_Loader)
        if top is None:
            return Node(None, start), []
        tree = reader.read(top, reader.origin(top))
    except (RecursionError, _TooLargeError):
        message = (
            f"The YAML is nested deeper than {MAX_DEPTH} levels, or its aliases expand to more "
            f"than {MAX_VALUES} values; write it out flat."
        )
        return None, [*reader.mistakes, start.mistake(message)]
    except yaml.YAMLError as error:
        message, line = _syntax(error, text)
        return None, [Origin(kind, file, None if option else line, option).mistake(message)]
    return tree, reader.mistakes


def _syntax(error: yaml.YAMLError, text: str) -> tuple[str, int]:
    """A sentence and a line for what PyYAML can't read."""
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return f"The character {chr(error.character)!r} is not allowed in YAML; remove it.", line
    mark = getattr(error, "problem_mark", None)
    line = mark.line + 1 if mark else 1
    problem = getattr(error, "problem", None) or "the syntax is broken"
    lines = text.splitlines()
    written = lines[line - 1] if line <= len(lines) else ""
    if "\t" in written[: len(written) - len(written.lstrip())] or "'\\t'" in problem:
        return "A tab stands where YAML allows only spaces; replace it with spaces.", line
    if problem == "but found another document":
        return "The file holds more than one YAML document; keep one ('---' starts another).", line
    return f"This is not valid YAML ({problem}); mend this line or the one above it.", line


def read_file(path: Path, kind: Literal["extends", "file"]) -> tuple[Node | None, list[Mistake]]:
    """The tree of a YAML file and all that is wrong with it."""
    shown = display(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else str(error)
        return None, [Mistake(f"The profile can't be read: {cause}.", shown)]
    if len(data) > MAX_FILE_BYTES:
        return None, [Mistake("The profile is larger than 256 KiB; is it the right file?", shown)]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"The byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8."
        return None, [Mistake(message, shown, line)]
    return read_text(text, kind, file=shown)


def display(path: Path) -> str:
    """A path as people would write it from where they stand; a packaged profile by its name."""
    if path.parent == PACKAGED_DIR:
        return path.name
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)
