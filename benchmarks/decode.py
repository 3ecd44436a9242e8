"""Generation of the same tokens by the same model: tinygpt2 against its peers, in turn.

    python benchmarks/decode.py                                  # 124M, one text, 256 new tokens, fp32
    python benchmarks/decode.py --dtype bf16
    python benchmarks/decode.py --batch-size 8 --tokens 64
    python benchmarks/decode.py --nanogpt PATH --tokens 64       # nanoGPT has no cache, and takes long
    python benchmarks/decode.py --parameters 3M                  # a model as people train it here
    python benchmarks/decode.py --prompt 512 --tokens 1          # reading a prompt
    python benchmarks/decode.py --fewer-bits                     # int8 and bf16 against fp32, CTranslate2 and llama.cpp

All have the same weights and threads and choose greedily; their tokens are compared. Each token reads every weight
once, so in the same turns the machine's rate of reading memory is measured, which is the limit for one text. With fewer
bits, llama.cpp takes part where LLAMA_CPP and NODE_LLAMA_CPP name its directories, as its test in tests/ecosystem says.
"""

import argparse

import torch

from _measure import in_turns, medians, report
from _peers import FEWER_BITS, GENERATION, Work, num_parameters, present
from tinygpt2 import GPT2Config

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

SHAPES = {
    "1M": {"vocab_size": 2000, "n_layer": 4, "n_head": 4, "n_embd": 128},
    "3M": {"vocab_size": 4000, "n_layer": 5, "n_head": 3, "n_embd": 192},
    "5M": {"vocab_size": 4000, "n_layer": 5, "n_head": 4, "n_embd": 256},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="gpt2")
    parser.add_argument("--parameters", choices=SHAPES, help="a small model instead of the preset")
    parser.add_argument("--fewer-bits", action="store_true", help="int8 and bf16 against fp32 and others' int8")
    parser.add_argument("--prompt", type=int, default=8, metavar="N", help="tokens of each prompt")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=256, help="new tokens a text")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nanogpt", metavar="PATH")
    options = parser.parse_args()
    small = {"context_length": 512} | SHAPES[options.parameters] if options.parameters else {}
    config = GPT2Config.preset("gpt2-nano" if small else options.preset, **small, dropout=0.0)
    dtype = DTYPES[options.dtype]
    work = Work(config, options.batch_size, options.tokens, options.nanogpt, dtype, prompt=options.prompt)
    contestants = present(FEWER_BITS if options.fewer_bits else GENERATION, work)
    turns = in_turns(contestants, work, threads=options.threads, rounds=options.rounds, warmup=0)
    same = {name: tokens == turns.answers["tinygpt2"] for name, tokens in turns.answers.items()}
    assert options.fewer_bits or options.dtype != "fp32" or all(same.values()), same

    parameters = num_parameters(config)
    machine = medians(turns.machine)
    positions = config.context_length * config.n_embd
    read = (parameters - positions) * work.dtype.itemsize
    limit = work.batch_size * machine["read"] / read
    reading = work.length == 1  # of the prompt, which is bound by arithmetic
    tokens = work.batch_size * (work.prompt if reading else work.length)
    what = f"{work.prompt} tokens of a prompt" if reading else f"{work.length} new tokens"
    report(
        f"generation, {parameters:,} parameters, {options.dtype}, {work.batch_size} x {what}; "
        f"the same tokens: {all(same.values())}",
        turns.seconds,
        per_run=tokens,
        unit="tokens/s",
        memory=turns.memory,
        machine=machine,
        **({} if reading else {"limit": limit}),
        **vars(options),
    )
    if not reading:
        print(f"reading the weights at {machine['read'] / 1e9:.0f} GB/s: {limit:,.0f} tokens/s")


if __name__ == "__main__":
    main()
