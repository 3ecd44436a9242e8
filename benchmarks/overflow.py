"""A token past the context window beside one inside it, in time and in quality.

    python benchmarks/overflow.py                                # 124M with a window of 128 tokens: time alone
    python benchmarks/overflow.py --run DIR --text FILE          # quality, too, of a run of tinygpt2 train

The quality of overflow="slide" is that of tokens which see the whole window before them, and the quality of "restart"
that of tokens which see between half of it and all: windows that overlap by all but one token, and by half.
"""

import argparse
import itertools
import time

import torch

from _measure import report
from tinygpt2 import GPT2Config, GPT2Model, evaluate_text, load_tokenizer, read_text, stream
from tinygpt2.generation.options import Overflow


def seconds_a_token(model: GPT2Model, *, before: int, count: int, overflow: Overflow) -> float:
    """Returns the mean time of some tokens, after others."""
    tokens = stream(model, torch.zeros((1, 1), dtype=torch.int64), max_new_tokens=before + count, overflow=overflow)
    for _ in itertools.islice(tokens, before):
        pass
    began = time.perf_counter()
    assert sum(1 for _ in tokens) == count
    return (time.perf_counter() - began) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", metavar="DIR")
    parser.add_argument("--text", metavar="FILE", help="from which nothing was learned")
    parser.add_argument("--window", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.run:
        model = GPT2Model.from_pretrained(options.run)
    else:
        torch.manual_seed(0)
        model = GPT2Model(GPT2Config.preset("gpt2", dropout=0.0, context_length=options.window))
    size = model.config.context_length
    seconds: dict[str, list[float]] = {"inside": [], "restart": [], "slide": []}
    for _ in range(options.rounds):
        seconds["inside"].append(seconds_a_token(model, before=8, count=size - 9, overflow="slide"))
        seconds["restart"].append(seconds_a_token(model, before=size, count=2 * size, overflow="restart"))
        seconds["slide"].append(seconds_a_token(model, before=size, count=size // 4, overflow="slide"))
    title = f"a token past a window of {size}, {model.num_parameters():,} parameters"
    report(title, seconds, per_run=1, unit="tokens/s", **vars(options))
    if options.run and options.text:
        tokenizer, text = load_tokenizer(options.run), read_text(options.text)
        for name, stride in (("slide", 1), ("restart", size // 2)):
            found = evaluate_text(model, tokenizer, text, stride=stride, batch_size=64)
            print(f"{name}: {found.bits_per_byte:.4f} bits per byte, {found.tokens:,} tokens")


if __name__ == "__main__":
    main()
