"""Kills, damages and starves checkpoints, and prints what came of it.

    python tests/faults/run.py --kills 200 --files 100000

The table is that of docs/reliability.md. The exit code is 1 if anything was lost or wrong. Needs Linux;
test_faults.py runs the same with smaller numbers.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import damage
import kills
import torch

import tinygpt2


def main() -> int:
    parser = argparse.ArgumentParser(description="Fault tests of tinygpt2's checkpoints.")
    parser.add_argument("--kills", type=int, default=200, help="training runs to kill (default: %(default)s)")
    parser.add_argument("--files", type=int, default=100_000, help="checkpoints to damage (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="other faults with each (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    options = parser.parse_args()
    torch.set_num_threads(1)  # processes are forked, and threads do not survive that

    print(f"tinygpt2 {tinygpt2.__version__}, torch {torch.__version__}, {platform.system()} {platform.machine()}\n")
    with directory() as work:
        began = time.perf_counter()
        killed = kills.kill_runs(work, options.kills, options.seed)
        seconds = time.perf_counter() - began
    print("| Kills | Runs | While saving | Newest checkpoint did not load | Final bits differed |")
    print("|---|---|---|---|---|")
    print(f"| {killed.kills} | {killed.runs} | {killed.in_a_save} ", end="")
    print(f"| {killed.newest_not_loaded} | {killed.different_bits} |\n\n{seconds:.0f} s\n", flush=True)

    with directory() as work:
        writers, failed = kills.kill_writers(work)
    print(f"{writers} kills of processes that wrote a model and losses: {len(failed)} failures\n", flush=True)

    with directory() as work:
        began = time.perf_counter()
        damaged = damage.damage_files(work, options.files, options.seed)
        seconds = time.perf_counter() - began
    print("| Damage | Checkpoints | Refused | Loaded, identical | Wrong |\n|---|---|---|---|---|")
    for kind in damage.KINDS:
        counts = (counter[kind] for counter in (damaged.files, damaged.refused, damaged.identical, damaged.wrong))
        print(f"| {kind} | {' | '.join(f'{count:,}' for count in counts)} |")
    totals = (counter.total() for counter in (damaged.files, damaged.refused, damaged.identical, damaged.wrong))
    print(f"| **all** | {' | '.join(f'{total:,}' for total in totals)} |\n")
    print(f"{seconds:.0f} s, {damaged.memory >> 20} MiB of memory at most, {damaged.slowest:.2f} s at most for one")

    failures = killed.failures + failed + damaged.failures
    for failure in failures[:50]:
        print(failure, file=sys.stderr)
    if options.json:
        report = {"kills": killed.kills, "files": damaged.files.total(), "failures": failures}
        options.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return bool(failures)


@contextmanager
def directory() -> Iterator[Path]:
    """Gives a directory in memory where there is one: a full run writes some gigabytes."""
    memory = Path("/dev/shm")  # noqa: S108
    place = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as path:
        yield Path(path)


if __name__ == "__main__":
    sys.exit(main())
