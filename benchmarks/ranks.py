"""The same training by one process on all threads and by several that share them.

    python benchmarks/ranks.py                       # 124M, 8 x 128 tokens, 2 threads: 1 x 2 against 2 x 1
    python benchmarks/ranks.py --preset gpt2-nano --batch-size 16

Each run is a fresh process or `torchrun`, which calls `train`; they take turns. Measured are steps on rank 0, without
the first ones. The rate at which the processes average their gradients is measured, too.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from typing_extensions import override

from _measure import report
from _peers import num_parameters
from tinygpt2 import Callback, GPT2Config, GPT2Model, TrainingConfig, TrainState, make_dataloader, train

WARMUP = 2


class StepTimes(Callback):
    """Notes when each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    @override
    def on_step(self, state: TrainState) -> None:
        self.ends.append(time.perf_counter())


def work(options: argparse.Namespace) -> None:
    """Trains, as one of the processes; rank 0 prints the seconds of each step and of averaging the gradients."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = GPT2Config.preset(options.preset, dropout=0.0, context_length=options.length)
    rows = options.batch_size * (WARMUP + options.steps)
    ids = torch.randint(config.vocab_size, (rows * options.length + 1,), generator=torch.Generator().manual_seed(0))
    loader = make_dataloader(ids, batch_size=options.batch_size, context_length=options.length)
    times, model = StepTimes(), GPT2Model(config)
    train(model, loader, config=TrainingConfig(epochs=1, optimizer=options.optimizer), callbacks=[times],
          progress=False, device="cpu")  # fmt: skip
    averaging = 0.0
    if dist.is_initialized():
        gradients = torch.zeros(model.num_parameters())
        began = time.perf_counter()
        for _ in range(3):
            dist.all_reduce(gradients)
        averaging = (time.perf_counter() - began) / 3
    if int(os.environ.get("RANK", "0")) == 0:
        steps = [end - begin for begin, end in zip(times.ends, times.ends[1:], strict=False)]
        print(json.dumps({"seconds": steps[WARMUP - 1 :], "averaging": averaging}))


def run(processes: int, threads: int, arguments: list[str]) -> dict[str, object]:
    """Returns what a run with so many processes and threads of each prints."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), str(Path(__file__).resolve()), *arguments,
               "--worker", "--threads", str(threads)]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="gpt2")
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="adamw")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5, help="of a run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of all processes together")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options)
        return
    seconds: dict[str, list[float]] = {}
    averaging: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for processes in options.processes:
            threads = max(1, options.threads // processes)
            name = f"{processes} x {threads} threads"
            found = run(processes, threads, sys.argv[1:])
            times = found["seconds"]
            assert isinstance(times, list)
            seconds.setdefault(name, []).append(statistics.median(times))
            averaging.setdefault(name, []).append(float(str(found["averaging"])))
            print(".", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    config = GPT2Config.preset(options.preset, context_length=options.length)
    tokens = options.batch_size * options.length
    title = f"training by train, {num_parameters(config):,} parameters, {options.batch_size} x {options.length} tokens"
    report(f"{title}, {options.optimizer}", seconds, per_run=tokens, unit="tokens/s", averaging=averaging,
           **{key: value for key, value in vars(options).items() if key != "worker"})  # fmt: skip
    for name, taken in averaging.items():
        if any(taken):
            share = statistics.median(taken) / statistics.median(seconds[name])
            print(
                f"{name}: averaging the gradients takes {1e3 * statistics.median(taken):.0f} ms, {share:.0%} of a step"
            )


if __name__ == "__main__":
    main()
