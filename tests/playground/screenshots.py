"""
Draws docs/images/playground-*.png from a running server with the playground on:
`python -m tests.playground.screenshots http://127.0.0.1:8000 "What is a lighthouse?" 2`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import Browser, Page

from tests.playground.browser import NARROW, WIDE, chromium, opened
from tests.playground.writing import finish, set_up, write

IMAGES = Path(__file__).parents[2] / "docs" / "images"
BOUND_MS = 120_000


def draw(browser: Browser, url: str, question: str, seed: int, directory: Path = IMAGES) -> None:
    """The page with an answer and its prompt, by theme and width."""
    directory.mkdir(parents=True, exist_ok=True)
    for theme in ("light", "dark"):
        for viewport in (WIDE, NARROW):
            with opened(browser, url, viewport=viewport, color_scheme=theme) as page:
                page.set_default_timeout(BOUND_MS)
                page.get_by_text("Ready", exact=True).wait_for(state="attached")
                converse(page, question, seed, narrow=viewport is NARROW)
                page.screenshot(path=directory / f"playground-{theme}-{viewport['width']}.png")


def converse(page: Page, question: str, seed: int, *, narrow: bool) -> None:
    """One question; the settings are filled in and, on a narrow screen, closed again."""
    toggle = page.get_by_role("button", name="Settings")
    if narrow:
        toggle.click()
    set_up(page, temperature=0.6, seed=seed, max_tokens=90)
    if narrow:
        toggle.click()
    write(page, question)
    finish(page)
    page.get_by_role("button", name="Prompt").click()
    page.get_by_role("region", name="Rendered prompt").wait_for()
    page.get_by_label("Message").focus()


if __name__ == "__main__":
    address, question, seed = sys.argv[1:]
    with chromium() as browser:
        draw(browser, address, question, int(seed))
