"""One process, and several at a time on the same cores, with the waiting of threads as it is and otherwise.

    python benchmarks/processes.py                    # generation and training, alone and two at a time
    python benchmarks/processes.py --seconds 20

Each process says how many tokens a second it made; all of a row begin together.
"""

import argparse
import os
import subprocess
import sys
import time

import torch

from _measure import Step
from _peers import Work, tinygpt2
from tinygpt2 import GPT2Config, generate

SETTINGS = {"as it is": {}, "passive": {"OMP_WAIT_POLICY": "passive"}, "one thread": {"OMP_NUM_THREADS": "1"}}


def generation(seconds: float) -> float:
    """Returns the tokens a second that the 124M model writes."""
    work = Work(GPT2Config.preset("gpt2", dropout=0.0), 1, 16)
    model, prompts = work.model(), work.prompts()
    return _rate(lambda: generate(model, prompts, max_new_tokens=work.length), work.length, seconds)


def training(seconds: float) -> float:
    """Returns the tokens a second on which a small model is trained."""
    shape = {"vocab_size": 4000, "context_length": 64, "n_layer": 3, "n_head": 3, "n_embd": 192}
    work = Work(GPT2Config.preset("gpt2-nano", **shape, dropout=0.1), 12, 64)
    _, step = tinygpt2(work)
    return _rate(step, work.batch_size * work.length, seconds)


WORK = {"generate 124M": generation, "train 2M, 12 x 64": training}


def _rate(step: Step, tokens: int, seconds: float) -> float:
    step()
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        step()
        steps += 1
    return steps * tokens / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--work", choices=WORK, help=argparse.SUPPRESS)  # what one process does
    options = parser.parse_args()
    if options.work:
        print(f"{WORK[options.work](options.seconds):,.0f}")
        return
    print(f"tokens/s, {torch.get_num_threads()} cores")
    for work in WORK:
        for name, environment in SETTINGS.items():
            for count in (1, 2):
                command = [sys.executable, __file__, "--work", work, "--seconds", str(options.seconds)]
                runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment)
                        for _ in range(count)]  # fmt: skip
                found = [run.communicate()[0].strip() for run in runs]
                print(f"{work:18} {name:10} {count} at a time: {' and '.join(found)}", flush=True)


if __name__ == "__main__":
    main()
