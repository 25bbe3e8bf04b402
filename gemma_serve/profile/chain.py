"""The layers of a profile: the file that was asked for, all its bases, and the --set options."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import reduce
from pathlib import Path

from gemma_serve.errors import Mistake
from gemma_serve.profile.keys import names_secret
from gemma_serve.profile.source import PACKAGED_DIR, display, read_file, read_text
from gemma_serve.profile.tree import Node, Origin, merge

SMALLEST = "the smallest profile is one line: 'model: google/gemma-3-27b-it'"
LIST_THEM = "list them with: gemma-serve profiles"
_CLAIMS = frozenset({"tested_on", "evidence"})  # keys of `meta`
# What `gemma-serve quantize` puts beside the weights, so that the directory can be served by name.
IN_CHECKPOINT = "profile.yaml"
_OVERRIDE = re.compile(r"([^\s.=]+(?:\.[^\s.=]+)*)=(.*)", re.DOTALL)


def packaged_names() -> list[str]:
    """Names that `load_profile` knows without a path."""
    return sorted(path.stem for path in PACKAGED_DIR.glob("*.yaml"))


@dataclass
class Sources:
    """The layers of a profile, weakest first, and what is wrong with their text."""

    layers: list[Node] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    complete: bool = True  # every file of the chain was read

    def merged(self) -> Node:
        """What all layers say together."""
        return reduce(_stacked, self.layers or [Node({}, Origin("default"))])

    def read_chain(self, name_or_path: str) -> None:
        """The file, what it extends, what that extends: base first in `layers` and `files`."""
        asked, place, base_dir = name_or_path, Origin("default"), Path.cwd()
        while True:
            found = find_profile(asked, base_dir)
            if isinstance(found, Path) and found in self.files:
                found = self._circle(found)
            if isinstance(found, str):
                self._broken(place.mistake(found))
                return
            tree = self._read(found)
            base = tree.child("extends") if tree else None
            if base is None or not isinstance(base.value, str):
                return
            asked, place, base_dir = base.value, base.origin, found.parent

    def _read(self, path: Path) -> Node | None:
        tree, mistakes = read_file(path, "extends" if self.files else "file")
        self.files.insert(0, path)
        self.mistakes += mistakes
        if tree is None:
            self.complete = False
            return None
        start = Origin("file", display(path), 1)
        if tree.value is None:
            self._broken(start.mistake(f"The profile is empty; {SMALLEST}."))
            return None
        if not isinstance(tree.value, dict):
            kind = "a list" if isinstance(tree.value, list) else "a single value"
            self._broken(
                start.mistake(f"The profile must be a map of keys, not {kind}; {SMALLEST}.")
            )
            return None
        self.layers.insert(0, _without_claims(tree) if len(self.files) > 1 else tree)
        return tree

    def _circle(self, again: Path) -> str:
        chain = [*self.files[: self.files.index(again) + 1][::-1], again]
        return f"extends goes in a circle: {' -> '.join(display(path) for path in chain)}."

    def _broken(self, mistake: Mistake) -> None:
        self.mistakes.append(mistake)
        self.complete = False

    def read_override(self, text: str) -> None:
        """One `--set a.b=value`, as a layer of its own."""
        match = _OVERRIDE.fullmatch(text)
        if match is None:
            self._refuse(text, f"--set takes key=value, not {text!r}; for example --set dtype=fp8.")
            return
        keys = match[1].split(".")
        # A secret that was given by mistake is not printed.
        option = match[1] if names_secret(tuple(keys)) else text
        self.options.append(f"--set {option}")
        if keys == ["extends"]:
            self._refuse(option, "extends can't be set here; only a file extends another profile.")
            return
        tree, mistakes = read_text(match[2], "--set", option=option)
        self.mistakes += mistakes
        if tree is not None:
            self.layers.append(reduce(lambda n, key: Node({key: n}, n.origin), keys[::-1], tree))

    def _refuse(self, option: str, message: str) -> None:
        self.options.append(f"--set {option}")
        self.mistakes.append(Origin("--set", option=option).mistake(message))

    def in_order(self, mistakes: list[Mistake]) -> list[Mistake]:
        """Each mistake once: by file (base first) and line, then by --set option."""
        places = [None, *(display(path) for path in self.files), *self.options]
        unique = dict.fromkeys(mistakes)
        return sorted(unique, key=lambda m: (places.index(m.file), m.line or 0))


def _stacked(base: Node, over: Node) -> Node:
    """`over` on `base`, without the base's revision where `over` names another model."""
    named, before = over.child("model"), base.child("model")
    if named is not None and (before is None or named.value != before.value):
        kept = {key: child for key, child in base.children() if key != "revision"}
        base = Node(kept, base.origin)
    return merge(base, over)


def _without_claims(base: Node) -> Node:
    """A base without what was measured of it, which says nothing of what changes it."""
    meta = base.child("meta")
    if meta is None or not isinstance(meta.value, dict) or _CLAIMS.isdisjoint(meta.value):
        return base
    kept = {key: child for key, child in meta.value.items() if key not in _CLAIMS}
    return Node({**base.value, "meta": Node(kept, meta.origin)}, base.origin)


def find_profile(name_or_path: str, base_dir: Path) -> Path | str:
    """The file of a packaged name or a path; a sentence where there is none."""
    packaged = PACKAGED_DIR / f"{name_or_path}.yaml"
    looks_like_path = "/" in name_or_path or name_or_path.endswith((".yaml", ".yml"))
    try:
        if not looks_like_path and packaged.is_file():
            return packaged
        path = base_dir / Path(name_or_path).expanduser()
        if path.is_dir() and (path / IN_CHECKPOINT).is_file():
            return (path / IN_CHECKPOINT).resolve()
        if path.is_dir():
            return f"The profile {name_or_path!r} is a directory; name a YAML file in it."
        if path.exists():
            return path.resolve()
    except (OSError, ValueError, RuntimeError):
        pass  # too long, with a NUL, or in the home of an unknown user: it names no file
    return _no_such_file(name_or_path) if looks_like_path else _no_such_name(name_or_path)


def _no_such_file(path: str) -> str:
    close = get_close_matches(Path(path).stem, packaged_names(), n=1, cutoff=0.8)
    packaged = f"; the packaged profile {close[0]!r} has no path" if close else ""
    return (
        f"No profile file at {path!r}{packaged}; "
        f"name a YAML file or a packaged profile ({LIST_THEM})."
    )


def _no_such_name(name: str) -> str:
    close = get_close_matches(name, packaged_names(), n=1, cutoff=0.5)
    closest = f"the closest is {close[0]!r}; " if close else ""
    return f"No profile named {name!r}; {closest}{LIST_THEM}."
