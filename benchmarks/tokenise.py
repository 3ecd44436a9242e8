"""A text file becomes a file of tokens: tinygpt2 on all cores against tiktoken on one thread, in turn.

    python benchmarks/tokenise.py TEXT [--megabytes 100] [--rounds 3]

TEXT is any UTF-8 file; it is repeated until it has so many megabytes. Each contestant runs in a process of its own,
which reads the file and writes the tokens, and whose largest memory is measured. The tokens of both are compared.
"""

import argparse
import hashlib
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from _measure import report
from tinygpt2 import gpt2_tokenizer, tokenize_to_file

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

Work = Callable[[Path, Path], None]

HEADER = 512  # bytes before the tokens in our file


def ours(text: Path, out: Path) -> None:
    tokenize_to_file([text], out)


def tiktoken(text: Path, out: Path) -> None:
    """As its users write it, and nanoGPT's prepare.py does but for its pool of processes."""
    tokens = gpt2_tokenizer().encode_ordinary(text.read_text(encoding="utf-8"))
    np.array(tokens, dtype=np.uint16).tofile(out)


def measured(work: Work, text: Path, out: Path, queue: "SimpleQueue[tuple[float, int]]") -> None:
    gpt2_tokenizer()
    began = time.perf_counter()
    work(text, out)
    queue.put((time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    contestants: dict[str, Work] = {"tinygpt2": ours, "tiktoken": tiktoken}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    memory = dict.fromkeys(contestants, 0)
    with tempfile.TemporaryDirectory() as place:
        text = Path(place, "text")
        piece = options.text.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").encode()
        text.write_bytes(piece * (options.megabytes * 1_000_000 // len(piece) + 1))
        size = text.stat().st_size
        for _ in range(options.rounds):
            for name, work in contestants.items():
                queue = context.SimpleQueue()
                process = context.Process(target=measured, args=(work, text, Path(place, name), queue))
                process.start()
                taken, used = queue.get()
                process.join()
                seconds[name].append(taken)
                memory[name] = max(memory[name], used)
        hashes = [hashlib.sha256(Path(place, name).read_bytes()[skip:]).hexdigest()
                  for name, skip in (("tinygpt2", HEADER), ("tiktoken", 0))]  # fmt: skip
    same = len(set(hashes)) == 1
    report(
        f"tokenising {size / 1e6:.0f} MB; the same tokens: {same}",
        seconds,
        per_run=size / 1e6,
        unit="MB/s",
        memory=memory,
        **(vars(options) | {"text": options.text.name}),
    )
    assert same
    for name, used in memory.items():
        print(f"{name}: {used / 1e6:.0f} MB of memory at most")


if __name__ == "__main__":
    main()
