"""Bits per byte of held-out text for methods without a neural network: n-grams of bytes, and compressors.

    python benchmarks/compressors.py [TEXT] [--train-ratio 0.9]

TEXT is any UTF-8 file, the sample text by default. Its last part is held out, as `split_text` cuts it. A model that was
trained on the first part is compared with the figures here: tinygpt2 evaluate RUN held-out.txt.

The n-grams count the bytes of the training part, and like a trained model do not learn from what they predict. A
compressor's figure is the size of both parts minus that of the training part alone. As a whole, it learns from the
beginning of the held-out part when it comes to the end; in pieces of 2 KB, each right after the training part, only
within a piece. zstd and PPMd are shown where backports.zstd (or Python 3.14) and pyppmd are installed.
"""

import argparse
import bz2
import json
import lzma
import math
import platform
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, AnyStr

from tinygpt2 import read_text, sample_text, split_text

ORDERS = (4, 5)  # bytes, of which the last is predicted
PIECE = 2048  # bytes

Compressor = Callable[[bytes], int]


class NGram:
    """A model of bytes, or of characters, with Witten-Bell smoothing.

    It mixes each order with the one below by how often that was new. Source: Witten and Bell 1991, method C.

    Args:
        text: What to count: bytes, or a ``str`` for a model of characters.
        order: Length of the longest context, and one.
        symbols: How many bytes or characters there are.
    """

    def __init__(self, text: bytes | str, order: int, symbols: int = 256) -> None:
        self.order, self.symbols = order, symbols
        self.counts: list[defaultdict[bytes | str, Counter[int | str]]] = [defaultdict(Counter) for _ in range(order)]
        for length, counts in enumerate(self.counts):
            for place in range(length, len(text)):
                counts[text[place - length : place]][text[place]] += 1

    def probability(self, context: bytes | str, symbol: int | str) -> float:
        """Returns the probability of a byte or character after a context, of which the end counts."""
        found = 1 / self.symbols
        for length, counts in enumerate(self.counts):
            seen = counts.get(context[len(context) - length :]) if length <= len(context) else None
            if seen:
                found = (seen[symbol] + len(seen) * found) / (seen.total() + len(seen))
        return found

    def bits(self, before: AnyStr, text: AnyStr) -> float:
        """Returns the bits of a text that follows another."""
        begin, whole = len(before[-self.order :]), before[-self.order :] + text
        return -sum(
            math.log2(self.probability(whole[max(0, place - self.order) : place], whole[place]))
            for place in range(begin, len(whole))
        )


def compressors() -> Iterator[tuple[str, Compressor]]:
    """Yields the names of the compressors there are, and what returns the size of something compressed."""
    yield "gzip -9", lambda data: len(zlib.compress(data, 9))
    yield "bz2 -9", lambda data: len(bz2.compress(data, 9))
    xz = [{"id": lzma.FILTER_LZMA2, "preset": 9}]
    yield "xz -9", lambda data: len(lzma.compress(data, format=lzma.FORMAT_RAW, filters=xz))
    if zstd := first_of("compression.zstd", "backports.zstd"):
        yield "zstd -19", lambda data: len(zstd.compress(data, 19))
    if pyppmd := first_of("pyppmd"):

        def ppmd(data: bytes) -> int:
            encoder = pyppmd.Ppmd7Encoder(6, 16 << 20)
            return len(encoder.encode(data)) + len(encoder.flush())

        yield "PPMd, order 6", ppmd


def first_of(*names: str) -> Any:  # noqa: ANN401 - untyped modules
    """Returns the first module that is installed, or ``None``."""
    for name in names:
        with suppress(ImportError):
            return import_module(name)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", type=Path, help="UTF-8 file; the sample text by default")
    parser.add_argument("--train-ratio", type=float, default=0.9)
    options = parser.parse_args()
    text = sample_text() if options.text is None else read_text(options.text)
    train, held_out = (part.encode("utf-8") for part in split_text(text, options.train_ratio))
    pieces = [held_out[begin : begin + PIECE] for begin in range(0, len(held_out), PIECE)]
    print(f"{len(train):,} bytes to learn from, {len(held_out):,} held out; bits per byte\n")
    print(f"{'':24}{'as a whole':>12}{'in pieces':>12}")
    rows = {}
    for order in ORDERS:
        bits = NGram(train, order).bits(train, held_out) / len(held_out)
        rows[f"byte {order}-gram"] = {"whole": bits}
        print(f"{f'byte {order}-gram':24}{bits:12.3f}")
    for name, size in compressors():
        alone = size(train)
        whole = 8 * (size(train + held_out) - alone) / len(held_out)
        parts = 8 * sum(size(train + piece) - alone for piece in pieces) / len(held_out)
        rows[name] = {"whole": whole, "pieces": parts}
        print(f"{name:24}{whole:12.3f}{parts:12.3f}")
    facts = {"train": len(train), "held_out": len(held_out), "python": platform.python_version()}
    print(f"\n{json.dumps({'title': 'bits per byte', 'results': rows, **facts})}")


if __name__ == "__main__":
    main()
