"""
Generated conversations: the same ones for the same seed, on every version of Python.

`random.random` is the one method whose sequence Python promises to keep, so all choices use it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")
TEXTS = (
    *("", " ", "Hi", " padded \n", "two\n\nlines", "\tGrüße 你好 🙂 ", "\u00a0", "None"),
    *("<end_of_turn>\n", "<|turn>model\n", "<turn|>", '<|"|>', "<bos>", "{{ bos_token }}", "{% %}"),
    *(
        "<|channel>thought\nhm<channel|> so",
        "a<channel|>b<|channel>c",
        "'\"\\n",
        "{'a': 1}",
        "x" * 99,
    ),
)
NAMES = ("get_weather", "add", "Search", "b_2", "über")
KEYS = ("city", "Unit", "days", "description", "type", "required", "items", "zone", "A", "b")
WRONG_ROLES = ("system", "developer", "tool", "model", "")
WRONG_CONTENTS: tuple[Any, ...] = (None, 7, True, {}, [["text"]], ["bare"], [None])


@dataclass(frozen=True)
class Conversation:
    """What one rendering takes."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    variables: dict[str, Any]


def generated(template: str, seed: int) -> Conversation:
    """The conversation of a seed for a packaged template."""
    draw = _Draw(seed)
    if template.startswith("gemma4"):
        return Conversation(draw.free_messages(), draw.tools(), draw.variables())
    messages = draw.alternating_messages(has_parts=template.startswith("gemma3"))
    return Conversation(messages, None, draw.switches())


