"""
What a chat template does by itself, found by trying it.

Templates differ within a generation (community checkpoints, patched ones, packaged ones), so that
no table by model would be true. Each try is a tiny conversation of words that no template holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

Render: TypeAlias = Callable[[list[dict[str, Any]], list[dict[str, Any]] | None], str]


@dataclass(frozen=True)
class Abilities:
    """What a chat template takes and renders in full."""

    system: bool  # a leading system message
    later_system: bool  # a system message in mid-conversation, or several
    developer: bool  # role developer
    repeated_roles: bool  # two turns of one role in a row
    assistant_first: bool
    tools: bool  # declares tools, renders tool_calls and role tool
    text_parts: bool  # content as a list of text parts
    null_content: bool  # content None or none renders as nothing
    system_parts: bool = True  # all text parts of a system message, not only the first
    system_alone: bool = True  # a system message that nothing follows
    strips_thoughts: bool = False  # leaves thoughts out of the answers of earlier turns
    strings: bool = True  # content as a string


def abilities_of(render: Render) -> Abilities:
    """The abilities of the template behind `render`, which gives the prompt or raises."""
    shows = _Trial(render).shows
    silences = [[_user("ask"), silent, _user("more")] for silent in _SILENT]
    return Abilities(
        system=shows([_system("rule"), _user("ask")]),
        later_system=shows([_user("ask"), _model("answer"), _system("rule"), _user("more")])
        and shows([_system("rule"), _system("second"), _user("ask")]),
        developer=shows([_developer("rule"), _user("ask")]),
        repeated_roles=shows([_user("ask"), _user("more")])
        and shows([_user("ask"), _model("answer"), _model("second"), _user("more")]),
        assistant_first=shows([_model("answer"), _user("ask")]),
        tools=shows(_CALLED, ["zqask", "zqdo", "zqtool", "zqvalue", "zqresult"], tools=_TOOLS),
        text_parts=shows([_user(_PARTS)], _PART_WORDS),
        null_content=all(shows(turns, ["zqask", "zqmore"], never="None") for turns in silences),
        system_parts=shows([_system(_PARTS), _user("ask")], [*_PART_WORDS, "zqask"]),
        system_alone=shows([_system("rule")]),
        strips_thoughts=shows(_THOUGHTFUL, ["zqask", "zqmore"], never="thought"),
        strings=shows([_user("ask"), _model("answer"), _user("more")]),
    )


class _Trial:
    def __init__(self, render: Render) -> None:
        self.render = render

    def shows(
        self,
        messages: list[dict[str, Any]],
        words: list[str] | None = None,
        never: str = "{'type'",
        tools: list[dict[str, Any]] | None = None,
    ) -> bool:
        """Are the words (by default all contents) in the prompt, and `never` (from str()) not?"""
        try:
            text = self.render(messages, tools)
        except Exception:  # whatever a template or its renderer raises is a refusal
            return False
        wanted = words or [message["content"] for message in messages]
        return never not in text and all(word in text for word in wanted)


def _user(content: Any) -> dict[str, Any]:
    return _message("user", content)


def _model(content: Any) -> dict[str, Any]:
    return _message("assistant", content)


def _system(content: Any) -> dict[str, Any]:
    return _message("system", content)


def _developer(content: Any) -> dict[str, Any]:
    return _message("developer", content)


def _message(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": f"zq{content}" if isinstance(content, str) else content}


_PARTS = [{"type": "text", "text": "zqfirst"}, {"type": "text", "text": "zqlast"}]
_PART_WORDS = ["zqfirst", "zqlast"]
_THOUGHTFUL = [
    _user("ask"),
    {"role": "assistant", "content": "<|channel>thought\nzqidea<channel|>"},
    _user("more"),
]
_SILENT = ({"role": "assistant", "content": None}, {"role": "assistant"})
_FUNCTION = {"name": "zqtool", "arguments": {"key": "zqvalue"}}
_CALLED = [
    _user("ask"),
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "zqid", "type": "function", "function": _FUNCTION}],
    },
    {"role": "tool", "tool_call_id": "zqid", "name": "zqtool", "content": "zqresult"},
]
_PARAMETERS = {
    "type": "object",
    "properties": {"key": {"type": "string", "description": "zqkey"}},
    "required": ["key"],
}
_TOOLS = [
    {
        "type": "function",
        "function": {"name": "zqtool", "description": "zqdo", "parameters": _PARAMETERS},
    }
]
