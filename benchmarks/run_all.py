"""Every benchmark against its goal, in one table, with all that was measured as JSON.

    python benchmarks/run_all.py --nanogpt PATH --text FILE [--out results.json] [--only NAME ...]

It takes half an hour on two cores, and wants a machine that does nothing else. Peers are installed with
pip install transformers ctranslate2 && pip install --no-deps llms-from-scratch; nanoGPT is a checkout; for llama.cpp
see decode.py; FILE is any UTF-8 text.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """A line of the table: a benchmark, its arguments, and what it is to reach."""

    name: str
    command: tuple[str, ...]
    goal: str

    def measured(self, found: dict[str, Any]) -> str:
        """Returns what counts of a benchmark's JSON, in a line."""
        if "memory_share" in found:
            return ", ".join(f"{share:.2f} x {name}" for name, share in found["memory_share"].items())
        if "share_of_a_step" in found:
            return ", ".join(f"{share:.3%} {name}" for name, share in found["share_of_a_step"].items())
        if "more_than_torch" in found:
            return f"{found['more_than_torch']:.3f} s"
        rows = found["results"]
        first, *others = rows
        text = f"{rows[first]['median']:,.1f} {found['unit']}: " + ", ".join(
            f"{rows[name]['ratio']:.2f} x {name} ({rows[name]['lowest_ratio']:.2f} to "
            f"{rows[name]['highest_ratio']:.2f})"
            for name in others
        )
        machine = found.get("machine", {})
        if "operations_a_second" in found:
            shares = [f"{found['operations_a_second'] / rate:.0%} of {name}" for name, rate in machine.items()
                      if name.startswith("sgemm")]  # fmt: skip
            text += "; " + ", ".join(shares)
        if "limit" in found and "tinygpt2" in rows:
            text += f"; {rows['tinygpt2']['median'] / found['limit']:.0%} of reading the weights"
        return text


def rows(nanogpt: str | None, text: str | None) -> list[Row]:
    peer = ("--nanogpt", nanogpt) if nanogpt else ()
    found = [
        Row("train 124M, 2 x 128, dropout 0.1", ("train_step.py", *peer), "2.0 x each, 85% of sgemm"),
        Row("train 124M, 2 x 128, dropout 0", ("train_step.py", "--dropout", "0", *peer), "1.55 x nanoGPT"),
        Row("train 0.8M, 12 x 64, characters", ("train_step.py", "--small", *peer), "1.4 x nanoGPT"),
        Row("memory of a step, 124M, 8 x 1024", ("memory.py", *peer), "0.6 x nanoGPT"),
        Row("generate 124M, 1 x 64, fp32", ("decode.py", "--tokens", "64"), "2.5 x transformers, 80% of reading"),
        Row("the same, one thread", ("decode.py", "--tokens", "64", "--threads", "1"), "2.5 x transformers"),
        Row("the same, fewer bits", ("decode.py", "--tokens", "64", "--fewer-bits"), "int8 3 x fp32, bf16 1.5 x fp32"),
        Row("the same, one thread, fewer bits", ("decode.py", "--tokens", "64", "--fewer-bits", "--threads", "1"), ""),
        Row("generate 124M, 8 x 32, fp32", ("decode.py", "--batch-size", "8", "--tokens", "32"), "5 x one text"),
        Row("read 512 tokens, 124M", ("decode.py", "--prompt", "512", "--tokens", "1"), "1 x transformers"),
        Row("past a window of 128, 124M", ("overflow.py",), "1.2 x a token inside"),
        *(
            Row(
                f"generate {size}, 1 x 200, fp32",
                ("decode.py", "--parameters", size, "--tokens", "200"),
                "2,000 tokens/s, 5 x transformers",
            )
            for size in ("1M", "3M", "5M")
        ),
        Row("next batch", ("loader.py",), "0.5% of a step"),
        Row("import", ("import_time.py",), "0.1 s more than torch"),
    ]
    if text:
        found.append(Row("tokenise 100 MB", ("tokenise.py", text), "1.8 x tiktoken, 500 MB"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", metavar="PATH")
    parser.add_argument("--text", metavar="FILE")
    parser.add_argument("--out", type=Path, default=Path("benchmarks.json"))
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="rows whose name has one of these in it")
    options = parser.parse_args()
    results = []
    for row in rows(options.nanogpt, options.text):
        if options.only and not any(part in row.name for part in options.only):
            continue
        began = time.perf_counter()
        print(f"{row.name} ...", file=sys.stderr)
        script, *arguments = row.command
        run = subprocess.run([sys.executable, HERE / script, *arguments], stdout=subprocess.PIPE, text=True, check=True)
        found = next(json.loads(line) for line in run.stdout.splitlines() if line.startswith("{"))
        results.append({"name": row.name, "goal": row.goal, "command": " ".join(row.command), **found})
        print(f"| {row.name} | {row.goal} | {row.measured(found)} |", flush=True)
        print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
