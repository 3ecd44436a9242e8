"""The largest memory of a training step: tinygpt2 against its peers, each in a process of its own, one after another.

    python benchmarks/memory.py --nanogpt PATH                   # 124M, batch 8 x 1024, no dropout

A first step on a few tokens makes the optimizer's state; the second is the one that counts.
"""

import argparse
import json
import multiprocessing
from dataclasses import replace
from multiprocessing.connection import Connection

import torch

from _measure import facts, largest_memory
from _peers import TRAINING, Work, present
from tinygpt2 import GPT2Config


def serve(name: str, work: Work, threads: int, connection: Connection) -> None:
    torch.set_num_threads(threads)
    batches = [replace(work, batch_size=1, length=8).batch(), work.batch()]
    # One batch after the other in the same place, since contestants ask for it once.
    inputs, targets = (torch.empty(0, dtype=torch.int64) for _ in range(2))

    def fill(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        for place, values in zip((inputs, targets), batch, strict=True):
            place.resize_(values.shape).copy_(values)

    fill(batches[0])
    Work.batch = lambda self: (inputs, targets)  # type: ignore[method-assign] # noqa: ARG005
    _, step = TRAINING[name](work)
    step()
    connection.send(largest_memory())
    fill(batches[1])
    step()
    connection.send(largest_memory())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="gpt2")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--nanogpt", metavar="PATH")
    options = parser.parse_args()
    config = GPT2Config.preset(options.preset, context_length=options.length, dropout=options.dropout)
    work = Work(config, options.batch_size, options.length, options.nanogpt)
    context = multiprocessing.get_context("spawn")
    before, memory = {}, {}
    for name in present(TRAINING, work):
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(name, work, options.threads, theirs), daemon=True)
        process.start()
        before[name], memory[name] = ours.recv(), ours.recv()
        process.join()
    title = f"memory of a training step, {options.preset}, {options.batch_size} x {options.length} tokens"
    print(f"{title}, dropout {options.dropout}\n\n{'GB':24}{'small batch':>12}{'the batch':>12}   tinygpt2 needs")
    for name, used in memory.items():
        share = "" if name == "tinygpt2" else f"   {memory['tinygpt2'] / used:.2f}"
        print(f"{name:24}{before[name] / 1e9:12.2f}{used / 1e9:12.2f}{share}")
    shares = {name: memory["tinygpt2"] / used for name, used in memory.items() if name != "tinygpt2"}
    found = {"title": title, "memory": memory, "before": before, "memory_share": shares}
    print(f"\n{json.dumps({**found, **vars(options), **facts()})}")


if __name__ == "__main__":
    main()
