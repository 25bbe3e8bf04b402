"""The playground in headless Chromium, and what went wrong in it meanwhile."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

WIDE = {"width": 1280, "height": 800}
NARROW = {"width": 390, "height": 844}
BOUND_MS = 20_000
LOUD = ("error", "warning")
expect.set_options(timeout=BOUND_MS)
# Runs before the page's own script: what its policy refused.
WATCH = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) =>
  violations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`));
"""


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, driven by playwright, which brings none of its own here."""
    found = shutil.which("chromium")
    assert found, "these tests open the playground in Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found,
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
        )
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(
    browser: Browser,
    url: str,
    *,
    refusals: Collection[int] = (),
    logged: Collection[str] = (),
    viewport: dict[str, int] = WIDE,
    **options: Any,
) -> Iterator[Page]:
    """
    The playground of a server, in a window of its own.

    At the end nothing may have been logged, refused by the page's policy, or asked of another host.

    Args:
        refusals: Statuses that the server may answer with; Chromium logs each.
        logged: Words of what else Chromium may log.
        options: Of playwright's new_context, such as color_scheme.
    """
    context = browser.new_context(viewport=viewport, reduced_motion="reduce", **options)
    context.set_default_timeout(BOUND_MS)
    page = context.new_page()
    page.add_init_script(WATCH)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(f"thrown: {error}"))
    page.on("console", lambda said: faults.append(said.text) if said.type in LOUD else None)

    def only_this_server(route: Route) -> None:
        if urlsplit(route.request.url).netloc != urlsplit(url).netloc:
            faults.append(f"asked for {route.request.url}")
        route.continue_()

    context.route("http*://**", only_this_server)
    page.goto(f"{url}/playground")
    try:
        yield page
        faults.extend(page.evaluate("violations"))
    finally:
        context.close()
    expected = [*logged, *(f"responded with a status of {status} " for status in refusals)]
    left = [fault for fault in faults if not any(words in fault for words in expected)]
    assert not left, left
