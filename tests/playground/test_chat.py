"""The playground as one writes in it: a real browser, the real server, the tiny model's noise."""

from __future__ import annotations

import re
import time

from playwright.sync_api import Browser, Page, expect

from tests.playground.browser import opened
from tests.playground.writing import answer, finish, said, sent_bodies, set_up, write
from tests.servers import Server

FIGURES = re.compile(r"^[\d,]+ ms to first token[\d,.]+ tokens/s[\d,]+ tokens")


# --- ask and be answered


def test_the_answer_is_the_api_s(page: Page, tiny_server: Server) -> None:
    """What is shown, and said to a screen reader, is what the API answers; with its figures."""
    set_up(page, temperature=0, max_tokens=40)
    bodies = sent_bodies(page)
    write(page)
    finish(page)

    [body] = bodies
    whole = body | {"stream": False, "stream_options": None}
    with tiny_server.client() as client:
        expected = client.post("/v1/chat/completions", json=whole).json()
    text = expected["choices"][0]["message"]["content"]
    # Markdown takes marks and ends of lines away; of letters it takes none.
    letters = re.sub(r"\W+", "", text)
    assert re.sub(r"\W+", "", answer(page).locator(".text").inner_text()) == letters
    assert page.locator("#announcer").text_content() == text
    figures = answer(page).locator(".figures").inner_text().replace("\n", "")
    assert FIGURES.match(figures), figures
    assert f"{expected['usage']['completion_tokens']} tokens" in figures
    assert "cut at max tokens" in figures


def test_it_streams(page: Page) -> None:
    """The text grows while the answer is being written, and Send is Stop meanwhile."""
    set_up(page, max_tokens=3000)
    write(page)
    lengths = []
    for _ in range(2):
        before = lengths[-1] if lengths else 0
        page.wait_for_function(
            "before => document.querySelector('.answer .text').textContent.length > before",
            arg=before,
        )
        lengths.append(len(answer(page).locator(".text").text_content() or ""))
        expect(answer(page)).to_have_attribute("aria-busy", "true")
    assert lengths[0] < lengths[1]
    expect(page.get_by_role("button", name="Send")).to_be_hidden()
    page.get_by_role("button", name="Stop").click()
    finish(page)
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def test_escape_stops_the_engine_too(page: Page, tiny_server: Server) -> None:
    """Esc keeps what was written, says that it was stopped, and ends the request in the engine."""
    set_up(page, max_tokens=3000)
    write(page)
    expect(answer(page).locator(".text")).not_to_be_empty()
    page.keyboard.press("Escape")
    finish(page)

    expect(answer(page).locator(".figures")).to_contain_text("stopped")
    expect(answer(page).get_by_role("alert")).to_be_hidden()
    expect(page.get_by_label("Message")).to_be_focused()
    with tiny_server.client() as client:
        deadline_s = time.monotonic() + 20
        while "vllm:num_requests_running" in (text := client.get("/metrics").text):
            if re.search(r"^vllm:num_requests_running\{.*\} 0\.0$", text, re.MULTILINE):
                break
            assert time.monotonic() < deadline_s, "the engine still works on it"


def test_turns_are_remembered(page: Page) -> None:
    """Each message is sent with the answered ones before it; New chat forgets them."""
    bodies = sent_bodies(page)
    set_up(page, system_prompt="Be brief.", max_tokens=5)
    for text in ("One.", "Two."):
        write(page, text)
        finish(page)
    page.get_by_role("button", name="New chat").click()
    expect(page.get_by_role("article")).to_have_count(0)
    write(page, "Three.")
    finish(page)

    assert [said(body) for body in bodies] == [
        [("system", "Be brief."), ("user", "One.")],
        [("system", "Be brief."), ("user", "One."), ("assistant", "..."), ("user", "Two.")],
        [("system", "Be brief."), ("user", "Three.")],
    ]


def test_settings_are_what_is_sent(page: Page) -> None:
    """Every field that is filled in, as a number; none that is empty."""
    bodies = sent_bodies(page)
    set_up(page, max_tokens=3)
    write(page)
    finish(page)
    set_up(page, temperature=0.5, top_p=0.9, top_k=40, max_tokens=3, seed=7)
    write(page)
    finish(page)

    sampling = [
        {key: body[key] for key in body if key not in ("model", "messages", "stream_options")}
        for body in bodies
    ]
    assert sampling == [
        {"stream": True, "max_tokens": 3},
        {"stream": True, "max_tokens": 3, "temperature": 0.5}
        | {"top_p": 0.9, "top_k": 40, "seed": 7},
    ]
    assert {body["model"] for body in bodies} == {"tiny"}


