"""The page's own Markdown: few marks, as elements; all else stays the text it is."""

from __future__ import annotations

import re

from playwright.sync_api import Page

DRAW = """async (texts) => {
  const { drawMarkdown } = await import("/playground/playground.js");
  const box = document.createElement("div");
  for (const text of texts) drawMarkdown(box, text);
  box.querySelectorAll("button, [dir]").forEach((element) => element.removeAttribute("dir"));
  box.querySelectorAll("button").forEach((button) => button.remove());
  return [box.innerHTML, box.textContent];
}"""


def draw(page: Page, *texts: str) -> str:
    """The elements after drawing texts one after another into one place."""
    html: str = page.evaluate(DRAW, list(texts))[0]
    return html.replace("\n", "⏎")


def code(text: str, language: str = "text") -> str:
    """A block of code as it is drawn."""
    return (
        f'<div class="code"><div><span>{language}</span></div>'
        f'<pre tabindex="0"><code>{text}</code></pre></div>'
    )


CASES = {
    "": "",
    "One\ntwo": "<p>One⏎two</p>",
    "One\n\n\ntwo": "<p>One</p><p>two</p>",
    "a **b** c *d* `e*f*`": "<p>a <strong>b</strong> c <em>d</em> <code>e*f*</code></p>",
    "**a *b* c**": "<p><strong>a <em>b</em> c</strong></p>",
    "2 * 3 * 4, snake_case_name, ** a **": "<p>2 * 3 * 4, snake_case_name, ** a **</p>",
    "**open": "<p>**open</p>",
    "## Title **x**\ntext": "<h3>Title <strong>x</strong></h3><p>text</p>",
    "#hashtag": "<p>#hashtag</p>",
    "a\n\n---\n\nb": "<p>a</p><hr><p>b</p>",
    "> a\n> b": "<blockquote>a⏎b</blockquote>",
    "- a\n- b\n  more": "<ul><li>a</li><li>b⏎more</li></ul>",
    "- a\n\n- b\n\nend": "<ul><li>a</li><li>b</li></ul><p>end</p>",
    "3. a\n4. b": '<ol start="3"><li>a</li><li>b</li></ol>',
    "- a\n    - b\n    - c\n- d": "<ul><li>a<ul><li>b</li><li>c</li></ul></li><li>d</li></ul>",
    "Intro:\n* a\n* b": "<p>Intro:</p><ul><li>a</li><li>b</li></ul>",
    "```python\nx = 1\n\n# no title\n```\nend": code("x = 1⏎⏎# no title", "python") + "<p>end</p>",
    "```\nopen": code("open"),
    "~~~\n```\n~~~": code("```"),
    "```one `line` of text```": "<p><code>one `line` of text</code></p>",
    "| a | b |\n|---|---|": code("| a | b |⏎|---|---|", "table"),
    "[a](javascript:alert(1)) <b>x</b>": ("<p>[a](javascript:alert(1)) &lt;b&gt;x&lt;/b&gt;</p>"),
    "```<script>\n</script>\n```": code("&lt;/script&gt;", "&lt;script&gt;"),
}


def test_cases(page: Page) -> None:
    """Each text becomes these elements and no others."""
    assert {text: draw(page, text) for text in CASES} == CASES


def test_grown_letter_by_letter(page: Page) -> None:
    """Drawn as it streams, a text ends in the elements that it has when drawn at once."""
    text = "\n\n".join(CASES)
    steps = [text[:end] for end in range(0, len(text), 3)]

    assert draw(page, *steps, text) == draw(page, text)


def test_blocks_that_are_done_stay(page: Page) -> None:
    """A selection in an earlier paragraph outlives the letters that come after it."""
    kept = page.evaluate(
        """async () => {
          const { drawMarkdown } = await import("/playground/playground.js");
          const box = document.createElement("div");
          drawMarkdown(box, "One\\n\\nTw");
          const [first, second] = box.children;
          drawMarkdown(box, "One\\n\\nTwo");
          return [box.children[0] === first, box.children[1] === second];
        }"""
    )
    assert kept == [True, False]


def test_no_text_takes_long(page: Page) -> None:
    """Marks that never close end, and no letter between them is lost."""
    for mark in ("x **", "x *a", "x `", "> ", "**a *", "- ", "``a`"):
        text = mark * 10_000
        shown = page.evaluate(DRAW, [text])[1]
        assert re.sub(r"[^xa]", "", shown) == re.sub(r"[^xa]", "", text), mark
