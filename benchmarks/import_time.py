"""What ``from tinygpt2 import train, TopKSampler`` costs over ``import torch``, each in fresh processes, in turn.

python benchmarks/import_time.py
"""

import json
import statistics
import subprocess
import sys

from _measure import facts, interleaved

ROUNDS = 10


def main() -> None:
    statements = {"tinygpt2": "from tinygpt2 import train, TopKSampler", "torch": "import torch"}
    seconds = interleaved(
        {
            name: lambda statement=statement: subprocess.run([sys.executable, "-c", statement], check=True)  # type: ignore[misc]
            for name, statement in statements.items()
        },
        rounds=ROUNDS,
    )
    differences = [ours - torch for ours, torch in zip(seconds["tinygpt2"], seconds["torch"], strict=True)]
    for name, runs in seconds.items():
        print(f"{name:10} median {statistics.median(runs):.3f} s, {min(runs):.3f} to {max(runs):.3f}")
    found = {"seconds": seconds, "more_than_torch": statistics.median(differences), **facts()}
    print(json.dumps(found))
    print(f"difference median {statistics.median(differences):.3f} s, {min(differences):.3f} to {max(differences):.3f}")


if __name__ == "__main__":
    main()
