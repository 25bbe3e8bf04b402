"""
Conversations as people have them, from a seed: many languages, code, markup, white space, emoji.

Only what Gemma 3's published template takes by itself, so that it can say what the prompt is.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

SENTENCES = (
    "Could you explain why the tide comes in twice a day, and not once?",
    "I've tried turning it off and on again; it doesn't help (error code 0x80070057).",
    "On 3 May 2024, revenue rose by 12.5% to $1,234,567.89 — better than expected.",
    "Können Sie mir bitte den Unterschied zwischen „dasselbe“ und „das Gleiche“ erklären?",
    "Où est passée la clé ? Elle était là, sous l'évier, à côté du seau.",
    "¿Podrías resumir el capítulo 7 en tres frases? ¡Gracias!",
    "Perché l'acqua bolle prima in montagna? È una questione di pressione.",
    "Żółta łódź płynie powoli w górę rzeki.",
    "Çok teşekkür ederim, İzmir'de hava nasıl?",  # noqa: RUF001
    "Расскажи, пожалуйста, сказку про лису и журавля.",
    "Η θάλασσα είναι σήμερα ήρεμη και ο ουρανός καθαρός.",  # noqa: RUF001
    "吾輩は猫である。名前はまだ無い。",
    "请用简单的话解释一下什么是机器学习,谢谢!",
    "오늘 저녁에 무엇을 먹을까요? 김치찌개는 어때요?",
    "ما هي أفضل طريقة لتعلم اللغة العربية؟",
    "क्या आप मुझे दिल्ली का मौसम बता सकते हैं?",
    "ช่วยแปลประโยคนี้เป็นภาษาอังกฤษหน่อย",
    "Hôm nay trời đẹp quá, chúng ta đi dạo nhé?",
    "האם אפשר להזמין שולחן לשניים?",
    "🎉 Party at 8! Bring 🍕, 🥤 and the whole 👩‍👩‍👧‍👦 — flag: 🏳️‍🌈 🇦🇹",
    "ok",
    "No.",
    "lol ur right :-) <3",
    "See https://example.org/a/b?c=d&e=%20#f, or write to me@example.org.",
    "e\u0301 and é, ﬁ, \u00a0no-break, \u200bzero width, ½ × ²⁄₃ ≈ ∑ᵢ xᵢ",  # noqa: RUF001
)
BLOCKS = (
    "```python\ndef fibonacci(n: int) -> int:\n    if n < 2:\n        return n\n"
    "    return fibonacci(n - 1) + fibonacci(n - 2)\n```",
    "```go\nfunc main() {\n\tfor i := 0; i < 3; i++ {\n\t\tfmt.Println(i)\n\t}\n}\n```",
    "#include <vector>\nstd::vector<int> v{1, 2, 3};  // <int>\nif (a<b && c>d) return v[0] << 2;",
    "SELECT name, COUNT(*) AS n\nFROM orders\nWHERE total >= 9.99\nGROUP BY 1\nORDER BY n DESC;",
    "$ grep -rn 'TODO' src/ | sort | uniq -c\n      3 src/a.c:12: // TODO\r\n",
    '{"name": "Zoë", "tags": ["a", "b"], "nested": {"x": null, "y": [1, 2.5e-3, true]}}',
    "<!DOCTYPE html>\n<html>\n<body>\n  <h1>Title</h1>\n  <ul>\n\t<li>One &amp; <b>two</b></li>\n"
    "  </ul>\n  <table><tr><td>1</td><td></td></tr></table>\n</body>\n</html>",
    '<a href="#top">up</a><br/><strong>bold</strong> <img src="cat.png" alt="<3">',
    "# Heading\n\n1. one\n2. two\n   - nested\n\n> quoted\n\n| a | b |\n|---|---|\n| 1 | 2 |",
    "Dear Sir or Madam,\n\n\n\tI am writing to you about the lamp.   \n\nYours,\n  A. Reader",
    "a: 1\nb:\n  - x\n  -   y\n\n\n# end\n",
    r"\begin{equation} e^{i\pi} + 1 = 0 \end{equation} and $\sum_{k=1}^n k$",
    "Traceback (most recent call last):\n  File \"x.py\", line 3, in <module>\nKeyError: '<b>'",
)
SEPARATORS = (" ", " ", "\n", "\n\n", "  ", "\n\n\n", "\t", "\r\n")
EDGES = ("", "", "", " ", "\n", "\n\n", "\t", "   ")
SYSTEMS = (
    "You are a helpful assistant.",
    " Answer in one sentence.\n",
    "You are a pirate. Arrr! 🏴‍☠️\n\nRules:\n- no swearing\n- rhyme",
    "Du bist ein höflicher Kellner in Wien.",
    "<rules>\n  <rule>Be brief.</rule>\n</rules>",
    "",
)


def realistic_conversation(seed: int) -> list[dict[str, Any]]:
    """Two to six questions with the answers between them; every other seed has a system message."""
    draw = _Draw(seed)
    roles = ["user", *["assistant", "user"] * draw.between(1, 5)]
    messages = [{"role": role, "content": draw.content()} for role in roles]
    system = [{"role": "system", "content": draw.pick(SYSTEMS)}]
    return (system if seed % 2 else []) + messages


class _Draw:
    def __init__(self, seed: int) -> None:
        # The one method whose sequence Python promises to keep.
        self.random = Random(seed).random

    def between(self, least: int, most: int) -> int:
        return least + int(self.random() * (most + 1 - least))

    def pick(self, options: Sequence[str]) -> str:
        return options[self.between(0, len(options) - 1)]

    def content(self) -> str | list[dict[str, str]]:
        if self.random() < 0.15:
            return [{"type": "text", "text": self.text()} for _ in range(self.between(1, 3))]
        return self.text()

    def text(self) -> str:
        text = self.pick(EDGES)
        for _ in range(self.between(1, 4)):
            kind = BLOCKS if self.random() < 0.35 else SENTENCES
            text += self.pick(kind) + self.pick(SEPARATORS)
        return text
