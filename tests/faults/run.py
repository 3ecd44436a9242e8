"""Kills, damages and starves checkpoints, damages other files that are read, and prints what came of it.

    python tests/faults/run.py --kills 200 --files 100000

The tables are those of docs/reliability.md. The exit code is 1 if anything was lost or wrong. Needs Linux;
test_faults.py runs the same with smaller numbers.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import damage
import inputs
import kills
import torch

import tinygpt2


def main() -> int:
    parser = argparse.ArgumentParser(description="Fault tests of tinygpt2's checkpoints.")
    parser.add_argument("--kills", type=int, default=200, help="training runs to kill (default: %(default)s)")
    files_help = "checkpoints to damage, and as many other files (default: %(default)s)"
    parser.add_argument("--files", type=int, default=100_000, help=files_help)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to do (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="other faults with each (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    options = parser.parse_args()
    torch.set_num_threads(1)  # processes are forked, and threads do not survive that

    print(f"tinygpt2 {tinygpt2.__version__}, torch {torch.__version__}, {platform.system()} {platform.machine()}\n")
    report: dict[str, int] = {}
    failures: list[str] = []
    for part in options.parts:
        with directory() as work:
            began = time.perf_counter()
            number, found = PARTS[part](work, options)
            print(f"{time.perf_counter() - began:.0f} s\n", flush=True)
        report[part] = number
        failures += found
    for failure in failures[:50]:
        print(failure, file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps(report | {"failures": failures}, indent=1), encoding="utf-8")
    return bool(failures)


def kill(work: Path, options: argparse.Namespace) -> tuple[int, list[str]]:
    """Kills runs, prints a table, and returns how many and what failed."""
    killed = kills.kill_runs(work, options.kills, options.seed)
    print("| Kills | Runs | While saving | Newest checkpoint did not load | Final bits differed |")
    print("|---|---|---|---|---|")
    print(f"| {killed.kills} | {killed.runs} | {killed.in_a_save} ", end="")
    print(f"| {killed.newest_not_loaded} | {killed.different_bits} |\n")
    return killed.kills, killed.failures


def kill_writers(work: Path, _: argparse.Namespace) -> tuple[int, list[str]]:
    """Kills processes that write a model and losses, likewise."""
    killed, failures = kills.kill_writers(work)
    print(f"{killed} kills of processes that wrote a model and losses: {len(failures)} failures")
    return killed, failures


def damage_checkpoints(work: Path, options: argparse.Namespace) -> tuple[int, list[str]]:
    """Damages checkpoints, likewise."""
    damaged = damage.damage_files(work, options.files, options.seed)
    print("| Damage | Checkpoints | Refused | Loaded, identical | Wrong |\n|---|---|---|---|---|")
    print_counts(damage.KINDS, damaged.files, damaged.refused, damaged.identical, damaged.wrong)
    print(f"{damaged.memory >> 20} MiB of memory at most, {damaged.slowest:.2f} s at most for one")
    return damaged.files.total(), damaged.failures


def damage_inputs(work: Path, options: argparse.Namespace) -> tuple[int, list[str]]:
    """Damages other files, likewise."""
    damaged = inputs.damage_inputs(work, options.files, options.seed)
    print("| Damaged | Files | Refused | Read, as they are | Wrong |\n|---|---|---|---|---|")
    print_counts(inputs.KINDS, damaged.files, damaged.refused, damaged.right, damaged.wrong)
    slowest = f"{damaged.slowest:.2f} s at most for one: {damaged.slowest_of}"
    print(f"{damaged.memory >> 20} MiB of memory at most, {slowest}")
    return damaged.files.total(), damaged.failures


def print_counts(kinds: Iterable[str], *counters: Counter[str]) -> None:
    """Prints the rows of a table."""
    for kind in kinds:
        print(f"| {kind} | {' | '.join(f'{counter[kind]:,}' for counter in counters)} |")
    print(f"| **all** | {' | '.join(f'{counter.total():,}' for counter in counters)} |\n")


PARTS = {"kills": kill, "writers": kill_writers, "files": damage_checkpoints, "inputs": damage_inputs}


@contextmanager
def directory() -> Iterator[Path]:
    """Gives a directory in memory where there is one: a full run writes some gigabytes."""
    memory = Path("/dev/shm")  # noqa: S108
    place = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as path:
        yield Path(path)


if __name__ == "__main__":
    sys.exit(main())
