"""Images by the contract of Triton's vLLM backend: what the model sees, and what is refused."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from tests.api.kserve.triton_clients import greedy_chat, texts_of
from tests.api.kserve.vllm_backend import generate, png, refusal, sampling, stream
from tests.servers import Server
from tests.tiny_gemma_vision import TOKENS_PER_IMAGE


@pytest.fixture(scope="module")
def server(multimodal_server: Server) -> Server:
    """A multimodal model with an adapter, under the names of Triton's documentation."""
    return multimodal_server


def described(http: httpx.Client, text: str, *images: str, **more: Any) -> dict[str, Any]:
    """A greedy answer with log probabilities and the prompt's size."""
    body = {
        "text_input": text,
        "image": list(images),
        "exclude_input_in_output": True,
        "return_num_input_tokens": True,
        "return_logprobs": True,
        "sampling_parameters": sampling(max_tokens=8, logprobs=1),
    }
    return generate(http, **body | more)


def test_image_is_the_chats_image(http: httpx.Client, server: Server) -> None:
    """In the text that the chat template would write, an image is what it is in a chat."""
    chat = [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png(1)}"}},
                {"type": "text", "text": "What is this?"},
            ],
        }
    ]
    answer = greedy_chat(server, chat, 8, ignore_eos=True)
    text = "<start_of_turn>user\n<start_of_image>What is this?<end_of_turn>\n<start_of_turn>model\n"
    found = described(http, text, png(1))
    assert found["num_input_tokens"] == answer["usage"]["prompt_tokens"]
    assert found["text_output"] == answer["choices"][0]["message"]["content"]


def test_images_reach_the_model(http: httpx.Client) -> None:
    """Each place holds its image; other images give other log probabilities."""
    one = described(http, "See <start_of_image> here", png(1))
    none = described(http, "See here")
    assert one["num_input_tokens"] - none["num_input_tokens"] >= TOKENS_PER_IMAGE
    assert described(http, "See <start_of_image> here", png(1)) == one
    assert described(http, "See <start_of_image> here", png(2))["logprobs"] != one["logprobs"]
    two = "A <start_of_image> B <start_of_image>"
    one_way, other_way = (
        described(http, two, png(first), png(second)) for first, second in ((1, 2), (2, 1))
    )
    assert one_way["num_input_tokens"] == other_way["num_input_tokens"]
    assert one_way["logprobs"] != other_way["logprobs"]


def test_images_over_grpc(client: Any, http: httpx.Client) -> None:
    """The same image as a BYTES tensor over a stream."""
    text = "See <start_of_image> here"
    values = {
        "text_input": text,
        "image": [png(3)],
        "sampling_parameters": sampling(max_tokens=8),
        "return_num_input_tokens": True,
    }
    results = stream(client, values)
    want = described(http, text, png(3))
    assert "".join(piece for result in results for piece in texts_of(result)) == want["text_output"]
    assert results[0].as_numpy("num_input_tokens").tolist() == [want["num_input_tokens"]]


@pytest.mark.parametrize(
    ("text", "images", "more"),
    [
        ("No place for it", [png(1)], {}),
        ("<start_of_image> and <start_of_image>", [png(1)], {}),
        ("<start_of_image>", [png(1), png(2)], {}),
        ("<start_of_image>" * 4, [png(1)] * 4, {}),
        ("<start_of_image>", ["no base64!"], {}),
        ("<start_of_image>", [base64.b64encode(b"no picture").decode()], {}),
        ("<start_of_image>", [""], {}),
        ("<start_of_image>", ["https://example.com/cat.png"], {}),
        ("<start_of_image>", ["file:///etc/passwd"], {}),
        ("<start_of_image>", [png(1)], {"chat": True}),
    ],
    ids=[
        *("no place", "place left", "image left", "too many", "no base64", "no image", "empty"),
        *("URL", "file", "chat"),
    ],
)
def test_refused_images(
    http: httpx.Client, text: str, images: list[str], more: dict[str, Any]
) -> None:
    """As many images as places, each a picture in base64; a 400 says what is wrong."""
    assert refusal(http, text_input=text, image=images, max_tokens=2, **more)
    assert described(http, "See <start_of_image> here", png(1))


def test_image_token_without_an_image_is_text(http: httpx.Client) -> None:
    """Without images the token in the text is no place for one."""
    assert described(http, "A <start_of_image> B")["text_output"]
