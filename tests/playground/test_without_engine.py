"""The playground of a server that asks for a key, still loads, or goes away; no engine runs."""

from __future__ import annotations

import contextlib

from playwright.sync_api import Browser, expect

from tests.http_side import http_side
from tests.playground.browser import opened
from tests.playground.writing import answer, write


def test_keys(browser: Browser) -> None:
    """None and a wrong one: the server's sentence, and the field; the right one: what it loads."""
    with (
        http_side({"playground": True}, key="right") as side,
        opened(browser, side.url, refusals=[401, 503]) as page,
    ):
        expect(page.get_by_role("status")).to_have_text("API key needed")
        write(page)
        alert = answer(page).get_by_role("alert")
        expect(alert).to_contain_text("No API key was sent; send a configured one as")
        key = page.get_by_label("API key")
        expect(key).to_be_focused()

        key.fill("wrong")
        page.get_by_role("button", name="Retry").click()
        expect(alert).to_contain_text("The API key is not known;")

        key.fill("right")
        page.get_by_role("button", name="Retry").click()
        expect(alert).to_contain_text("The model is still loading; retry when /readyz answers 200.")
        expect(page.get_by_role("status")).to_have_text("The model is loading…")

        kept = page.evaluate(
            "[{...localStorage}, {...sessionStorage}, document.cookie, location.href]"
        )
        assert kept == [{}, {}, "", f"{side.url}/playground"]
        page.reload()
        expect(key).to_have_value("")


def test_a_server_that_goes_away(browser: Browser) -> None:
    """Without an answer, the page says so itself."""
    with contextlib.ExitStack() as running:
        url = running.enter_context(http_side({"playground": True})).url
        with opened(browser, url, refusals=[503], logged=["net::ERR_"]) as page:
            expect(page.get_by_role("status")).to_have_text("The model is loading…")
            running.close()
            write(page)
            expect(answer(page).get_by_role("alert")).to_have_text(
                "No answer from the server; is it still running?"
            )
