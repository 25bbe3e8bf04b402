"""The playground of a server that asks for a key, loads, fails or goes away; no engine runs."""

from __future__ import annotations

import contextlib

import pytest
from playwright.sync_api import Browser, expect

from tests.http_side import http_side
from tests.playground.browser import opened
from tests.playground.images import picture
from tests.playground.scripted import DOWN, TEXT, Script, scripted
from tests.playground.writing import answer, finish, write


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


@pytest.mark.parametrize("ending", ["unfinished", "broken"])
def test_an_answer_that_breaks_off(browser: Browser, ending: str) -> None:
    """However the connection ends amid the answer, what came stays, and the page says so itself."""
    script = Script(ending=ending)
    with (
        http_side({}, app=scripted(script)) as side,
        opened(browser, side.url, logged=["net::ERR_"]) as page,
    ):
        write(page)
        expect(answer(page).locator(".text")).to_have_text(TEXT)
        script.may_end.set()
        expect(answer(page).get_by_role("alert")).to_have_text(
            "The answer broke off: the server closed the connection."
        )
        expect(answer(page).locator(".text")).to_have_text(TEXT)


def test_a_server_that_comes_back(browser: Browser) -> None:
    """A server that fails is asked again by itself, without a message or another key."""
    script = Script(is_down=True)
    with (
        http_side({}, app=scripted(script)) as side,
        opened(browser, side.url, refusals=[503]) as page,
    ):
        expect(page.get_by_role("status")).to_have_text(DOWN)
        script.is_down = False
        expect(page.get_by_role("status")).to_have_text("Ready")


def test_edit_keeps_what_is_in_the_box(browser: Browser) -> None:
    """A draft and its images stay, below the message and the images that Edit takes back."""
    script = Script()
    script.may_end.set()
    with http_side({}, app=scripted(script)) as side, opened(browser, side.url) as page:
        images = page.get_by_role("list", name="Attached images").get_by_role("img")
        expect(page.get_by_role("status")).to_have_text("Ready")
        page.locator("#files").set_input_files([picture("first.png", "red")])
        expect(images).to_have_count(1)
        write(page, "One.")
        finish(page)
        page.locator("#files").set_input_files([picture("second.png", "blue")])
        expect(images).to_have_count(1)
        page.get_by_label("Message").fill("A draft.")
        page.get_by_role("button", name="Edit").click()

        expect(page.get_by_label("Message")).to_have_value("One.\n\nA draft.")
        expect(images).to_have_count(2)
        names = images.evaluate_all("images => images.map((image) => image.alt)")
        assert names == ["first.png", "second.png"]
