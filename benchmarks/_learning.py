"""Texts, results and tables for learning.py, runs of the command, and methods without a neural network.

Each measurement is a cell: a description, which names its line in a file of results, and a function that makes it.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from _measure import facts
from compressors import PIECE, NGram, compressors
from tinygpt2 import (
    GPT2Model,
    Tokenizer,
    TrainingHistory,
    baselines,
    evaluate_text,
    load_tokenizer,
    split_text,
)
from tinygpt2.run.directory import RunDirectory

Row = dict[str, Any]

BYTES = "byte n-gram, 4 bytes of context"  # as the library reports it
ORDER = 4  # of n-grams of characters, of which the last is predicted
CHARACTERS = sum(unicodedata.category(chr(i)) not in ("Cn", "Co", "Cs") for i in range(sys.maxunicode + 1))


@dataclass(frozen=True)
class Text:
    """A text, or documents, of which a part is held out."""

    name: str
    train: list[str]
    held: list[str]

    @classmethod
    def of(cls, name: str, text: str, size: int | None = None) -> "Text":
        """Returns the first ``size`` bytes of a text, of which the last tenth is held out."""
        if size is not None:
            text = text.encode()[:size].decode(errors="ignore")
        train, held = split_text(text, 0.9)
        return cls(name, [train], [held])

    @property
    def documents(self) -> bool:
        return len(self.train) > 1

    @property
    def source(self) -> str | list[str]:
        """The held-out text, or documents, for `evaluate_text`."""
        return self.held if self.documents else self.held[0]

    def joined(self) -> tuple[str, str]:
        """Returns both parts as texts; each document then ends with a line break."""
        train, held = (("".join(f"{each}\n" for each in part)) for part in (self.train, self.held))
        return (train, held) if self.documents else (self.train[0], self.held[0])

    def key(self) -> Row:
        return {"text": self.name, "bytes": sum(len(part.encode()) for part in self.joined())}

    def write(self, directory: Path) -> list[str]:
        """Writes the text, and returns it as arguments of the command."""
        train, held = self.joined()
        if not self.documents:
            (directory / "text.txt").write_text(train + held, encoding="utf-8", newline="")
            return [str(directory / "text.txt")]
        for name, part in (("train", train), ("held", held)):
            (directory / f"{name}.txt").write_text(part, encoding="utf-8", newline="")
        return [str(directory / "train.txt"), "--separator", "\\n", "--val", str(directory / "held.txt")]


@dataclass(frozen=True)
class Cell:
    """A measurement: what names it in the file of results, and what makes it."""

    key: Row
    work: Callable[[], Row]


class Results:
    """Lines of JSON in a file, one for each cell that is done. Without a file, they are only in memory."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.rows = path, list[Row]()
        lines = path.read_text(encoding="utf-8").splitlines() if path and path.exists() else []
        for line in lines:
            try:
                self.rows.append(json.loads(line))
            except ValueError:
                print(f"left out a damaged line: {line[:60]}", file=sys.stderr)

    def find(self, **key: Any) -> list[Row]:  # noqa: ANN401
        """Returns the rows with these values."""
        return [row for row in self.rows if all(row.get(name) == value for name, value in key.items())]

    def add(self, row: Row) -> None:
        self.rows.append(row)
        if self.path:
            with self.path.open("a+b") as file:
                if file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":  # a line that was cut short
                        file.write(b"\n")
                file.write(json.dumps(row).encode() + b"\n")

    def carry_out(self, cells: Iterable[Cell], *, threads: int, jobs: int) -> None:
        """Makes the cells that are not there yet, some at a time, in other processes."""
        todo = [cell for cell in cells if not self.find(**_plain(cell.key))]
        context = get_context("spawn")
        with ProcessPoolExecutor(jobs, context, torch.set_num_threads, (threads,)) as pool:
            futures = {pool.submit(_timed, cell.work): cell for cell in todo}
            try:
                for number, future in enumerate(as_completed(futures), 1):
                    key = futures[future].key
                    label = ", ".join(str(value) for value in key.values() if not isinstance(value, dict))
                    if error := future.exception():
                        print(f"failed: {label}: {error}", file=sys.stderr, flush=True)
                        continue
                    row = future.result()
                    self.add(facts() | {"threads": threads} | _plain(key) | row)
                    print(f"{number}/{len(todo)}: {label}: {row['took']:.0f} s", file=sys.stderr, flush=True)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _plain(key: Row) -> Row:
    """Returns what JSON makes of a key, so that both compare equal."""
    return json.loads(json.dumps(key))  # type: ignore[no-any-return]


