"""The HTML of a page: one file, which loads nothing, and in which everything that is not ours is in base64."""

import base64
import hashlib
import zlib
from collections.abc import Mapping

from tinygpt2.page.bundle import bundle, source

_STYLE = '<link rel="stylesheet" href="page.css" />'
_SCRIPT = '<script type="module" src="main.js"></script>'
_POLICY = '<meta http-equiv="Content-Security-Policy" content="" />'


def document(parts: Mapping[str, bytes]) -> str:
    """Returns the page with some parts, each compressed and in base64, in an element that has its name as its id.

    Its security policy lets the browser load nothing from anywhere, run no scripts but the page's own, and make no HTML
    of any string.
    """
    style, main = source("page.css"), bundle("main")
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src '{_digest(main)}'",
            f"style-src '{_digest(style)}'",
            "worker-src blob:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types worker",
        ]
    )
    inert = {"worker": bundle("worker")} | {name: packed(content) for name, content in parts.items()}
    scripts = [f'<script type="text/plain" id="{name}">{text}</script>' for name, text in inert.items()]
    scripts.append(f'<script type="module">{main}</script>')
    page = source("page.html")
    for place, content in (
        (_POLICY, _POLICY.replace('""', f'"{policy}"')),
        (_STYLE, f"<style>{style}</style>"),
        (_SCRIPT, "\n".join(scripts)),
    ):
        before, _, after = page.partition(place)
        page = f"{before}{content}{after}"
    return page


def packed(content: bytes) -> str:
    """Returns bytes compressed, in base64: letters, digits and three signs, none of which means anything in HTML."""
    compressor = zlib.compressobj(9, wbits=-15)  # without a header: "deflate-raw" in the browser
    return base64.b64encode(compressor.compress(content) + compressor.flush()).decode("ascii")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"
