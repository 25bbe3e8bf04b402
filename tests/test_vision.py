"""
Images on the whole path: the clients' formats, our server, real vLLM and a tiny multimodal Gemma 3.

The reference for the prompt is transformers' own Gemma 3 processor.
"""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
import yaml
from PIL import Image
from transformers import AutoProcessor

from benchmarks.records import Run
from tests.chat.evil_images import bad_images, good_images
from tests.chat.evil_images import data_url as file_url
from tests.chat.test_media_urls import ADDRESS_FORMS, FORMS
from tests.conftest import TINY, ServeProfile
from tests.playground.browser import chromium
from tests.playground.images import check_images
from tests.servers import Server, serving
from tests.tiny_gemma_vision import (
    END_OF_IMAGE,
    IMAGE_SOFT_TOKEN,
    SOFT_TOKENS,
    START_OF_IMAGE,
    TOKENS_PER_IMAGE,
    make_tiny_gemma_vision,
)

pytestmark = pytest.mark.engine

IMAGES_PER_PROMPT = 3
JSON = {"content-type": "application/json"}
QUESTION = "What is in this picture?"
GREEDY = {"model": "tiny", "temperature": 0, "max_tokens": 8}


# --- images and messages


def black(width: int = 60, height: int = 40) -> Image.Image:
    return Image.new("RGB", (width, height))


def noise(width: int = 60, height: int = 40, seed: int = 0) -> Image.Image:
    pixels = random.Random(seed).randbytes(width * height * 3)
    return Image.frombytes("RGB", (width, height), pixels)


def as_base64(image: Image.Image, format_: str = "PNG") -> str:
    file = io.BytesIO()
    image.save(file, format_)
    return base64.b64encode(file.getvalue()).decode()


def data_url(image: Image.Image, format_: str = "PNG") -> str:
    return f"data:image/{format_.lower()};base64,{as_base64(image, format_)}"


