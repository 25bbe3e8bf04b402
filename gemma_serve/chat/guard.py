"""
The guard: what a user types stays text, and a prompt has one BOS.

A tokenizer turns `<end_of_turn>` into the control token wherever it stands. So each control token
in a conversation gets a mark after its first character before the template is rendered, and at the
marks the rendered text is tokenised apart: `<`, `end_of_turn>`. The template's own tokens carry no
marks. A text without control tokens gets none either, and is tokenised as it always was.

What it relies on: a template writes its control tokens whole, and never a `<` for the user to go
on from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, TypeVar

from gemma_serve.errors import RequestError
from gemma_serve.gemma.tokens import THOUGHT_TOKENS, ControlTokens

T = TypeVar("T")
Encode = Callable[[str], list[int]]

# Noncharacters, which Unicode keeps for a program's own use.
_MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
_SPACE = "\u2581"  # what Gemma's normaliser writes for a space
_ANSWERING = ("assistant", "model")


class Guard:
    """Keeps the control tokens of one tokenizer out of what users send."""

    def __init__(
        self,
        tokens: ControlTokens,
        vocab_size: int,
        *,
        spared: frozenset[str] = THOUGHT_TOKENS,
    ) -> None:
        """
        Take a tokenizer's control tokens.

        Args:
            tokens: Control tokens.
            vocab_size: Rows of the model's embedding. A tokenizer may know more tokens, and one
                such id ends the engine.
            spared: Left in the content of answers, because the template takes them out itself.
        """
        missing = {name for name, id_ in tokens.added.items() if id_ >= vocab_size}
        self._bos, self._bos_id, self._vocab_size = tokens.bos, tokens.bos_id, vocab_size
        self._media_ids = frozenset(tokens.media.values())
        self._media_names = tuple(tokens.media)
        self._control = Finder({*tokens.ids, *missing})
        not_raw = {*missing, *([tokens.bos] if tokens.bos else [])}
        self._not_raw = Finder({*not_raw, *tokens.media})
        self._not_raw_with_images = Finder(not_raw - tokens.media.keys())
        self._spared = re.compile(f"({'|'.join(map(re.escape, sorted(spared))) or '(?!)'})")
        self._separators = {
            name: id_ for name, id_ in tokens.ids.items() if name in ("<pad>", "<unk>")
        }

    # --- before the template

    def num_media(self, text: str, ids: Sequence[int]) -> int:
        """How many of the ids of a rendered text stand for an image, audio or video."""
        # Few prompts have one, and to look for their names takes a tenth of the time.
        if not any(name in text for name in self._media_names):
            return 0
        return sum(id_ in self._media_ids for id_ in ids)

    def protect(self, value: T, *, spares_thoughts: bool = True) -> tuple[T, str | None]:
        """
        Mark the control tokens in every string of messages and tools, keys included.

        Returns the value with marks, and the mark; the value itself and None where nothing needed
        one.

        Args:
            value: Messages and tools.
            spares_thoughts: Thoughts in the content of answers are left to the template, which
                takes them out.

        Raises:
            RequestError: every character that could be the mark is taken.
        """
        texts = list(_texts(value))
        if not any(self._control.may_start(text) for text in texts):
            return value, None
        mark = _unused_mark(texts)
        return self._marked(value, mark, in_message=not spares_thoughts), mark

    def protect_raw(self, text: str, *, has_images: bool = False) -> tuple[str, str | None]:
        """
        Mark what no raw text may hold: media, and BOS but at the start.

        Other control tokens stay: there the client writes the turns.

        Args:
            has_images: Images come with the text, which says where they stand; that there are as
                many places as images, `num_media` is asked later.

        Raises:
            RequestError: every character that could be the mark is taken.
        """
        start = self._bos_end(text)
        finder = self._not_raw_with_images if has_images else self._not_raw
        starts = [at for at in finder.starts(text) if at >= start]
        if not starts:
            return text, None
        mark = _unused_mark([text])
        return _insert(mark, text, starts), mark

    def _bos_end(self, text: str) -> int:
        """Where the text goes on after the BOS that it begins with."""
        end = 0
        while self._bos and text.startswith(self._bos, end):
            end += len(self._bos)
        return end

    def _marked(self, value: Any, mark: str, *, in_message: bool = False) -> Any:
        if isinstance(value, str):
            return self._marked_text(value, mark)
        if isinstance(value, dict):
            answer = not in_message and value.get("role") in _ANSWERING
            return {
                self._marked_text(key, mark) if isinstance(key, str) else key: (
                    self._marked_answer(item, mark)
                    if answer and key == "content"
                    else self._marked(item, mark, in_message=True)
                )
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return type(value)(self._marked(item, mark, in_message=in_message) for item in value)
        return value

    def _marked_text(self, text: str, mark: str) -> str:
        return _insert(mark, text, self._control.starts(text))

    def _marked_answer(self, content: Any, mark: str) -> Any:
        """Without the spared tokens two pieces may meet, so that each is marked for itself."""
        if isinstance(content, str):
            pieces = self._spared.split(content)
            pieces[::2] = [self._marked_text(piece, mark) for piece in pieces[::2]]
            return "".join(pieces)
        if isinstance(content, list):
            return [self._marked_part(part, mark) for part in content]
        return self._marked(content, mark, in_message=True)

    def _marked_part(self, part: Any, mark: str) -> Any:
        marked = self._marked(part, mark, in_message=True)
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            marked["text"] = self._marked_answer(part["text"], mark)
        return marked

    # --- after the template

    def encode(self, text: str, mark: str | None, encode: Encode) -> list[int]:
        """
        Token ids of a rendered text; at its marks it is tokenised apart.

        Args:
            text: The rendered text.
            mark: What `protect` returned.
            encode: The tokenizer, which must add no special tokens.

        Raises:
            RequestError: the text has a token that the model lacks.
        """
        pieces = self._pieces(text, mark) if mark else [text]
        ids = self._encode_apart(pieces, encode)
        if ids and max(ids) >= self._vocab_size:
            raise RequestError(
                f"The text becomes token id {max(ids)}, but the model knows ids 0 to "
                f"{self._vocab_size - 1} only; leave that text out."
            )
        return ids

    def one_bos(self, ids: list[int]) -> list[int]:
        """The ids with exactly one BOS before all others; Gemma writes nonsense without it."""
        if ids[:1] == [self._bos_id] != ids[1:2]:
            return ids
        return ids if self._bos_id is None else [self._bos_id, *ids[self._leading_bos(ids) :]]

    def bos_in_place(self, ids: list[int]) -> list[int]:
        """The ids of a prompt that was cut, with the BOS in place of the first where it is gone."""
        if self._bos_id is None or ids[0] == self._bos_id:
            return ids
        return [self._bos_id, *ids[1:]]

    def check_ids(self, ids: Sequence[int], param: str) -> None:
        """
        Refuse token ids that can't stand in a prompt.

        Raises:
            RequestError: an id that the model lacks or that stands for an image, or a BOS that is
                not at the start.
        """
        bos_end = self._leading_bos(ids)
        for position, id_ in enumerate(ids):
            if not 0 <= id_ < self._vocab_size:
                fault = f"the model knows ids 0 to {self._vocab_size - 1} only"
            elif id_ in self._media_ids:
                fault = "it stands for media, which token ids can't bring; use a chat request"
            elif id_ == self._bos_id and position >= bos_end:
                fault = "it is the BOS, which may only begin a prompt; remove it"
            else:
                continue
            raise RequestError(f"Token id {id_} at position {position}: {fault}.", param=param)

    def _leading_bos(self, ids: Sequence[int]) -> int:
        return next((at for at, id_ in enumerate(ids) if id_ != self._bos_id), len(ids))

    def _pieces(self, text: str, mark: str) -> list[str]:
        """
        The text cut where a control token would start at a mark.

        Not each mark is one: `<end_of_` at the end of a string gets a mark for what may follow.
        """
        parts = text.split(mark)
        plain = "".join(parts)
        ends = list(accumulate(map(len, parts)))[:-1]
        cuts = [end for end in ends if end and self._control.starts_at(plain, end - 1)]
        return [plain[start:end] for start, end in pairwise([0, *cuts, len(plain)])]

    def _encode_apart(self, pieces: list[str], encode: Encode) -> list[int]:
        """
        Token ids of the pieces, joined.

        Usually in one call, with a control token between them that none has: a tokenizer splits
        there first. A call a piece takes seconds for a prompt full of control tokens.
        """
        if len(pieces) > 1:
            for name, id_ in self._separators.items():
                ids = encode(name.join(pieces))
                if ids.count(id_) == len(pieces) - 1:
                    return [other for other in ids if other != id_]
        return [id_ for piece in pieces if piece for id_ in encode(piece)]


class Finder:
    """Finds where in a text one of many names starts."""

    def __init__(self, names: Iterable[str]) -> None:
        """Take the names, in each spelling that a tokenizer may take for one."""
        spellings = {
            spelling
            for name in names
            for spelling in (name, name.replace(" ", _SPACE), name.replace(_SPACE, " "))
        }
        self._firsts = {name[0] for name in spellings}
        self._pattern = re.compile(_starts_pattern(spellings))
        self._prefixes = {name[:end] for name in spellings for end in range(1, len(name))}
        self._longest = max(map(len, spellings), default=0)

    def starts(self, text: str) -> list[int]:
        """Where names start, those included that the text breaks off and another could go on."""
        if not any(first in text for first in self._firsts):
            return []
        return sorted(
            {*(match.start() for match in self._pattern.finditer(text)), *self._open(text)}
        )

    def may_start(self, text: str) -> bool:
        """Whether `starts` would find anything."""
        if not any(first in text for first in self._firsts):
            return False
        return self._pattern.search(text) is not None or next(self._open(text), None) is not None

    def starts_at(self, text: str, position: int) -> bool:
        """Whether a name starts there."""
        return self._pattern.match(text, position) is not None

    def _open(self, text: str) -> Iterator[int]:
        """Where the text ends within a name; a template may trim it before it goes on."""
        end = len(text.rstrip())
        tail = text[max(0, end - self._longest) : end]
        if not any(first in tail for first in self._firsts):
            return
        for position in range(max(0, end - self._longest), end):
            if text[position] in self._firsts and text[position:end] in self._prefixes:
                yield position


def _starts_pattern(names: Iterable[str]) -> str:
    """
    A regular expression for the first character of each name, where the rest follows.

    It is a tree of characters: Gemma has 6,242 tokens that begin with `<unused`, and trying one
    after the other would take milliseconds at each `<`.
    """
    tree: dict[str, Any] = {}
    for name in names:
        node = tree
        for character in name:
            node = node.setdefault(character, {})
        node[""] = {}
    if not tree:
        return "(?!)"
    return "|".join(f"{re.escape(first)}(?={_rest(node)})" for first, node in tree.items())


def _rest(tree: dict[str, Any]) -> str:
    if "" in tree:
        return ""  # the shortest name is enough
    branches = [re.escape(character) + _rest(node) for character, node in tree.items()]
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _unused_mark(texts: Sequence[str]) -> str:
    for mark in _MARKS:
        if not any(mark in text for text in texts):
            return mark
    raise RequestError(
        "The text holds every noncharacter from U+FDD0 to U+FDEF next to control tokens, which "
        "leaves nothing to mark those with; leave one of these characters out."
    )


def _insert(mark: str, text: str, starts: Sequence[int]) -> str:
    """The text with a mark after the character at each of these positions."""
    edges = [0, *(start + 1 for start in starts), len(text)]
    return mark.join(text[start:end] for start, end in pairwise(edges)) if starts else text
