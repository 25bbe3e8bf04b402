"""A streamed answer without its outer white space, as the whole one would be stripped."""

from __future__ import annotations


class Stripper:
    """Holds white space back until something follows it; what never does is dropped."""

    def __init__(self) -> None:
        self._held: str | None = None  # None: nothing but white space so far

    def add(self, text: str) -> str:
        """What of the text so far can be given out now."""
        if self._held is None:
            text = text.lstrip()
            if not text:
                return ""
        text = (self._held or "") + text
        kept = text.rstrip()
        self._held = text[len(kept) :]
        return kept
