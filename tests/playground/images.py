"""Images in the playground; for tests/test_vision.py, whose server takes them."""

from __future__ import annotations

import base64
import io

from PIL import Image
from playwright.sync_api import Browser, FilePayload, expect

from tests.playground.browser import opened
from tests.playground.writing import answer, finish, sent_bodies, set_up, write
from tests.servers import Server

GIVE = """(box, [event, base64]) => {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], `${event}.png`, { type: "image/png" }));
  const options = { bubbles: true, cancelable: true };
  box.dispatchEvent(event === "paste"
    ? new ClipboardEvent(event, { ...options, clipboardData: data })
    : new DragEvent(event, { ...options, dataTransfer: data }));
}"""


def picture(name: str, color: str) -> FilePayload:
    """A small PNG."""
    file = io.BytesIO()
    Image.new("RGB", (64, 48), color).save(file, "PNG")
    return {"name": name, "mimeType": "image/png", "buffer": file.getvalue()}


def check_images(browser: Browser, server: Server) -> None:
    """Three ways to give an image; each is shown, may be removed, and is sent."""
    with opened(browser, server.base_url, refusals=[400]) as page:
        expect(page.get_by_role("button", name="Add image")).to_be_visible()
        bodies = sent_bodies(page)
        set_up(page, max_tokens=5)
        attached = page.get_by_role("list", name="Attached images").get_by_role("img")

        # Chosen: two, one of which is taken away again.
        page.locator("#files").set_input_files(
            [picture("red.png", "red"), picture("b.png", "blue")]
        )
        expect(attached).to_have_count(2)
        page.get_by_role("button", name="Remove red.png").click()
        expect(attached).to_have_count(1)
        write(page, "What is this?")
        finish(page)
        expect(answer(page).locator(".text")).not_to_be_empty()
        expect(page.get_by_role("article", name="You").get_by_role("img")).to_have_count(1)
        [message] = bodies[0]["messages"]
        assert [part["type"] for part in message["content"]] == ["image_url", "text"]

        # Pasted and dropped.
        encoded = base64.b64encode(picture("x", "green")["buffer"]).decode()
        for event in ("paste", "drop"):
            page.get_by_label("Message").evaluate(GIVE, [event, encoded])
            expect(page.get_by_alt_text(f"{event}.png")).to_be_visible()
        write(page, "")
        finish(page)
        expect(answer(page).locator(".text")).not_to_be_empty()
        assert len(bodies[1]["messages"][-1]["content"]) == 2

        # Broken: the server's sentence.
        page.get_by_role("button", name="New chat").click()
        broken = picture("broken.png", "red") | {"buffer": b"no image"}
        page.locator("#files").set_input_files([broken])
        write(page, "And this?")
        finish(page)
        with server.client() as client:
            refused = client.post("/v1/chat/completions", json=bodies[2]).json()["error"]
        assert refused["code"] == "invalid_image"
        expect(answer(page).get_by_role("alert")).to_have_text(refused["message"])
