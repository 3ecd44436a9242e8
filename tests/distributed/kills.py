"""Kills one of two processes that train together, again and again, and compares what is left with a run left alone.

    python tests/distributed/kills.py [--kills 20] [--seed 0]

A checkpoint is saved after every step, so that many kills come within a save. The exit code is 1 if anything was lost.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tinygpt2 import newest_checkpoint
from tinygpt2.run.directory import RunDirectory

WORKER = Path(__file__).with_name("worker.py")
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(WORKER)]
BOUND = 30  # seconds in which the others must have ended
FILES = ("model.safetensors", "training_state.safetensors")


def start(directory: Path, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*LAUNCH, str(directory), "--every", "1", "--dropout", "0.1", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance, failures = random.Random(options.seed), list[str]()  # noqa: S311 - of a test
    named = slow = in_saves = 0
    longest = 0.0
    with tempfile.TemporaryDirectory() as place:
        whole, killed = Path(place) / "whole", Path(place) / "killed"
        steps = f"{3 * options.kills}"
        assert start(whole, "--steps", steps).wait() == 0
        for number in range(options.kills):
            process = start(killed, "--steps", steps, *(["--resume"] if RunDirectory(killed).checkpoints() else []))
            assert process.stdout is not None
            pids: dict[int, int] = {}
            said = ""
            while len(pids) < 2 or f"step {2 * number + 1}\n" not in said:
                line = process.stdout.readline()
                if not line:
                    break
                said += line
                if found := re.fullmatch(r"pid (\d) (\d+)\n", line):
                    pids[int(found[1])] = int(found[2])
            time.sleep(chance.random() * 0.05)
            rank = chance.randrange(2)
            in_saves += any(path.name.startswith(".") for path in killed.iterdir())
            os.kill(pids[rank], signal.SIGKILL)
            began = time.monotonic()
            said += process.communicate()[0]
            took = time.monotonic() - began
            longest, slow = max(longest, took), slow + (took > BOUND)
            named += f"rank {1 - rank}: LostRankError: rank {rank} of 2 " in said
            try:
                newest_checkpoint(killed)
            except (OSError, ValueError) as error:
                failures.append(f"after kill {number + 1}: {error}")
        resumed = start(killed, "--steps", steps, "--resume")
        if resumed.wait():
            failures.append("the run did not resume")
        else:
            failures += [
                f"{name} differs"
                for name in FILES
                if len({(run / f"checkpoint-{steps}" / name).read_bytes() for run in (whole, killed)}) > 1
            ]
    print(
        "| Kills | While a checkpoint was written | Named by the other | Longest end | No checkpoint, or other bits |"
    )
    print("|---|---|---|---|---|")
    print(f"| {options.kills} | {in_saves} | {named} | {longest:.1f} s | {len(failures)} |")
    print(*failures, sep="\n", file=sys.stderr)
    return bool(failures or slow)


if __name__ == "__main__":
    sys.exit(main())
