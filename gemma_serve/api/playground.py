"""The playground: a static chat page, which calls the server's own routes with its reader's key."""

from __future__ import annotations

from importlib import resources

from fastapi import APIRouter
from starlette.responses import Response

PAGE = "/playground"
STYLE = "/playground/playground.css"
SCRIPT = "/playground/playground.js"
# The files hold nothing that a key would keep; where the profile serves them, they need none.
OPEN_PATHS = frozenset({PAGE, STYLE, SCRIPT})

# The page's own files and nothing else: no inline script, no other host, no frame around it, and
# text never becomes markup (trusted types: not even by a mistake in our script).
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data: blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    # After an upgrade, a page of the old version would call the new server.
    "cache-control": "no-cache",
}

router = APIRouter(include_in_schema=False)


def _file(name: str, media_type: str) -> Response:
    content = (resources.files("gemma_serve") / "playground" / name).read_bytes()
    return Response(content, headers=HEADERS, media_type=media_type)


@router.get(PAGE)
async def page() -> Response:
    """The page."""
    return _file("index.html", "text/html")


@router.get(STYLE)
async def style() -> Response:
    """How it looks."""
    return _file("playground.css", "text/css")


@router.get(SCRIPT)
async def script() -> Response:
    """What it does."""
    return _file("playground.js", "text/javascript")