def image_url(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def part(content: str | Image.Image) -> dict[str, Any]:
    """A part of OpenAI's kind; an image goes as a PNG."""
    if isinstance(content, str):
        return {"type": "text", "text": content}
    return image_url(data_url(content))


def user(*parts: str | Image.Image | dict[str, Any]) -> list[dict[str, Any]]:
    content = [given if isinstance(given, dict) else part(given) for given in parts]
    return [{"role": "user", "content": content}]


# --- the server and what it answers


@dataclass(frozen=True)
class Answer:
    """What a greedy chat gave; two of them are compared as a whole."""

    text: str
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    first_logprobs: tuple[tuple[str, float], ...]
    prompt_tokens: int  # as charged

    def count(self, token: int) -> int:
        return self.prompt_ids.count(token)


def ask(server: Server, messages: list[dict[str, Any]]) -> Answer:
    """A greedy answer by the openai client."""
    client = openai.OpenAI(base_url=f"{server.base_url}/v1", api_key="none", max_retries=0)
    extra = {"return_token_ids": True, "ignore_eos": True}
    answer = client.chat.completions.create(
        messages=messages, logprobs=True, top_logprobs=5, extra_body=extra, **GREEDY
    )
    [choice] = answer.choices
    first = choice.logprobs.content[0].top_logprobs
    return Answer(
        text=choice.message.content,
        prompt_ids=tuple(answer.prompt_token_ids),
        token_ids=tuple(choice.token_ids),
        first_logprobs=tuple((token.token, round(token.logprob, 3)) for token in first),
        prompt_tokens=answer.usage.prompt_tokens,
    )


@pytest.fixture(scope="module")
def vision_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_gemma_vision(tmp_path_factory.mktemp("tiny-vision") / "gemma")


@pytest.fixture(scope="module")
def vision_profile(vision_model: Path) -> Path:
    profile = vision_model.parent / "vision.yaml"
    keys = {"model": str(vision_model), **TINY, "images_per_prompt": IMAGES_PER_PROMPT}
    profile.write_text(yaml.safe_dump(keys))
    return profile


@pytest.fixture(scope="module")
def server(vision_profile: Path, engine_slot: contextlib.ExitStack) -> Server:
    """One server of the multimodal model for the tests of this file that need no other profile."""
    engine_slot.close()
    log = vision_profile.parent / "server.log"
    overrides = [
        *("images.fetch_urls=true", "images.fetch_timeout_s=2"),
        "server.playground=true",
    ]
    return engine_slot.enter_context(serving(vision_profile, overrides, log, {**os.environ}))


@pytest.fixture(scope="module")
def processor(vision_model: Path) -> Any:
    """transformers' processor of the same checkpoint."""
    return AutoProcessor.from_pretrained(vision_model)


def reference_ids(processor: Any, parts: list[Any], **options: Any) -> tuple[int, ...]:
    """The prompt of one user turn as transformers writes it."""
    content = [
        {"type": "text", "text": p} if isinstance(p, str) else {"type": "image"} for p in parts
    ]
    images = [p for p in parts if not isinstance(p, str)]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    inputs = processor(text=text, images=images or None, add_special_tokens=False, **options)
    return tuple(inputs["input_ids"][0])


@contextlib.contextmanager
def unharmed(server: Server) -> Iterator[None]:
    """What happens inside leaves greedy answers, with and without an image, as they were."""
    canaries = [user("The canary sings."), user("The canary", noise(seed=7), "sees.")]
    before = [ask(server, canary) for canary in canaries]
    yield
    assert [ask(server, canary) for canary in canaries] == before


def refused(server: Server, path: str, **body: Any) -> dict[str, Any]:
    """The error of a request that must be a 400."""
    with server.client() as client:
        # In ASCII: a lone surrogate can only be sent escaped.
        answer = client.post(path, content=json.dumps(GREEDY | body), headers=JSON)
    assert answer.status_code == 400, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    return error


# --- the prompt


@pytest.mark.parametrize(
    "parts",
    [
        [black(), QUESTION],
        [QUESTION, black()],
        ["Look: ", black(), "What is it?"],
        [black(), noise(), QUESTION],
        ["First", black(), "then", noise(), "and?"],
        ["A line\n", black(), "\nanother\n\n"],
        [black()],
    ],
    ids=["first", "last", "between", "two in a row", "two apart", "newlines", "alone"],
)
def test_prompt_is_the_reference_processors(server: Server, processor: Any, parts: Any) -> None:
    """Wherever an image stands, the prompt's ids are those of transformers, and are charged."""
    answer = ask(server, user(*parts))
    assert answer.prompt_ids == reference_ids(processor, parts)
    assert answer.prompt_tokens == len(answer.prompt_ids)


def test_usage_grows_by_the_tokens_of_an_image(server: Server) -> None:
    """Every image among text costs its soft tokens and the four tokens around them."""
    texts = ["Here", "and there", "and everywhere"]
    cost = [ask(server, user(*texts)).prompt_tokens]
    for image in (black(), noise()):
        texts.insert(2 * len(cost) - 1, image)
        cost.append(ask(server, user(*texts)).prompt_tokens)
    grown = [more - less for less, more in itertools.pairwise(cost)]
    assert grown == [TOKENS_PER_IMAGE, TOKENS_PER_IMAGE]


def test_image_reaches_the_model(server: Server) -> None:
    """Two images give the same prompt ids and other logprobs; the same image, the same ones."""
    dark, first, again = (
        ask(server, user(QUESTION, image)) for image in (black(), noise(), noise())
    )
    assert dark.prompt_ids == first.prompt_ids
    assert dark.first_logprobs != first.first_logprobs
    assert first == again


def test_order_of_images_counts(server: Server) -> None:
    """Two images are two, each at its place."""
    one_way = ask(server, user("A", black(), "B", noise()))
    other_way = ask(server, user("A", noise(), "B", black()))
    assert one_way.prompt_ids == other_way.prompt_ids
    assert one_way.first_logprobs != other_way.first_logprobs


def test_images_of_earlier_turns_count(server: Server) -> None:
    """A conversation keeps the images of its former turns."""
    later = [{"role": "assistant", "content": "A square."}, *user("Are you sure?")]
    with_black, with_noise = (
        ask(server, [*user(QUESTION, image), *later]) for image in (black(), noise())
    )
    assert with_black.count(IMAGE_SOFT_TOKEN) == SOFT_TOKENS
    assert with_black.first_logprobs != with_noise.first_logprobs


# --- the ways to send one


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "GIF"])
def test_lossless_formats_are_one_image(server: Server, format_: str) -> None:
    """The same pixels are the same image, whatever file they come in."""
    picture = Image.new("RGB", (56, 56), (0, 0, 255))
    options = {"lossless": True} if format_ == "WEBP" else {}
    file = io.BytesIO()
    picture.save(file, format_, **options)
    url = f"data:image/{format_.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
    assert ask(server, user(QUESTION, image_url(url))) == ask(server, user(QUESTION, picture))


