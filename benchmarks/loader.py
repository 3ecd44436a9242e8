"""The next batch of the loader, as a share of the training step that it is for, from memory and from a token file.

python benchmarks/loader.py
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from _measure import report
from _peers import Work, tinygpt2
from tinygpt2 import GPT2Config, TokenFile, make_dataloader, sample_text, tokenize_to_file

BATCHES = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="gpt2")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    work = Work(GPT2Config.preset(options.preset, context_length=options.length), options.batch_size, options.length)
    _, step = tinygpt2(work)
    step()
    began = time.perf_counter()
    step()
    of_a_step = time.perf_counter() - began

    tokens = torch.randint(50257, (1_000_000,))
    with tempfile.TemporaryDirectory() as place:
        text = Path(place, "text")
        text.write_text(sample_text() * 200, encoding="utf-8")
        sources: dict[str, torch.Tensor | TokenFile] = {
            "from memory": tokens,
            "from a file": tokenize_to_file([text], Path(place, "tokens")),
        }
        seconds: dict[str, list[float]] = {name: [] for name in sources}
        for _ in range(options.rounds):
            for name, source in sources.items():
                loader = make_dataloader(
                    source, batch_size=options.batch_size, context_length=options.length, shuffle=True
                )
                batches = iter(loader)
                next(batches)
                began = time.perf_counter()
                for _ in range(BATCHES):
                    next(batches)
                seconds[name].append((time.perf_counter() - began) / BATCHES)
        shares = {name: statistics.median(taken) / of_a_step for name, taken in seconds.items()}
        report(
            f"next batch, {options.batch_size} x {options.length} tokens, shuffled",
            seconds,
            per_run=1,
            unit="batches/s",
            share_of_a_step=shares,
            **vars(options),
        )
    for name, share in shares.items():
        print(f"{name}: {share:.3%} of a step of {of_a_step:.3f} s")


if __name__ == "__main__":
    main()
