"""Generation of the same tokens by the same model: tinygpt2 against its peers, in turn.

    python benchmarks/decode.py                                  # 124M, one text, 256 new tokens, fp32
    python benchmarks/decode.py --dtype bf16
    python benchmarks/decode.py --batch-size 8 --tokens 64
    python benchmarks/decode.py --nanogpt PATH --tokens 64       # nanoGPT has no cache, and takes long

All have the same weights and threads and choose greedily; their tokens are compared. Each token reads every weight
once, so in the same turns the machine's rate of reading memory is measured, which is the limit for one text.
"""

import argparse

import torch

from _measure import in_turns, medians, report
from _peers import GENERATION, Work, num_parameters, present
from tinygpt2 import GPT2Config

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="gpt2")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=256, help="new tokens a text")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nanogpt", metavar="PATH")
    options = parser.parse_args()
    config = GPT2Config.preset(options.preset, dropout=0.0)
    work = Work(config, options.batch_size, options.tokens, options.nanogpt, DTYPES[options.dtype])
    contestants = present(GENERATION, work)
    turns = in_turns(contestants, work, threads=options.threads, rounds=options.rounds, warmup=0)
    same = {name: tokens == turns.answers["tinygpt2"] for name, tokens in turns.answers.items()}
    assert options.dtype != "fp32" or all(same.values()), same

    parameters = num_parameters(config)
    machine = medians(turns.machine)
    positions = config.context_length * config.n_embd
    read = (parameters - positions) * work.dtype.itemsize
    limit = work.batch_size * machine["read"] / read
    tokens = work.batch_size * work.length
    report(
        f"generation, {parameters:,} parameters, {options.dtype}, {work.batch_size} x {work.length} new tokens; "
        f"the same tokens: {all(same.values())}",
        turns.seconds,
        per_run=tokens,
        unit="tokens/s",
        memory=turns.memory,
        machine=machine,
        limit=limit,
        **vars(options),
    )
    print(f"reading the weights at {machine['read'] / 1e9:.0f} GB/s: {limit:,.0f} tokens/s")


if __name__ == "__main__":
    main()
