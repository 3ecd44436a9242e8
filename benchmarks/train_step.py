"""A training step of the same model on the same batch: tinygpt2 against its peers, in turn.

    python benchmarks/train_step.py --nanogpt PATH                     # 124M, batch 2 x 128, dropout 0.1
    python benchmarks/train_step.py --nanogpt PATH --small             # 0.8M parameters, characters, batch 12 x 64

transformers and llms-from-scratch take part where they are installed (pip install --no-deps llms-from-scratch),
nanoGPT from a checkout. All have the same weights, AdamW, gradient clipping, dtype (fp32) and threads; before anything
is timed, their losses on the batch are compared, without dropout. Each has a process of its own. In the same turns the
machine's own rate of multiplying fp32 matrices is measured, which is the limit.
"""

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
from multiprocessing.connection import Connection

import torch

from _measure import report
from _peers import CONTESTANTS, Work, present
from tinygpt2 import GPT2Config, GPT2Model

SMALL = {"vocab_size": 65, "context_length": 64, "n_layer": 4, "n_head": 4, "n_embd": 128}
WARMUP = 2


def serve(name: str, work: Work, connection: Connection) -> None:
    """Runs so many steps at each request, and answers with the seconds; at the end with the largest memory."""
    torch.set_num_threads(work.threads)
    loss, step = CONTESTANTS[name](work)
    connection.send(loss)
    while (steps := connection.recv()) is not None:
        began = time.perf_counter()
        for _ in range(steps):
            step()
        connection.send((time.perf_counter() - began) / steps)
    connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def sgemm_rate(n: int = 2048) -> float:
    """Returns the rate of a product of two square matrices, in floating-point operations a second."""
    left, right = torch.randn(n, n), torch.randn(n, n)
    began = time.perf_counter()
    left @ right
    return 2 * n**3 / (time.perf_counter() - began)


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
    work = Work(config, options.batch_size or (12 if options.small else 2), length, options.threads, options.nanogpt)
    steps = options.steps or (20 if options.small else 1)
    seconds, losses, memory, rates = measure(work, steps, options.rounds)
    worst = max(abs(loss - losses["tinygpt2"]) for loss in losses.values())
    assert worst < 1e-4, losses

    tokens = work.batch_size * work.length
    with torch.device("meta"):
        parameters = GPT2Model(config).num_parameters()
    rate = statistics.median(rates)
    report(
        f"training step, {parameters:,} parameters, {work.batch_size} x {length} tokens, dropout {options.dropout}; "
        f"losses agree to {worst:.0e}; tokens/s",
        seconds,
        per_run=tokens,
        unit="tokens/s",
        memory=memory,
        sgemm=rate,
        **vars(options),
    )
    done = operations(work) / statistics.median(seconds["tinygpt2"]) / rate
    limit = tokens * rate / operations(work)
    print(f"sgemm {rate / 1e9:.0f} GFLOP/s: {limit:,.0f} tokens/s at most, of which tinygpt2 has {done:.0%}")
    for name, used in memory.items():
        print(f"{name}: {used / 1e9:.2f} GB of memory at most")


def measure(
    work: Work, steps: int, rounds: int
) -> tuple[dict[str, list[float]], dict[str, float], dict[str, int], list[float]]:
    """Returns the seconds a step of each contestant, its loss, its memory, and the machine's rates."""
    context = multiprocessing.get_context("spawn")
    torch.set_num_threads(work.threads)
    connections, processes, losses = {}, [], {}
    for name in present(work):
        connections[name], theirs = context.Pipe()
        process = context.Process(target=serve, args=(name, work, theirs), daemon=True)
        process.start()
        processes.append(process)
        losses[name] = connections[name].recv()
    seconds: dict[str, list[float]] = {name: [] for name in connections}
    rates = []
    for round_ in range(WARMUP + rounds):
        for name, connection in connections.items():
            connection.send(steps)
            taken = connection.recv()
            if round_ >= WARMUP:
                seconds[name].append(taken)
        rates.append(max(sgemm_rate() for _ in range(3)))
        print(".", end="", flush=True, file=sys.stderr)
    memory = {}
    for name, connection in connections.items():
        connection.send(None)
        memory[name] = connection.recv()
    for process in processes:
        process.join()
    print(file=sys.stderr)
    return seconds, losses, memory, rates


if __name__ == "__main__":
    main()
