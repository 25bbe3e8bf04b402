"""What one does in the playground, and what it sends."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import Locator, Page, Request, expect

QUESTION = "What is a haiku?"


def write(page: Page, text: str = QUESTION) -> None:
    """Write a message and press Enter."""
    page.get_by_label("Message").fill(text)
    page.get_by_label("Message").press("Enter")


def answer(page: Page, number: int = -1) -> Locator:
    """An answer; by default the last."""
    return page.get_by_role("article", name="Answer").nth(number)


def finish(page: Page) -> None:
    """Wait until nothing is being answered."""
    expect(answer(page)).to_have_attribute("aria-busy", "false")


def set_up(page: Page, **settings: object) -> None:
    """Fill in settings by their labels."""
    for name, value in settings.items():
        page.get_by_label(name.replace("_", " ").capitalize(), exact=True).fill(str(value))


def sent_bodies(page: Page) -> list[dict[str, Any]]:
    """A list that the bodies of the page's chats are put into as they are sent."""
    bodies: list[dict[str, Any]] = []

    def keep(request: Request) -> None:
        if request.url.endswith("/v1/chat/completions"):
            bodies.append(json.loads(request.post_data or ""))

    page.on("request", keep)
    return bodies


def said(body: dict[str, Any]) -> list[tuple[str, str]]:
    """Role and text of a request's messages, answers left out: they are noise."""
    return [
        (message["role"], "..." if message["role"] == "assistant" else message["content"])
        for message in body["messages"]
    ]
