"""How the speed of training and generation goes with context length, model size, batch and threads, in one figure.

    python benchmarks/growth.py OUT.svg [--json OUT.json]

Each point is the median of a few steps; the points of a panel take turns. Peers have no part in this.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch

mpl.use("svg")

import matplotlib.pyplot as plt

from _measure import Step, facts, in_turns, medians
from _peers import Work, num_parameters, tinygpt2, tinygpt2_generates
from tinygpt2 import GPT2Config

PRESETS = ("gpt2-nano", "gpt2-micro", "gpt2-mini", "gpt2")
CONTEXTS = (64, 128, 256, 512, 1024)
BATCHES = (1, 2, 4, 8, 16)


Contestant = Callable[[Work], tuple[Any, Step]]
Points = dict[int, float]


def rates(contestant: Contestant, works: Mapping[int, Work], threads: Mapping[int, int] | int) -> Points:
    """Returns tokens/s of each."""
    found = {}
    for key, work in works.items():
        its_threads = threads if isinstance(threads, int) else threads[key]
        turns = in_turns({"ours": contestant}, work, threads=its_threads, rounds=3, warmup=1)
        found[key] = work.batch_size * work.length / medians(turns.seconds)["ours"]
    return found


def shape(preset: str = "gpt2-mini", length: int = 128) -> GPT2Config:
    return GPT2Config.preset(preset, vocab_size=50257, context_length=length)


def measure(most: int) -> dict[str, dict[str, Points]]:
    """Returns the tokens/s of each line of each panel."""
    sizes = {preset: num_parameters(shape(preset)) for preset in PRESETS}
    threads = {n: n for n in range(1, most + 1)}
    long = shape(length=1024)
    return {
        "context length, tokens": {
            "training, one text": rates(tinygpt2, {n: Work(shape(length=n), 1, n) for n in CONTEXTS}, most),
            "generation, one text": rates(tinygpt2_generates, {n: Work(long, 1, n - 8) for n in CONTEXTS}, most),
        },
        "parameters": {
            "training, 2 x 128": rates(tinygpt2, {sizes[p]: Work(shape(p), 2, 128) for p in PRESETS}, most),
            "generation, one text": rates(tinygpt2_generates, {sizes[p]: Work(shape(p), 1, 64) for p in PRESETS}, most),
        },
        "batch size": {
            "training, x 128": rates(tinygpt2, {n: Work(shape(), n, 128) for n in BATCHES}, most),
            "generation": rates(tinygpt2_generates, {n: Work(shape(), n, 64) for n in BATCHES}, most),
        },
        "threads": {
            "training, 2 x 128": rates(tinygpt2, dict.fromkeys(threads, Work(shape(), 2, 128)), threads),
            "generation, one text": rates(tinygpt2_generates, dict.fromkeys(threads, Work(shape(), 1, 64)), threads),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    panels = measure(options.threads)
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.5), layout="constrained")
    for axis, (label, lines) in zip(axes.flat, panels.items(), strict=True):
        for name, points in lines.items():
            axis.plot(list(points), list(points.values()), marker="o", label=name)
        axis.set(xlabel=label, ylabel="tokens/s", xscale="log", yscale="log")
        ticks = list(next(iter(lines.values())))
        names = [f"{n / 1e6:.0f}M" if n > 10**6 else str(n) for n in ticks]
        axis.set_xticks(ticks, names, rotation=30 if label == "parameters" else 0)
        axis.xaxis.set_minor_formatter("")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    figure.savefig(options.out)
    if options.json:
        options.json.write_text(json.dumps({"panels": panels, **facts()}), encoding="utf-8")


if __name__ == "__main__":
    main()
