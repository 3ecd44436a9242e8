"""A training step with one thing at a time turned off that makes it fast, in processes that take turns.

python benchmarks/ablation.py                    # 124M, batch 2 x 128, dropout 0.1
python benchmarks/ablation.py --dropout 0
python benchmarks/ablation.py --small            # 0.8M parameters, characters, batch 12 x 64
"""

import argparse
import functools
import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from _measure import Step, in_turns, report
from _peers import Work, tinygpt2
from tinygpt2 import GPT2Config, GPT2Model, _cpu, _dropout, model, training
from tinygpt2.losses import summed_cross_entropy
from train_step import SMALL

PARTS = ("oneDNN", "kept memory", "dropout", "attention", "head and loss in one")


def plain_attention(query: Tensor, key: Tensor, value: Tensor, p: float) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, dropout_p=p, is_causal=True)


def plain_loss(gpt: GPT2Model, inputs: Tensor, targets: Tensor, scale: float) -> Tensor:
    return summed_cross_entropy(gpt(inputs), targets) * scale


def without(parts: tuple[str, ...], work: Work) -> tuple[float, Step]:
    """Returns the contestant, in a process of its own, after these parts were replaced by PyTorch's."""
    switches = {"oneDNN": _cpu.ONEDNN, "kept memory": _cpu.KEEP_MEMORY}
    os.environ |= {switches[part]: "0" for part in parts if part in switches}
    replaced: dict[str, list[tuple[Any, str, Any]]] = {
        "dropout": [(model, "dropout", F.dropout), (_dropout, "dropout", F.dropout)],
        "attention": [(model, "_causal_attention", plain_attention)],
        "head and loss in one": [(training._take_step, "__defaults__", (plain_loss,))],
    }
    for part in parts:
        for place, name, value in replaced.get(part, []):
            setattr(place, name, value)
    return tinygpt2(work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="0.8M parameters, characters")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    shape: dict[str, int] = SMALL if options.small else {"context_length": 128}
    config = GPT2Config(**shape, dropout=options.dropout)  # type: ignore[arg-type]
    work = Work(config, 12, 64) if options.small else Work(config, 2, 128)
    cases = {"tinygpt2": (), **{f"without {part}": (part,) for part in PARTS}, "without all of them": PARTS}
    turns = in_turns(
        {name: functools.partial(without, parts) for name, parts in cases.items()},
        work,
        threads=options.threads,
        rounds=options.rounds,
        steps=20 if options.small else 1,
    )
    title = f"training step, {work.batch_size} x {work.length} tokens, dropout {options.dropout}"
    report(title, turns.seconds, per_run=1, unit="steps/s", **vars(options))


if __name__ == "__main__":
    main()