def test_jpeg(server: Server) -> None:
    """A JPEG is taken too."""
    answer = ask(server, user(QUESTION, image_url(data_url(noise(), "JPEG"))))
    assert answer.count(IMAGE_SOFT_TOKEN) == SOFT_TOKENS


@pytest.mark.parametrize(
    "hugging_face_part",
    [
        {"type": "image", "url": data_url(noise())},
        {"type": "image", "image": data_url(noise())},
        {"type": "image", "base64": as_base64(noise())},
    ],
    ids=["url", "image", "base64"],
)
def test_hugging_face_parts(server: Server, hugging_face_part: dict[str, Any]) -> None:
    """Parts as transformers' chat templates take them are OpenAI's image_url."""
    assert ask(server, user(QUESTION, hugging_face_part)) == ask(server, user(QUESTION, noise()))


def anthropic_image(image: Image.Image) -> dict[str, Any]:
    source = {"type": "base64", "media_type": "image/png", "data": as_base64(image)}
    return {"type": "image", "source": source}


def test_anthropic_image_block(server: Server) -> None:
    """The same image through Anthropic's protocol gives the same prompt and greedy answer."""
    client = anthropic.Anthropic(base_url=server.base_url, api_key="none", max_retries=0)
    content = [part(QUESTION), anthropic_image(noise())]
    answer = client.messages.create(
        messages=[{"role": "user", "content": content}],
        model="tiny",
        max_tokens=GREEDY["max_tokens"],
        extra_body={"temperature": 0},
    )
    same = ask(server, user(QUESTION, noise()))
    assert answer.usage.input_tokens == same.prompt_tokens
    assert answer.content[0].text == same.text


def test_responses_input_image(server: Server) -> None:
    """The same image through the responses API gives the same prompt and greedy answer."""
    client = openai.OpenAI(base_url=f"{server.base_url}/v1", api_key="none", max_retries=0)
    content = [
        {"type": "input_text", "text": QUESTION},
        {"type": "input_image", "image_url": data_url(noise()), "detail": "auto"},
    ]
    answer = client.responses.create(
        input=[{"role": "user", "content": content}],
        model="tiny",
        max_output_tokens=GREEDY["max_tokens"],
        temperature=0,
    )
    same = ask(server, user(QUESTION, noise()))
    assert answer.usage.input_tokens == same.prompt_tokens
    assert answer.output_text == same.text


