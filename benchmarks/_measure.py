"""How the benchmarks measure: contestants in turn, medians with spread, a table, and one line of JSON."""

import json
import multiprocessing
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import torch

import tinygpt2
from tinygpt2._internal.cpu import fast_products

Step = Callable[[], object]
Work = TypeVar("Work")


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


@dataclass
class Turns:
    """What contestants in processes of their own did: seconds a step, an answer to compare, the largest memory."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    machine: dict[str, list[float]] = field(default_factory=dict)


def in_turns(
    contestants: Mapping[str, Callable[[Work], tuple[Any, Step]]],
    work: Work,
    *,
    threads: int,
    rounds: int,
    steps: int = 1,
    warmup: int = 2,
) -> Turns:
    """Gives each contestant a process, so that none has the allocator or the patches of another, and each its turns.

    A contestant is a function from the work to an answer that must be the same for all, and a step to repeat. In each
    round the machine's own limits are measured as well.
    """
    context = multiprocessing.get_context("spawn")
    torch.set_num_threads(threads)
    turns, connections, processes = Turns(), {}, []
    for name, contestant in contestants.items():
        connections[name], theirs = context.Pipe()
        process = context.Process(target=_serve, args=(contestant, work, threads, theirs), daemon=True)
        process.start()
        processes.append(process)
        turns.answers[name] = connections[name].recv()
        turns.seconds[name] = []
    for round_ in range(warmup + rounds):
        for name, connection in connections.items():
            connection.send(steps)
            taken = connection.recv()
            if round_ >= warmup:
                turns.seconds[name].append(taken)
        for name, limit in limits().items():
            turns.machine.setdefault(name, []).append(limit)
        print(".", end="", flush=True, file=sys.stderr)
    for name, connection in connections.items():
        connection.send(None)
        turns.memory[name] = connection.recv()
    for process in processes:
        process.join()
    print(file=sys.stderr)
    return turns


def _serve(contestant: Callable[[Work], tuple[Any, Step]], work: Work, threads: int, connection: Connection) -> None:
    """Makes so many steps at each request, and answers with the seconds a step; at the end with the largest memory."""
    torch.set_num_threads(threads)
    answer, step = contestant(work)
    connection.send(answer)
    while (steps := connection.recv()) is not None:
        began = time.perf_counter()
        for _ in range(steps):
            step()
        connection.send((time.perf_counter() - began) / steps)
    connection.send(largest_memory())


def largest_memory() -> int:
    """Returns the most bytes this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limits() -> dict[str, float]:
    """Returns what the machine can do at all, with PyTorch's kernels: operations and bytes a second."""
    n = 2048
    left, right, out = torch.randn(3, n, n).unbind(0)
    block = torch.zeros(1 << 26)  # 256 MB
    target = torch.empty_like(block)

    def rate(work: float, run: Callable[[], object]) -> float:
        times = []
        for _ in range(3):
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
        return work / min(times)

    found = {"sgemm": rate(2 * n**3, lambda: torch.mm(left, right, out=out))}
    with fast_products():
        found["sgemm, oneDNN where it is used"] = rate(2 * n**3, lambda: torch.mm(left, right, out=out))
    found["read"] = rate(block.nbytes, block.sum)
    found["copy"] = rate(2 * block.nbytes, lambda: target.copy_(block))
    return found


def facts() -> dict[str, object]:
    """Returns what a measurement depends on besides the code."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = dict(line.split(":", 1) for line in cpuinfo.read_text(encoding="utf-8").splitlines() if ":" in line)
        names = {name.strip(): value.strip() for name, value in lines.items()}
        processor = f"{names.get('model name')}, family {names.get('cpu family')}, model {names.get('model')}"
    return {
        "tinygpt2": tinygpt2.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": processor,
        "threads": torch.get_num_threads(),
    }


def medians(values: Mapping[str, Iterable[float]]) -> dict[str, float]:
    return {name: statistics.median(those) for name, those in values.items()}


def report(title: str, seconds: Mapping[str, list[float]], *, per_run: float, unit: str, **more: Any) -> None:  # noqa: ANN401
    """Prints a table with the first contestant's advantage, round by round, and the same as a line of JSON.

    Args:
        title: What was measured.
        seconds: The runs of each contestant; the first is ours.
        per_run: How many units of work a run does.
        unit: Such as "tokens/s".
        **more: Shapes and settings for the JSON line.
    """
    ours = next(iter(seconds))
    print(f"{title}\n\n{unit:24}{'median':>12}{'lowest':>12}{'highest':>12}   {ours} is faster by")
    rows = {}
    for name, runs in seconds.items():
        rates = sorted(per_run / run for run in runs)
        ratios = sorted(theirs / mine for theirs, mine in zip(runs, seconds[ours], strict=True))
        rows[name] = {"median": statistics.median(rates), "lowest": rates[0], "highest": rates[-1]}
        rows[name] |= {"ratio": statistics.median(ratios), "lowest_ratio": ratios[0], "highest_ratio": ratios[-1]}
        advantage = "" if name == ours else f"   {rows[name]['ratio']:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"{name:24}{statistics.median(rates):12,.1f}{rates[0]:12,.1f}{rates[-1]:12,.1f}{advantage}")
    print(f"\n{json.dumps({'title': title, 'unit': unit, 'results': rows, **more, **facts()})}\n")