class _Draw:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed).random

    def chance(self, probability: float) -> bool:
        return self.random() < probability

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.random() * len(options))]

    def several(self, make: Callable[[], T], least: int, most: int) -> list[T]:
        return [make() for _ in range(least + int(self.random() * (most + 1 - least)))]

    def some(self, **makers: Callable[[], Any]) -> dict[str, Any]:
        """Each of the keys with its value, or not."""
        return {key: make() for key, make in makers.items() if self.chance(0.5)}

    def text(self) -> str:
        return "".join(self.several(lambda: self.pick(TEXTS), 1, 3))

    # Gemma 1 to 3n: turns that alternate, and now and then something that the template refuses.

    def switches(self) -> dict[str, Any]:
        return {"bos_token": "<bos>"} | self.some(add_generation_prompt=lambda: True)

    def alternating_messages(self, has_parts: bool) -> list[dict[str, Any]]:
        def content() -> Any:
            return self.parts() if has_parts and self.chance(0.4) else self.text()

        count = 1 + int(self.random() * 6)
        roles = [("user", "assistant")[index % 2] for index in range(count)]
        if self.chance(0.4 if has_parts else 0.1):
            roles.insert(0, "system")
        messages = [{"role": role, "content": content()} for role in roles]
        if self.chance(0.2):
            self.pick(messages)["role"] = self.pick(WRONG_ROLES)
        if self.chance(0.2):
            self.pick(messages)["content"] = self.pick(WRONG_CONTENTS)
        if self.chance(0.05):
            del self.pick(messages)["content"]
        return messages

    def parts(self) -> list[dict[str, Any]]:
        return self.several(self.part, 0, 4)

    def part(self) -> dict[str, Any]:
        if self.chance(0.6):
            return {"type": "text", "text": self.text()}
        kinds = ("image", "audio", "video", "image_url", "input_audio", "file")
        return {"type": self.pick(kinds), "url": "x"}

    # Gemma 4: any roles in any order, tools, thoughts.

    def variables(self) -> dict[str, Any]:
        return self.switches() | self.some(
            enable_thinking=lambda: self.chance(0.5), preserve_thinking=lambda: self.chance(0.5)
        )

    def free_messages(self) -> list[dict[str, Any]]:
        opening = [self.system()] if self.chance(0.5) else []
        episodes = self.several(lambda: self.pick(self.episodes)(), 1, 4)
        return opening + [message for episode in episodes for message in episode]

    @property
    def episodes(self) -> tuple[Callable[[], list[dict[str, Any]]], ...]:
        def exchange() -> list[dict[str, Any]]:
            return [self.message("user"), *self.several(self.answer, 0, 2)]

        def odd() -> list[dict[str, Any]]:
            role = self.pick(("user", "system", "developer", "assistant", "model", "tool"))
            return [self.message(role)]

        return exchange, exchange, self.calling, self.calling, self.calling, odd

    def system(self) -> dict[str, Any]:
        role = self.pick(("system", "developer"))
        parts = [{"type": "text", "text": self.text()} for _ in range(int(self.random() * 3))]
        return {"role": role, "content": parts if self.chance(0.3) else self.content()}

    def content(self) -> Any:
        if self.chance(0.2):
            return self.pick((None, "", []))
        return self.parts() if self.chance(0.3) else self.text()

    def message(self, role: str) -> dict[str, Any]:
        message: dict[str, Any] = {"role": role}
        return message if self.chance(0.05) else message | {"content": self.content()}

    def answer(self) -> dict[str, Any]:
        thoughts = self.some(reasoning=self.text, reasoning_content=self.text)
        return self.message("assistant") | (thoughts if self.chance(0.5) else {})

    def calling(self) -> list[dict[str, Any]]:
        """A question, calls, their results (some, all or none, in any order) and an answer."""
        calls = self.several(self.call, 1, 3)
        results = [self.result(call) for call in calls if self.chance(0.8)]
        asks = [self.message("user")] if self.chance(0.8) else []
        answers = self.several(self.answer, 0, 2)
        caller = self.answer() | {"tool_calls": calls}
        if self.chance(0.15):
            caller["tool_responses"] = self.several(self.own_response, 0, 2)
        if self.chance(0.3):
            results.reverse()
        return [*asks, caller, *results, *answers]

    def call(self) -> dict[str, Any]:
        arguments = self.several(self.argument, 0, 3)
        function = {"name": self.pick(NAMES), "arguments": dict(arguments)}
        if self.chance(0.05):
            function["arguments"] = self.pick((None, '{"city": "Rome"}', "", [], 3))
        return {"type": "function", "function": function} | self.some(id=lambda: self.pick("abc"))

    def argument(self) -> tuple[str, Any]:
        return self.pick(KEYS), self.value(2)

    def value(self, depth: int) -> Any:
        if depth and self.chance(0.4):
            if self.chance(0.5):
                return self.several(lambda: self.value(depth - 1), 0, 3)
            return dict(self.several(lambda: (self.pick(KEYS), self.value(depth - 1)), 0, 3))
        return self.pick((True, False, None, 0, -3, 2.5, 1e30, self.text(), self.text()))

    def result(self, call: dict[str, Any]) -> dict[str, Any]:
        known = {"tool_call_id": call.get("id", "none")} if self.chance(0.8) else {}
        named = self.some(name=lambda: self.pick((*NAMES, "", None)))
        return {"role": "tool", **known, **named, "content": self.content()}

    def own_response(self) -> dict[str, Any]:
        name = self.some(name=lambda: self.pick((*NAMES, "", None)))
        return name | {"response": self.value(2)}

    def tools(self) -> list[dict[str, Any]] | None:
        if self.chance(0.4):
            return None
        return self.several(self.tool, 0, 3)

    def tool(self) -> dict[str, Any]:
        function = {"name": self.pick(NAMES)} | self.some(
            description=self.text, parameters=lambda: self.schema(3), strict=lambda: True
        )
        if self.chance(0.2):
            function["response"] = self.some(description=self.text, type=lambda: "object")
        return {"type": "function", "function": function}

    def schema(self, depth: int) -> dict[str, Any]:
        """A JSON schema: an object at the top, and whatever people write below it."""
        flat = ("string", "string", "integer", "boolean", ["string", "null"])
        kind = self.pick(flat if self.chance(0.5) else ("array", "object"))
        kind = "object" if depth == 3 else kind
        schema: dict[str, Any] = {"type": kind} if self.chance(0.95) else {}
        schema |= self.some(description=self.text, nullable=lambda: self.chance(0.7))
        if kind == "object":
            schema |= {"properties": self.properties(depth)} if self.chance(0.8) else {}
            schema |= self.some(required=lambda: self.several(lambda: self.pick(KEYS), 0, 3))
            schema |= {"additionalProperties": False} if self.chance(0.1) else {}
        if kind == "array" and depth and self.chance(0.8):
            schema["items"] = self.schema(depth - 1)
        if kind in ("string", "integer"):
            schema |= self.some(enum=self.choices, default=lambda: self.value(1))
        return schema

    def choices(self) -> list[Any]:
        return self.several(lambda: self.pick((*NAMES, 1, None)), 0, 3)

    def properties(self, depth: int) -> dict[str, Any]:
        def keyed() -> tuple[str, Any]:
            return self.pick(KEYS), self.schema(depth - 1) if depth else {"type": "string"}

        return dict(self.several(keyed, 0, 3))