@pytest.mark.parametrize(
    "image",
    [
        {"type": "image", "url": data_url(noise())},
        {"type": "image", "image": data_url(noise())},
        {"type": "image", "base64": as_base64(noise())},
        {"type": "image_url", "image_url": {"url": data_url(noise())}},
        {"type": "input_image", "image_url": {"url": data_url(noise())}},
    ],
    ids=["url", "image", "base64", "image_url", "input_image"],
)
def test_image_parts_of_responses(server: Server, image: dict[str, Any]) -> None:
    """The responses API takes the image parts that a chat takes, by the rule of that name."""
    same = ask(server, user(QUESTION, noise()))
    content = [{"type": "text", "text": QUESTION}, image]
    body = GREEDY | {"input": [{"role": "user", "content": content}], "max_output_tokens": 1}
    with server.client() as client:
        answer = client.post("/v1/responses", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["input_tokens"] == same.prompt_tokens
    is_openais = image["type"] == "image_url"
    assert answer.headers.get("x-gemma-serve-prompt", "") == ("" if is_openais else "image_parts")


# --- text that looks like an image


@pytest.mark.parametrize("images", [[], [noise()]], ids=["no image", "an image"])
@pytest.mark.parametrize("token", ["<start_of_image>", "<image_soft_token>", "<end_of_image>"])
def test_typed_image_tokens_stay_text(server: Server, token: str, images: list[Any]) -> None:
    """Image tokens that a user types make no image: their ids are those of the real images."""
    with unharmed(server):
        answer = ask(server, user(f"Say {token} twice: ", *images, f"{token}{token}"))
    assert answer.count(START_OF_IMAGE) == len(images)
    assert answer.count(IMAGE_SOFT_TOKEN) == len(images) * SOFT_TOKENS
    assert answer.count(END_OF_IMAGE) == len(images)


def test_typed_token_does_not_move_the_image(server: Server) -> None:
    """The image stays at its own place, behind a token that was typed before it."""
    answer = ask(server, user("Not <start_of_image> but", noise()))
    typed = ask(server, user("Not <start_of_image> but"))
    # All but <end_of_turn> and the model's turn stands before the image.
    before = len(typed.prompt_ids) - len(
        answer.prompt_ids[answer.prompt_ids.index(END_OF_IMAGE) + 2 :]
    )
    assert answer.prompt_ids[:before] == typed.prompt_ids[:before]
    assert answer.prompt_ids[before + 1] == START_OF_IMAGE


# --- refusals


@pytest.mark.parametrize(
    "bad_part",
    [
        image_url("data:image/png;base64,"),
        image_url("data:image/png;base64,bm90IGFuIGltYWdl"),
        image_url("data:image/png;base64,!!!!"),
        image_url(data_url(noise())[:-400]),
        image_url("data:text/html;base64,PGgxPmhpPC9oMT4="),
        image_url(""),
        image_url("file:///etc/passwd"),
        image_url("picture.png"),
        image_url("http://127.0.0.1:9/picture.png"),
        {"type": "image_url"},
        {"type": "image_url", "image_url": {}},
        {"type": "image_url", "image_url": {"url": 5}},
        {"type": "image_embeds", "image_embeds": as_base64(noise())},
        {"type": "audio_url", "audio_url": {"url": "data:audio/wav;base64,UklGRg=="}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}},
        {"type": "hologram", "hologram": "x"},
    ],
    ids=[
        *("nothing", "no image", "no base64", "cut off", "html", "empty", "file", "path", "http"),
        *(
            "no url",
            "empty map",
            "number",
            "embeds",
            "audio_url",
            "input_audio",
            "video",
            "unknown",
        ),
    ],
)
def test_bad_part_is_refused(server: Server, bad_part: dict[str, Any]) -> None:
    """What is no image is a 400 that harms nobody else, and its data is not echoed."""
    with unharmed(server):
        error = refused(server, "/v1/chat/completions", messages=user(QUESTION, bad_part))
    assert len(error["message"]) < 400
    assert "0x" not in error["message"]


