"""A training step, or a generation, with one thing turned off that makes it fast, in processes that take turns.

python benchmarks/ablation.py                    # 124M, batch 2 x 128, dropout 0.1
python benchmarks/ablation.py --dropout 0
python benchmarks/ablation.py --small            # 0.8M parameters, characters, batch 12 x 64
python benchmarks/ablation.py --generate         # 64 new tokens of one text, instead of a training step
"""

import argparse
import functools
import os
from contextlib import ExitStack

import torch

from _measure import Step, in_turns, report
from _peers import GENERATION, Work, tinygpt2
from tinygpt2 import GPT2Config
from tinygpt2._internal.cpu import KEEP_MEMORY, ONEDNN
from tinygpt2.kernels.switch import without_kernels
from train_step import SMALL

TRAINING = {"oneDNN": ONEDNN, "kept memory": KEEP_MEMORY, "dropout": "", "attention": "", "cross_entropy": ""}
GENERATING = {"oneDNN": ONEDNN, "linear": "", "attention": ""}

SWITCHED_OFF = ExitStack()  # for as long as a process lives


def without(parts: tuple[str, ...], work: Work, *, generate: bool) -> tuple[object, Step]:
    """Returns the contestant, in a process of its own, in which these parts are switched off."""
    switches = TRAINING | GENERATING
    os.environ |= {switches[part]: "0" for part in parts if switches[part]}
    if kernels := [part for part in parts if not switches[part]]:
        SWITCHED_OFF.enter_context(without_kernels(*kernels))
    return GENERATION["tinygpt2"](work) if generate else tinygpt2(work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="0.8M parameters, characters")
    parser.add_argument("--generate", action="store_true", help="generate instead of training")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    shape: dict[str, int] = SMALL if options.small else {"context_length": 128}
    config = GPT2Config(**shape, dropout=options.dropout)  # type: ignore[arg-type]
    work = Work(config, 12, 64) if options.small else Work(config, 2, 128)
    if options.generate:
        work = Work(config, 1, 32 if options.small else 64)
    parts = tuple(GENERATING if options.generate else TRAINING)
    cases = {"tinygpt2": (), **{f"without {part}": (part,) for part in parts}, "without all of them": parts}
    turns = in_turns(
        {name: functools.partial(without, off, generate=options.generate) for name, off in cases.items()},
        work,
        threads=options.threads,
        rounds=options.rounds,
        steps=20 if options.small and not options.generate else 1,
    )
    kind = "generation" if options.generate else "training step"
    title = f"{kind}, {work.batch_size} x {work.length} tokens, dropout {options.dropout}"
    report(title, turns.seconds, per_run=1, unit="steps/s", **vars(options))


if __name__ == "__main__":
    main()
