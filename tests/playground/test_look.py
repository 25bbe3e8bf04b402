"""Who reads the playground: by keyboard, on a narrow screen, in either theme, by ear."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.playground.browser import NARROW, WIDE, opened
from tests.playground.writing import finish, set_up, write
from tests.servers import Server

AXE = "axe-core@4.14.1"  # Deque's rules of accessibility, from npm
FOCUSED = """() => {
  const element = document.activeElement;
  return element.getAttribute("aria-label") || element.labels?.[0]?.textContent
    || element.textContent.trim().replace(/\\s+/g, " ");
}"""


def test_the_order_of_the_keyboard(page: Page) -> None:
    """Tab goes from the head over the conversation to the box and the settings."""
    page.get_by_role("link", name="Skip to the message").focus()
    names = []
    for _ in range(17):
        names.append(page.evaluate(FOCUSED))
        page.keyboard.press("Tab")
    assert names == [
        *("Skip to the message", "New chat", "Settings", "Conversation"),
        *("Name three rivers of Europe.", "Write a haiku about the sea."),
        *("Reverse a string in Python.", "Message", "Send"),
        *("API key", "Model", "System prompt"),
        *("Temperature", "Top p", "Top k", "Seed", "Max tokens"),
    ]


def test_shift_enter_is_a_new_line(page: Page) -> None:
    """Shift+Enter writes on; Enter sends both lines."""
    set_up(page, max_tokens=3)
    page.get_by_label("Message").press_sequentially("One.")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("Two.")
    expect(page.get_by_role("article")).to_have_count(0)
    page.keyboard.press("Enter")
    finish(page)

    assert page.get_by_role("article", name="You").inner_text() == "One.\nTwo."


@pytest.mark.parametrize("width", [320, 390, 800, 1280])
def test_nothing_is_wider_than_the_screen(
    browser: Browser, tiny_server: Server, width: int
) -> None:
    """No sideways scrolling with a conversation, a long word, and the settings open."""
    viewport = {"width": width, "height": 700}
    with opened(browser, tiny_server.base_url, viewport=viewport) as page:
        if width < WIDE["width"]:
            page.get_by_role("button", name="Settings").click()
        set_up(page, max_tokens=20)
        fits = "document.documentElement.scrollWidth <= innerWidth"
        assert page.evaluate(fits)
        page.keyboard.press("Escape")
        write(page, "w" * 300)
        finish(page)
        page.get_by_role("button", name="Prompt").click()
        expect(page.get_by_role("region", name="Rendered prompt")).to_be_visible()
        assert page.evaluate(fits)


def test_settings_on_a_narrow_screen(browser: Browser, tiny_server: Server) -> None:
    """There they are closed at first, lie over the conversation, and Esc closes them."""
    with opened(browser, tiny_server.base_url, viewport=NARROW) as page:
        toggle = page.get_by_role("button", name="Settings")
        expect(toggle).to_have_attribute("aria-expanded", "false")
        expect(page.get_by_label("Temperature")).to_be_hidden()
        toggle.click()
        expect(page.get_by_label("Temperature")).to_be_visible()
        page.get_by_label("Message").focus()
        expect(page.get_by_label("Message")).not_to_be_focused()
        page.keyboard.press("Escape")
        expect(page.get_by_label("Temperature")).to_be_hidden()
        expect(toggle).to_be_focused()


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core."""
    npm = shutil.which("npm")
    assert npm, "the rules of accessibility come from npm"
    directory = tmp_path_factory.mktemp("axe")
    command = [npm, "pack", AXE, "--silent", "--pack-destination", str(directory)]
    subprocess.run(command, check=True, timeout=300, capture_output=True)
    (archive,) = directory.glob("*.tgz")
    with tarfile.open(archive) as tar:
        source = tar.extractfile("package/axe.min.js")
        assert source
        return source.read().decode()


def faults(page: Page, axe: str) -> list[str]:
    """What axe finds: contrast, names, roles, landmarks, order of headings."""
    page.evaluate(axe)
    found: dict[str, Any] = page.evaluate("axe.run({ resultTypes: ['violations', 'incomplete'] })")
    return [
        json.dumps([fault["id"], [node["html"] for node in fault["nodes"]]])
        for fault in found["violations"]
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe(browser: Browser, tiny_server: Server, axe: str, theme: str) -> None:
    """Nothing in the empty page, nor with an answer, its prompt and a refusal."""
    with opened(browser, tiny_server.base_url, refusals=[400], color_scheme=theme) as page:
        page.get_by_text("Ready", exact=True).wait_for()
        assert faults(page, axe) == []
        set_up(page, max_tokens=20)
        write(page)
        finish(page)
        page.get_by_role("button", name="Prompt").click()
        expect(page.get_by_role("region", name="Rendered prompt")).to_be_visible()
        set_up(page, temperature=-1)
        write(page)
        finish(page)
        assert faults(page, axe) == []


def test_axe_on_a_narrow_screen(browser: Browser, tiny_server: Server, axe: str) -> None:
    """Nothing there either, with the settings over the conversation."""
    with opened(browser, tiny_server.base_url, viewport=NARROW) as page:
        assert faults(page, axe) == []
        page.get_by_role("button", name="Settings").click()
        assert faults(page, axe) == []