def test_too_many_images_are_refused(server: Server) -> None:
    """As many images as the profile says are served, one more is a 400 with the number."""
    messages = user(*[noise()] * IMAGES_PER_PROMPT, QUESTION)
    assert ask(server, messages).count(START_OF_IMAGE) == IMAGES_PER_PROMPT
    with unharmed(server):
        too_many = [*messages, {"role": "assistant", "content": "Yes."}, *user(noise())]
        error = refused(server, "/v1/chat/completions", messages=too_many)
        assert str(IMAGES_PER_PROMPT) in error["message"]
        content = [anthropic_image(noise())] * (IMAGES_PER_PROMPT + 1)
        messages = [{"role": "user", "content": content}]
        refused(server, "/v1/messages", messages=messages)


def test_client_can_not_change_the_processor(server: Server) -> None:
    """How large images become is the operator's business, not a request's."""
    for kwargs in ({"do_pan_and_scan": True}, {"size": {"height": 9000, "width": 9000}}):
        with unharmed(server):
            error = refused(
                server,
                "/v1/chat/completions",
                messages=user(QUESTION, noise()),
                mm_processor_kwargs=kwargs,
            )
        assert "mm_processor_kwargs" in error["message"]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kept", [1, 6, 2000])
def test_prompt_with_images_is_not_cut(server: Server, kept: int, side: str) -> None:
    """A cut could take an image's place away, on which vLLM fails; it is refused by its name."""
    cut = {"truncate_prompt_tokens": kept, "truncation_side": side}
    with unharmed(server):
        messages = user(QUESTION, noise())
        error = refused(server, "/v1/chat/completions", messages=messages, **cut)
    assert error["param"] == "truncate_prompt_tokens"


def test_truncation_of_responses_leaves_images(server: Server) -> None:
    """truncation: auto of the responses API cuts nothing off where all fits."""
    image = {"type": "input_image", "image_url": data_url(noise()), "detail": "auto"}
    body = GREEDY | {"input": [{"role": "user", "content": [image]}], "max_output_tokens": 1}
    with server.client() as client:
        whole, cut = (
            client.post("/v1/responses", json=body | {"truncation": truncation})
            for truncation in ("disabled", "auto")
        )
    assert whole.status_code == cut.status_code == 200, cut.text
    assert whole.json()["usage"] == cut.json()["usage"]
    assert whole.json()["usage"]["input_tokens"] > SOFT_TOKENS


def _refuses_images(server: Server) -> None:
    """Every way to send an image is a 400, and text is answered as before."""
    text = {"messages": user(QUESTION)}
    with server.client() as client:

        def say() -> httpx.Response:
            return client.post("/v1/chat/completions", json=GREEDY | text)

        before = say().json()["choices"]
        refused(server, "/v1/chat/completions", messages=user(QUESTION, noise()))
        content = [anthropic_image(noise()), part(QUESTION)]
        refused(server, "/v1/messages", messages=[{"role": "user", "content": content}])
        assert say().json()["choices"] == before


# --- classes G1 and G2 of the bad inputs, through the whole server


BAD_IMAGES = bad_images()
GOOD_IMAGES = good_images()


def refused_image(server: Server, url: str) -> dict[str, Any]:
    """The error of a chat with this image, which must be a 400."""
    part = {"type": "image_url", "image_url": {"url": url}}
    messages = [{"role": "user", "content": [part]}]
    return refused(server, "/v1/chat/completions", messages=messages)


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_image_harms_nobody(server: Server, name: str) -> None:
    """Every bad image is a 400 with a short sentence, and the next answers are as before."""
    with unharmed(server):
        error = refused_image(server, BAD_IMAGES[name])
    assert len(error["message"]) <= 400
    assert "0x" not in error["message"]


@pytest.mark.parametrize("name", GOOD_IMAGES)
def test_odd_image_is_its_flattened_twin(server: Server, name: str) -> None:
    """Turned, transparent, animated, 16-bit: the answer is that to the pixels a viewer shows."""
    data, expected = GOOD_IMAGES[name]
    with unharmed(server):
        odd = ask(server, user(QUESTION, image_url(file_url(data))))
        twin = ask(server, user(QUESTION, expected))
    assert odd.prompt_ids == twin.prompt_ids
    assert odd == twin or "alpha" in name  # two ways of rounding it


