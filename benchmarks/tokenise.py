"""A text file becomes a file of tokens: tinygpt2 against tiktoken on one thread and on several, in turn.

    python benchmarks/tokenise.py TEXT [--megabytes 100] [--rounds 3] [--threads 2]

TEXT is any UTF-8 file. If it has fewer megabytes, its lines are repeated, in another order each time. Repetition helps
whatever remembers words, as gigatoken does, so pass a text of that size to see it without. Each contestant runs in a
process of its own, which reads the file and writes the tokens, and whose largest memory is measured. "ids alone" is
tiktoken's own batch of a text that is in memory and cut into pieces, timed without reading, cutting and writing. The
tokens of all are compared.
"""

import argparse
import hashlib
import importlib.util
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from _measure import largest_memory, report
from tinygpt2 import gpt2_tokenizer, tokenize_to_file
from tinygpt2.data.pieces import pieces_of_text

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

Work = Callable[[Path, Path], float]

HEADER = 512  # bytes before the tokens in our file


def ours(text: Path, out: Path, *, threads: int, fast: bool) -> float:
    if not fast:
        sys.modules["gigatoken"] = None  # type: ignore[assignment]  # as if it were not installed
    began = time.perf_counter()
    tokenize_to_file([text], out, threads=threads)
    return time.perf_counter() - began


def one_thread(text: Path, out: Path) -> float:
    """As its users write it, and nanoGPT's prepare.py does but for its pool of processes."""
    began = time.perf_counter()
    tokens = gpt2_tokenizer().encode_ordinary(text.read_text(encoding="utf-8"))
    np.array(tokens, dtype=np.uint16).tofile(out)
    return time.perf_counter() - began


def own_threads(text: Path, out: Path, *, threads: int, ids_alone: bool) -> float:
    began = time.perf_counter()
    pieces = pieces_of_text([text.read_text(encoding="utf-8")], gpt2_tokenizer())
    texts = [text for piece in pieces for text in piece.texts]
    cut = time.perf_counter()
    rows = gpt2_tokenizer().encode_ordinary_batch(texts, num_threads=threads)
    encoded = time.perf_counter()
    np.concatenate([np.array(row, dtype=np.uint16) for row in rows]).tofile(out)
    return encoded - cut if ids_alone else time.perf_counter() - began


def measured(work: Work, text: Path, out: Path, queue: "SimpleQueue[tuple[float, int]]") -> None:
    gpt2_tokenizer()
    queue.put((work(text, out), largest_memory()))


def write_text(source: Path, size: int, out: Path) -> None:
    """Writes so many bytes of a text, or all of it; if it has fewer, its lines again and again in any order."""
    text = source.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    content = text.encode()[:size].decode("utf-8", "ignore")
    lines = text.splitlines(keepends=True)
    rng = random.Random(0)  # noqa: S311
    with out.open("w", encoding="utf-8", newline="\n") as file:
        written = file.write(content) and len(content.encode())
        while written < size:
            rng.shuffle(lines)
            written += len("".join(lines).encode())
            file.writelines(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    n = options.threads
    contestants: dict[str, Work] = {"tinygpt2": partial(ours, threads=n, fast=False)}
    if importlib.util.find_spec("gigatoken"):
        contestants = {"tinygpt2[fast]": partial(ours, threads=n, fast=True), **contestants}
    contestants |= {
        f"tiktoken, {n} threads": partial(own_threads, threads=n, ids_alone=False),
        f"tiktoken, {n}, ids alone": partial(own_threads, threads=n, ids_alone=True),
        "tiktoken": one_thread,
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    memory = dict.fromkeys(contestants, 0)
    hashes = set()
    with tempfile.TemporaryDirectory() as place:
        text, out = Path(place, "text"), Path(place, "tokens")
        writer = context.Process(target=write_text, args=(options.text, options.megabytes * 1_000_000, text))
        writer.start()  # Linux counts the memory of the process that starts another one as that of the other one, too
        writer.join()
        size = text.stat().st_size
        for _ in range(options.rounds):
            for name, work in contestants.items():
                queue = context.SimpleQueue()
                process = context.Process(target=measured, args=(work, text, out, queue))
                process.start()
                taken, used = queue.get()
                process.join()
                seconds[name].append(taken)
                memory[name] = max(memory[name], used)
                skip = HEADER if "tinygpt2" in name else 0
                hashes.add(hashlib.sha256(out.read_bytes()[skip:]).hexdigest())
    report(
        f"tokenising {size / 1e6:.0f} MB; the same tokens: {len(hashes) == 1}",
        seconds,
        per_run=size / 1e6,
        unit="MB/s",
        memory=memory,
        **(vars(options) | {"text": options.text.name}),
    )
    assert len(hashes) == 1
    for name, used in memory.items():
        print(f"{name}: {used / 1e6:.0f} MB of memory at most")


if __name__ == "__main__":
    main()
