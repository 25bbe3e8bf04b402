"""Chromium, and the playground of the shared server in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.playground.browser import chromium, opened
from tests.servers import Server


# Not for the session: while it is driven, playwright's event loop counts as running, and no other
# test could run one of its own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium."""
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser, tiny_server: Server) -> Iterator[Page]:
    """The playground of the shared server, ready to be written in."""
    with opened(browser, tiny_server.base_url) as page:
        page.get_by_text("Ready", exact=True).wait_for()
        yield page