def _timed(work: Callable[[], Row]) -> Row:
    began = time.perf_counter()
    return work() | {"took": time.perf_counter() - began}


def references(text: Text) -> Row:
    """Returns the bits per byte of methods without a neural network; PPMd in pieces, each after the training part."""
    train, held = text.joined()
    raw, raw_held = train.encode(), held.encode()
    known = baselines(text.train, text.held) if text.documents else baselines(train, held)
    found = {BYTES: known.ngram, "xz": known.xz}
    if len(train) < 0.6 * len(raw):  # for a script of several bytes a character
        found[f"character n-gram, {ORDER - 1} characters of context"] = NGram(train, ORDER, CHARACTERS).bits(
            train, held
        ) / len(raw_held)
    for name, size in compressors():
        if name.startswith("PPMd"):
            alone = size(raw)
            pieces = (raw_held[begin : begin + PIECE] for begin in range(0, len(raw_held), PIECE))
            found[name] = 8 * sum(size(raw + piece) - alone for piece in pieces) / len(raw_held)
    return {"references": found}


def scores(model: GPT2Model, tokenizer: Tokenizer, held: str | list[str]) -> Row:
    """Returns the loss on a held-out part: each token after half a context at least, and in windows side by side."""
    context = model.config.context_length
    half, whole = (evaluate_text(model, tokenizer, held, stride=stride) for stride in (max(1, context // 2), context))
    assert half.bits_per_byte is not None
    return {
        "bits_per_byte": half.bits_per_byte,
        "bits_per_byte_side_by_side": whole.bits_per_byte,
        "nats_per_token": half.loss,
        "parameters": model.num_parameters(),
        "vocabulary": tokenizer.n_vocab,
    }


def command(text: Text, minutes: float, seed: int, *, threads: int, options: Sequence[str], directory: Path) -> Row:
    """Runs `tinygpt2 train` in a fresh process, with its own choices, and returns what the model is worth.

    The directory keeps the model that was handed over, and what the command wrote.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    run = directory / "run"
    given = ["--minutes", f"{minutes:g}"] if minutes else []
    line = ["train", *text.write(directory), *given, "--seed", str(seed), "--out", str(run), *options]
    with (directory / "output.txt").open("w", encoding="utf-8") as output:
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "tinygpt2", *line],
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
        seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError((directory / "output.txt").read_text(encoding="utf-8")[-500:])
    history = TrainingHistory.load(run / "history.json")
    model, tokenizer = GPT2Model.from_pretrained(run), load_tokenizer(run)
    checkpoints = RunDirectory(run).checkpoints()  # the newest first
    last = GPT2Model.from_pretrained(checkpoints[0])
    for checkpoint in checkpoints:
        shutil.rmtree(checkpoint)
    whole = max(history.steps[-1], 1)
    times = getattr(history, "seconds", None) or [None]
    if None in times:  # not known: as if each step took the same time
        times = [seconds * step / whole for step in history.steps]
    return scores(model, tokenizer, text.source) | {
        "seconds": seconds,
        "steps": whole,
        "epochs": history.epochs[-1],
        "shape": asdict(model.config),
        "last_bits_per_byte": scores(last, tokenizer, text.source)["bits_per_byte"],
        "curve": [list(point) for point in zip(times, history.val_bits_per_byte, strict=True)],
        "run": str(run),
    }


def spread(values: Iterable[float], digits: int = 3, *, sign: bool = False) -> str:
    """Returns the mean of some values, with their range if there are several."""
    values = list(values)
    if not values:
        return ""
    form = f"{'+' if sign else ''}.{digits}f"
    mean = f"{sum(values) / len(values):{form}}"
    return mean if len(values) == 1 else f"{mean} ({min(values):{form}} to {max(values):{form}})"


def grouped(rows: Iterable[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    """Returns rows by the values that some names have in them."""
    groups: defaultdict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row.get(name) for name in names)].append(row)
    return dict(groups)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table in Markdown, if it has rows; the first column is text, the others are numbers."""
    lines = list(rows)
    if lines:
        rule = ["---", *["--:"] * (len(head) - 1)]
        print("\n".join(f"| {' | '.join(line)} |" for line in chain((head, rule), lines)), end="\n\n", flush=True)
