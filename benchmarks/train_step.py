"""A training step of the same model on the same batch: tinygpt2 against its peers, in turn.

    python benchmarks/train_step.py --nanogpt PATH                     # 124M, batch 2 x 128, dropout 0.1
    python benchmarks/train_step.py --nanogpt PATH --small             # 0.8M parameters, characters, batch 12 x 64

transformers and llms-from-scratch take part where they are installed (pip install --no-deps llms-from-scratch),
nanoGPT from a checkout. All have the same weights, AdamW, gradient clipping, dtype (fp32) and threads; before anything
is timed, their losses on the batch are compared, without dropout. Each has a process of its own. In the same turns the
machine's own rate of multiplying fp32 matrices is measured, which is the limit.
"""

import argparse
import statistics

import torch

from _measure import in_turns, medians, report
from _peers import TRAINING, Work, num_parameters, present
from tinygpt2 import GPT2Config

SMALL = {"vocab_size": 65, "context_length": 64, "n_layer": 4, "n_head": 4, "n_embd": 128}


def operations(work: Work) -> float:
    """Returns the multiplications and additions of a step: 6 a token and weight of a matrix, 12 of attention."""
    config = work.config
    matrices = 12 * config.n_layer * config.n_embd**2 + config.vocab_size * config.n_embd
    attention = config.n_layer * config.n_embd * work.length
    return work.batch_size * work.length * (6 * matrices + 12 * attention)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="gpt2")
    parser.add_argument("--small", action="store_true", help="0.8M parameters, characters")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--length", type=int, help="tokens of a window")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, help="steps in a round")
    parser.add_argument("--nanogpt", metavar="PATH")
    options = parser.parse_args()
    length = options.length or (64 if options.small else 128)
    shape = SMALL if options.small else {}
    preset = "gpt2-nano" if options.small else options.preset
    config = GPT2Config.preset(preset, **({"context_length": max(length, 128)} | shape), dropout=options.dropout)
    work = Work(config, options.batch_size or (12 if options.small else 2), length, options.nanogpt)
    turns = in_turns(
        present(TRAINING, work),
        work,
        threads=options.threads,
        rounds=options.rounds,
        steps=options.steps or (20 if options.small else 1),
    )
    worst = max(abs(loss - turns.answers["tinygpt2"]) for loss in turns.answers.values())
    assert worst < 1e-4, turns.answers

    tokens = work.batch_size * work.length
    parameters = num_parameters(config)
    machine = medians(turns.machine)
    done = operations(work) / statistics.median(turns.seconds["tinygpt2"])
    report(
        f"training step, {parameters:,} parameters, {work.batch_size} x {length} tokens, dropout {options.dropout}; "
        f"losses agree to {worst:.0e}",
        turns.seconds,
        per_run=tokens,
        unit="tokens/s",
        memory=turns.memory,
        machine=machine,
        operations_a_second=done,
        **vars(options),
    )
    for name in ("sgemm", "sgemm, oneDNN where it is used"):
        limit = tokens * machine[name] / operations(work)
        print(f"{name}: {machine[name] / 1e9:.0f} GFLOP/s, {limit:,.0f} tokens/s; tinygpt2 {done / machine[name]:.0%}")
    for name, used in turns.memory.items():
        print(f"{name}: {used / 1e9:.2f} GB of memory at most")


if __name__ == "__main__":
    main()