def test_a_seed_is_the_same_answer(page: Page) -> None:
    """Retry with a seed repeats the answer, in the place of the first."""
    set_up(page, max_tokens=30, seed=11)
    write(page)
    finish(page)
    first = answer(page).locator(".text").inner_text()
    page.get_by_role("button", name="Retry").click()
    finish(page)

    expect(page.get_by_role("article")).to_have_count(2)
    assert answer(page).locator(".text").inner_text() == first


def test_edit_takes_the_message_back(page: Page) -> None:
    """Edit puts the last message into the box again, and its turn away."""
    set_up(page, max_tokens=3)
    for text in ("One.", "Two."):
        write(page, text)
        finish(page)
    page.get_by_role("button", name="Edit").click()

    expect(page.get_by_label("Message")).to_have_value("Two.")
    expect(page.get_by_label("Message")).to_be_focused()
    expect(page.get_by_role("article")).to_have_count(2)
    expect(page.get_by_role("button", name="Edit")).to_have_count(1)


def test_the_rendered_prompt(page: Page, tiny_server: Server) -> None:
    """Prompt shows what the server renders of the very request; pressed again, it goes."""
    bodies = sent_bodies(page)
    set_up(page, system_prompt="Be brief.", max_tokens=3)
    write(page)
    finish(page)
    with tiny_server.client() as client:
        rendered = client.post("/v1/chat/completions/render", json=bodies[0]).json()

    button = page.get_by_role("button", name="Prompt")
    button.click()
    shown = page.get_by_role("region", name="Rendered prompt")
    expect(shown.locator("pre").first).to_have_text(rendered["prompt"], use_inner_text=True)
    expect(shown).to_contain_text(f"{rendered['num_tokens']} tokens")
    ids = " ".join(map(str, rendered["token_ids"]))
    expect(shown.locator("details pre")).to_have_text(ids)
    expect(button).to_have_attribute("aria-expanded", "true")
    button.click()
    expect(shown).to_have_count(0)


def test_copy(browser: Browser, tiny_server: Server) -> None:
    """Copy puts the answer's Markdown on the clipboard."""
    permissions = ["clipboard-read", "clipboard-write"]
    with opened(browser, tiny_server.base_url, permissions=permissions) as page:
        set_up(page, max_tokens=20)
        write(page)
        finish(page)
        written = page.locator("#announcer").text_content()
        page.get_by_role("button", name="Copy").last.click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        text = page.evaluate("navigator.clipboard.readText()")

    assert text
    assert text == written


# --- be refused


def test_a_refusal_is_shown_and_not_sent_again(browser: Browser, tiny_server: Server) -> None:
    """The server's own sentence stands where the answer would; the next message goes without."""
    with opened(browser, tiny_server.base_url, refusals=[400]) as page:
        bodies = sent_bodies(page)
        set_up(page, temperature=-1, max_tokens=3)
        write(page, "One.")
        finish(page)
        with tiny_server.client() as client:
            refused = client.post("/v1/chat/completions", json=bodies[0]).json()["error"]
        expect(answer(page).get_by_role("alert")).to_have_text(refused["message"])

        set_up(page, temperature=0)
        write(page, "Two.")
        finish(page)

    assert said(bodies[1]) == [("user", "Two.")]


def test_a_text_model_takes_no_images(page: Page) -> None:
    """A pasted or dropped image is refused with a sentence; text is pasted as ever."""
    for event, holder in (("paste", "clipboardData"), ("drop", "dataTransfer")):
        page.get_by_label("Message").evaluate(
            """(box, [event, holder]) => {
              const data = new DataTransfer();
              data.items.add(new File(["x"], "cat.png", { type: "image/png" }));
              const Kind = event === "paste" ? ClipboardEvent : DragEvent;
              const options = { [holder]: data, bubbles: true, cancelable: true };
              box.dispatchEvent(new Kind(event, options));
            }""",
            [event, holder],
        )
        expect(page.locator("#notice")).to_have_text("tiny takes no images.")
        page.locator("#notice").evaluate("notice => (notice.textContent = '')")
    expect(page.get_by_role("button", name="Add image")).to_be_hidden()


# --- what is written stays text


HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=2</script>\n**not bold**'


def test_a_message_is_text(page: Page) -> None:
    """Markup in a message is its letters."""
    set_up(page, max_tokens=3)
    write(page, HOSTILE)
    finish(page)

    message = page.get_by_role("article", name="You")
    assert message.locator(".text").text_content() == HOSTILE
    assert message.locator(".text > *").count() == 0
    assert page.title() == "Playground · gemma-serve"


def test_nothing_is_not_sent(page: Page) -> None:
    """An empty message makes no turn."""
    for text in ("", "   ", "\n"):
        write(page, text)
        expect(page.get_by_role("article")).to_have_count(0)
