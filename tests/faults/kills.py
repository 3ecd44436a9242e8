"""Kills a training run, resumes it, and compares what it leaves with an uninterrupted run, byte for byte."""

import hashlib
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tinygpt2 import (
    CharTokenizer,
    GPT2Config,
    GPT2Model,
    TrainingConfig,
    TrainingHistory,
    load_tokenizer,
    make_dataloader,
    train,
)
from tinygpt2.run.directory import RunDirectory
from tinygpt2.training.checkpoints.format import read_checkpoint

CALLS = ("write", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir")  # of the module os; and open, audited
STEPS = 24
CHAIN = 5  # kills in a row, in a tenth of the runs


def run_training(directory: Path) -> None:
    """Trains with dropout, accumulation, shuffling, several epochs, a short last step, evaluations between saves.

    Then it saves the best model, as the command line does. The validation data is not what the model learns.
    """
    torch.manual_seed(1)
    model = GPT2Model(GPT2Config(vocab_size=61, context_length=8, n_layer=1, n_head=2, n_embd=16, dropout=0.2))
    tokens = torch.arange(400).mul(7).remainder(61)
    config = TrainingConfig(
        max_steps=STEPS,
        learning_rate=1e-2,
        schedule="cosine",
        warmup_steps=4,
        gradient_accumulation_steps=3,
        eval_every=5,
        eval_batches=2,
    )
    train(
        model,
        make_dataloader(tokens, batch_size=5, context_length=8, shuffle=True),
        make_dataloader(tokens[:100].flip(0), batch_size=5, context_length=8),
        config,
        device="cpu",
        checkpoint_dir=directory,
        checkpoint_every=4,
        resume=True,
        keep_best=True,
        progress=False,
    )
    model.save_pretrained(directory)


@dataclass
class Hooks:
    """Counts the calls that touch the disk, and dies at one of them, before it or half-way through."""

    directory: Path
    die_at: int | None = None
    calls: list[str] = field(default_factory=list)

    def install(self) -> None:
        for name in CALLS:
            setattr(os, name, self.wrapped(name, getattr(os, name)))
        sys.addaudithook(self.audit)

    def wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def replacement(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - any call of os
            if self.reached(name):
                if name == "write":
                    descriptor, content = arguments
                    call(descriptor, content[: len(content) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return replacement

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        inside = event == "open" and str(arguments[0]).startswith(str(self.directory))
        if inside and self.reached("open"):
            os.kill(os.getpid(), signal.SIGKILL)

    def reached(self, name: str) -> bool:
        self.calls.append(name)
        return len(self.calls) - 1 == self.die_at


def in_child(work: Callable[[], None], *, kill_after: float | None = None) -> int:
    """Runs ``work`` in a forked process and returns its exit code, -9 if it was killed."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 - whatever it is, this process must not go on
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def digest(directory: Path) -> str:
    """Returns the SHA-256 of the model, the last checkpoint and the best, and of the names of what is left beside."""
    sha256 = hashlib.sha256()
    sha256.update(repr(sorted(path.name for path in directory.iterdir() if path.name.startswith("."))).encode())
    model = [directory / "config.json", directory / "model.safetensors"]
    for path in sorted([*model, *(directory / "best").iterdir(), *(directory / f"checkpoint-{STEPS}").iterdir()]):
        sha256.update(path.relative_to(directory).as_posix().encode() + path.read_bytes())
    return sha256.hexdigest()


@dataclass
class KillReport:
    """How many kills there were, and what went wrong."""

    kills: int = 0
    runs: int = 0
    in_a_save: int = 0
    newest_not_loaded: int = 0
    different_bits: int = 0
    failures: list[str] = field(default_factory=list)


def measure(work: Path) -> tuple[str, list[str], float]:
    """Returns the digest of an uninterrupted run, the calls that it makes, and how long it takes."""
    run_training(work / "warm")  # what is imported late is imported now, and not in each child
    plain = work / "plain"
    began = time.perf_counter()
    if in_child(lambda: run_training(plain)) != 0:
        raise RuntimeError("the uninterrupted run failed")
    seconds = time.perf_counter() - began
    counted = work / "counted"

    def count() -> None:
        hooks = Hooks(counted)
        hooks.install()
        run_training(counted)
        Path(work, "calls").write_text(" ".join(hooks.calls), encoding="utf-8")

    in_child(count)
    calls = Path(work, "calls").read_text(encoding="utf-8").split()
    if digest(plain) != digest(counted):
        raise RuntimeError("two uninterrupted runs differ")
    return digest(plain), calls, seconds


def kill_once(directory: Path, die_at: int | None, after: float) -> bool:
    """Goes on with a run until a call, or for a time; returns whether it was killed before its end."""
    if die_at is None:
        return in_child(lambda: run_training(directory), kill_after=after) == -signal.SIGKILL

    def work() -> None:
        Hooks(directory, die_at).install()
        run_training(directory)

    return in_child(work) == -signal.SIGKILL


def kill_runs(work: Path, kills: int, seed: int = 0) -> KillReport:
    """Kills so often: a third at any call, a third at one that is no open or write, a third at any time."""
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    expected, calls, seconds = measure(work)
    rare = [i for i, name in enumerate(calls) if name not in ("open", "write")]
    points: list[Sequence[int]] = [range(len(calls)), rare]
    report = KillReport()
    while report.kills < kills:
        directory = work / f"run-{report.runs}"
        chain = CHAIN if report.runs % 10 == 9 else 1
        for _ in range(chain):
            way = chance.randrange(3)
            if way == len(points):
                die_at = None
            else:
                spread = (report.kills + chance.random()) / kills if chain == 1 else chance.uniform(0, 1 / 3)
                die_at = points[way][int(min(spread, 0.999) * len(points[way]))]
            if kill_once(directory, die_at, chance.uniform(0, seconds)):
                report.kills += 1
                report.in_a_save += directory.is_dir() and any(path.name[0] == "." for path in directory.iterdir())
                check_newest(directory, report)
        report.runs += 1
        code = in_child(partial(run_training, directory))
        if code != 0 or digest(directory) != expected:
            report.different_bits += 1
            report.failures.append(f"{directory.name}: exit code {code}, another result")
        shutil.rmtree(directory, ignore_errors=True)
    return report


def check_newest(directory: Path, report: KillReport) -> None:
    """Loads the newest checkpoint, the best model, and that of a finished run; there may be none before the first."""
    run = RunDirectory(directory)
    if not run.checkpoints():
        return
    try:
        newest = run.checkpoints()[0]
        read_checkpoint(newest, run.step_of(newest))
        GPT2Model.from_pretrained(run.best)
        if run.config.exists():
            GPT2Model.from_pretrained(run.path)
    except (ValueError, OSError) as error:
        report.newest_not_loaded += 1
        report.failures.append(f"{directory.name}: {error}")


def kill_writers(work: Path) -> tuple[int, list[str]]:
    """Kills ``save_pretrained`` and ``TrainingHistory.save`` at each of their calls; returns how often, and failures.

    Each file must be the old or the new one, and nothing else be left once the next process has written them.
    """
    shape = GPT2Config(vocab_size=3, context_length=8, n_layer=1, n_head=2, n_embd=16)
    directory = work / "model"

    def write(steps: int) -> None:
        GPT2Model(shape).save_pretrained(directory, tokenizer=CharTokenizer("ab"))
        TrainingHistory([steps], [0.0], [0], [0.0], [None], [0.0]).save(directory / "history.json")

    def write_until(die_at: int | None) -> None:
        hooks = Hooks(directory, die_at)
        hooks.install()
        write(1)
        (work / "writers-calls").write_text(str(len(hooks.calls)), encoding="utf-8")

    write(0)
    in_child(partial(write_until, None))
    expected, calls = sorted(path.name for path in directory.iterdir()), (work / "writers-calls").read_text("utf-8")
    failures: list[str] = []
    for i in range(int(calls) - 1):  # the last is the open of the file with their number
        if in_child(partial(write_until, i)) != -signal.SIGKILL:
            failures.append(f"writers: not killed at call {i}")
        try:
            GPT2Model.from_pretrained(directory)
            load_tokenizer(directory)
            TrainingHistory.load(directory / "history.json")
            write(0)
        except (ValueError, OSError) as error:
            failures.append(f"writers: killed at call {i}: {error}")
        if sorted(path.name for path in directory.iterdir()) != expected:
            failures.append(f"writers: killed at call {i}: left {sorted(path.name for path in directory.iterdir())}")
    return int(calls) - 1, failures
