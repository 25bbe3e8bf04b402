"""
Draws docs/images/playground-*.png from a running server with the playground on:
`python -m tests.playground.screenshots http://127.0.0.1:8000`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import Browser, Page

from tests.playground.browser import NARROW, WIDE, chromium, opened
from tests.playground.writing import finish, set_up, write

IMAGES = Path(__file__).parents[2] / "docs" / "images"
BOUND_MS = 120_000
QUESTIONS = ["Name three rivers of Europe.", "Reverse a string in Python."]


def draw(browser: Browser, url: str) -> None:
    """The page with a conversation, by theme and width; and before one."""
    for theme in ("light", "dark"):
        for viewport in (WIDE, NARROW):
            with opened(browser, url, viewport=viewport, color_scheme=theme) as page:
                page.set_default_timeout(BOUND_MS)
                page.get_by_text("Ready", exact=True).wait_for(state="attached")
                converse(page, narrow=viewport is NARROW)
                name = f"playground-{theme}-{viewport['width']}.png"
                page.screenshot(path=IMAGES / name)


def converse(page: Page, *, narrow: bool) -> None:
    """Two questions; the settings are set and, on a narrow screen, closed again."""
    if narrow:
        page.get_by_role("button", name="Settings").click()
    set_up(page, system_prompt="Be brief.", temperature=0, max_tokens=80)
    if narrow:
        page.keyboard.press("Escape")
    for question in QUESTIONS:
        write(page, question)
        finish(page)


if __name__ == "__main__":
    IMAGES.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        draw(browser, sys.argv[1])
