"""
The images of a request: fetched and decoded by us, handed to vLLM as checked bytes.

`inline_images` and `load_images` are the whole interface. `parts` finds the images in the
messages, `loader` turns a URL into checked bytes, `fetch` gets them over https from public
addresses only (`address`), and `decode` reads the pixels and writes them anew, so that vLLM never
sees a URL or a client's file.
"""

from __future__ import annotations

from gemma_serve.chat.media.fetch import Fetcher
from gemma_serve.chat.media.loader import ImageLoader
from gemma_serve.chat.media.parts import inline_images, load_images

__all__ = ["Fetcher", "ImageLoader", "inline_images", "load_images"]
