"""How the benchmarks measure: contestants in turn, medians with spread, a table, and one line of JSON."""

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

import tinygpt2


def interleaved(
    contestants: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 2
) -> dict[str, list[float]]:
    """Returns the seconds of each contestant's runs; they take turns, so that a machine that drifts drifts for all."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(warmup + rounds):
        for name, run in contestants.items():
            began = time.perf_counter()
            run()
            if round_ >= warmup:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def report(title: str, seconds: Mapping[str, list[float]], *, per_run: float, unit: str, **facts: Any) -> None:  # noqa: ANN401
    """Prints a table with the first contestant's advantage, round by round, and the same as JSON.

    Args:
        title: What was measured.
        seconds: What `interleaved` returned; the first contestant is ours.
        per_run: How many units of work a run does.
        unit: Such as "tokens/s".
        **facts: Shapes and settings for the JSON line.
    """
    ours = next(iter(seconds))
    print(f"{title}\n\n{'':24}{'median':>12}{'lowest':>12}{'highest':>12}   {ours} is faster by")
    rows = {}
    for name, runs in seconds.items():
        rates = sorted(per_run / run for run in runs)
        ratio = statistics.median(theirs / mine for theirs, mine in zip(runs, seconds[ours], strict=True))
        rows[name] = {"median": statistics.median(rates), "lowest": rates[0], "highest": rates[-1], "ratio": ratio}
        advantage = "" if name == ours else f"   {ratio:.2f}"
        print(f"{name:24}{statistics.median(rates):12,.1f}{rates[0]:12,.1f}{rates[-1]:12,.1f}{advantage}")
    machine = {
        "tinygpt2": tinygpt2.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
    }
    print(f"\n{json.dumps({'title': title, 'unit': unit, 'results': rows, **facts, **machine})}\n")