@pytest.mark.parametrize("url", FORMS)
def test_bad_url_harms_nobody(server: Server, url: str) -> None:
    """Every URL that must not be fetched is a 400, and the next answers are as before."""
    with unharmed(server):
        error = refused_image(server, url)
    assert error["code"] in ("invalid_image_url", "invalid_image")


@pytest.mark.parametrize("host", ADDRESS_FORMS)
def test_private_address_is_not_fetched(server: Server, host: str) -> None:
    """Loopback, link-local and private addresses in any notation are a 400 that harms nobody."""
    with unharmed(server):
        error = refused_image(server, f"https://{host}/a.png")
    assert error["code"] == "invalid_image_url"
    assert "127.0.0.1" not in error["message"]


# --- in the playground


def test_playground(server: Server) -> None:
    """In a browser: images chosen, pasted and dropped reach the model; a broken one is refused."""
    with chromium() as browser:
        check_images(browser, server)


# --- in a benchmark


def test_benchmark_of_images(server: Server, tmp_path: Path) -> None:
    """The harness sends two generated images a prompt, all different; each costs its tokens."""
    words = ["run", server.base_url, "--workload", "images", "--set", "num_images=2",
             "--set", "width=64", "--set", "height=48", "--input", "8", "--output", "8",
             "--concurrency", "2", "--requests", "6", "--warm-up", "2",
             "--out", str(tmp_path)]  # fmt: skip
    command = [sys.executable, "-m", "benchmarks", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (tmp_path / "run.json").is_file(), done.stderr
    run = Run.model_validate_json((tmp_path / "run.json").read_text())
    full, red = run.metrics.full_run, [c.name for c in run.validity.checks if c.status == "red"]
    sent, measured = (
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        for name in ("workload.jsonl", "requests.jsonl")
    )
    urls = [
        piece["image_url"]["url"]
        for item in sent
        for piece in item["messages"][0]["content"]
        if piece["type"] == "image_url"
    ]

    # Whether the client was late depends on who else is busy; the answers do not.
    assert not {"failed_requests", "output_length", "usage_tokens", "prefix_cache_hits"} & {*red}
    assert (full.num_ok, full.num_failed, full.output_tokens) == (6, 0, 6 * 8)
    assert (run.workload.kind, run.workload.cache) == ("images", "cold")
    assert len(set(urls)) == len(urls) == (6 + 2) * 2
    assert all(line["prompt_tokens"] >= 2 * TOKENS_PER_IMAGE + 8 for line in measured)


# --- text only; a server of a test's own ends the one above


def test_text_only_model_refuses_images(tiny_server: Server) -> None:
    """A model without an image tower answers an image with 400."""
    _refuses_images(tiny_server)


def test_text_only_profile_refuses_images(
    serve_profile: ServeProfile, vision_profile: Path
) -> None:
    """text_only: true leaves the tower out, and an image is a 400 there too."""
    with serve_profile(vision_profile, ["text_only=true"]) as server:
        _refuses_images(server)
    assert "images_per_prompt has no effect" in server.output()


# --- pan and scan


def test_pan_and_scan_adds_crops(
    serve_profile: ServeProfile, vision_profile: Path, processor: Any
) -> None:
    """A wide image comes with crops, written as transformers writes them; a square one alone."""
    wide, square = noise(900, 300), noise(300, 300)
    with serve_profile(vision_profile, ["images.pan_and_scan=true"]) as server:
        for image, views in ((wide, 4), (square, 1)):
            parts = ["See", image, QUESTION]
            answer = ask(server, user(*parts))
            assert answer.count(IMAGE_SOFT_TOKEN) == views * SOFT_TOKENS
            assert answer.prompt_ids == reference_ids(processor, parts, do_pan_and_scan=True)
