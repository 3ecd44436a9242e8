"""How well a model learns a text in some minutes, in bits per byte of held-out text; and what helps it.

    python benchmarks/learning.py PART ... --out FILE [--wikitext FILE] [--chinese FILE] [--nanogpt PATH]

PART is one or several of these:

goals       `tinygpt2 train TEXT --minutes M --seed S` in a fresh process, for several texts: the model that it hands
            over, beside n-grams, compressors, and nanoGPT's recipe in the same time
time        the time to the loss at which nanoGPT's recipe for CPUs ends, characters, the same shape
ablations   a small recipe with one thing changed at a time, for three texts
grid        the same command for texts of several sizes and several times: "is my loss normal?"
curve       plots of bits per byte against minutes, of the runs that goals and grid have made, as they measured
            themselves on a part of what is held out; needs matplotlib

FILE receives a line of JSON for each measurement, and what is there is not measured again: an interrupted benchmark is
started again with the same arguments, and --show makes tables and plots from the file alone. Runs are kept beside it,
in FILE.runs. The texts: the sample text, FILEs of UTF-8 for wikitext-2's validation part and for Chinese, and names
made on the spot. The last tenth is held out, and a random tenth of the names. The ablations, which recipes are chosen
by, do not see it: they split the first --bytes of the other nine tenths once more.

nanoGPT's recipe has its published settings for CPUs. It is run with the model of a checkout, --nanogpt PATH, or with
that of tinygpt2. PPMd is shown where pyppmd is installed. Tables are Markdown; figures are means, with their range over
the seeds. --jobs 2 --threads 1 makes two measurements side by side, each on one thread.
"""

import argparse
import ast
import math
import shlex
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from pydoc_data.topics import topics
from statistics import mean
from typing import Any

from _learning import BYTES, Cell, Results, Row, Text, command, grouped, references, spread, table
from _recipes import NANOGPT_STEPS, Trial, contest, nanogpt, trial
from tinygpt2 import read_text, sample_text
from vocabularies import code, names

SAMPLE, WIKITEXT, CHINESE, NAMES = "sample text", "wikitext-2 validation", "Chinese", "names"
MINUTES = {SAMPLE: (2.0, 10.0), WIKITEXT: (10.0,), CHINESE: (10.0,), NAMES: (2.0,)}
MOST_CHINESE = 300_000  # bytes
PEERS = {WIKITEXT: "same vocabulary", NAMES: "characters"}  # what nanoGPT's recipe is run with


def half(value: float) -> float:
    return value // 2 if isinstance(value, int) else value / 2


def twice(value: float) -> float:
    return value * 2


ABLATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "optimizer": {
        "half the rate": {"rate": half},
        "twice the rate": {"rate": twice},
        "AdamW, rate 0.002": {"optimizer": "adamw", "rate": 0.002},
        "AdamW, rate 0.004": {"optimizer": "adamw", "rate": 0.004},
    },
    "weight decay": {f"weight decay {x}": {"weight_decay": x} for x in (0.1, 1.0, 2.5)},
    "dropout": {f"dropout {x}": {"dropout": x} for x in (0.0, 0.1, 0.2)},
    "schedule": {
        "cosine to a tenth": {"schedule": "cosine"},
        "constant": {"schedule": "constant"},
        "average of the weights (0.98)": {"average": 0.98},
        "constant, average of the weights (0.98)": {"schedule": "constant", "average": 0.98},
    },
    "noise": {
        "no noise": {"token_noise": 0.0, "bpe_dropout": 0.0},
        "no noise, the same windows in each pass": {"offsets": False},
        **{f"token noise {x}": {"token_noise": x} for x in (0.0, 0.1, 0.2)},
        **{f"BPE dropout {x}": {"bpe_dropout": x} for x in (0.0, 0.1, 0.2)},
        "noise until the end": {"quiet": 0.0},
    },
    "embeddings": {
        "head not tied": {"tied": False},
        "spelling": {"spelling": True},
        "no spelling": {"spelling": False},
        "half the initial weights": {"initial": 0.5},
        "twice the initial weights": {"initial": 2.0},
        "half the vocabulary": {"vocabulary": half},
        "twice the vocabulary": {"vocabulary": twice},
    },
    "batch": {
        "half the batch": {"batch": half},
        "half the batch, rate / 1.4": {"batch": half, "rate": lambda rate: rate / math.sqrt(2)},
        "twice the batch": {"batch": twice},
        "twice the batch, rate x 1.4": {"batch": twice, "rate": lambda rate: rate * math.sqrt(2)},
        "batch rising from half to twice": {"rising": True},
    },
    "shape": {
        **{f"{n} layers": {"n_layer": n} for n in (1, 2, 3)},
        **{f"width {n}": {"n_embd": n} for n in (96, 128, 192)},
        **{f"context {n}": {"context": n} for n in (64, 128, 256)},
    },
    "passes": {f"{n} passes": {"passes": n} for n in (4, 8, 16)},
}


class Benchmark:
    """What is measured with the options, and shown."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.results = Results(options.out)
        self.shared = {"threads": options.threads, "jobs": options.jobs}
        self.engine = "nanoGPT" if options.nanogpt else "tinygpt2"

    def carry_out(self, cells: Iterable[Cell]) -> None:
        """Measures what is not in the file yet, unless nothing is to be measured."""
        if not self.options.show:
            self.results.carry_out(cells, **self.shared)

    def chosen(self, name: str) -> bool:
        """Returns whether a name has one of the words that were asked for."""
        return not self.options.only or any(word in name for word in self.options.only)

    def texts(self) -> Iterator[Text]:
        """Yields the texts of the goals."""
        yield Text.of(SAMPLE, sample_text())
        for name, path, size in (
            (WIKITEXT, self.options.wikitext, None),
            (CHINESE, self.options.chinese, MOST_CHINESE),
        ):
            if path:
                yield Text.of(name, read_text(path), size)
        yield Text(NAMES, *names())

    def runs(self, part: str, text: Text, times: Iterable[float]) -> Iterator[Cell]:
        """Yields the runs of the command, and the references of the text."""
        yield Cell({"kind": "references"} | text.key(), partial(references, text))
        for minutes in times:
            for seed in self.options.seeds:
                key = {"kind": "run", "part": part} | text.key() | {"minutes": minutes, "seed": seed} | self.shared
                key |= {"options": self.options.options}
                name = f"{text.name}-{minutes:g}-{seed}-{zlib.crc32(repr(key).encode()):08x}".replace(" ", "-")
                place = Path(f"{self.options.out}.runs").resolve() / name
                work = partial(command, text, minutes, seed, threads=self.options.threads,
                               options=shlex.split(self.options.options), directory=place)  # fmt: skip
                yield Cell(key, work)

    def peers(self, text: Text) -> Iterator[Cell]:
        """Yields nanoGPT's recipe in the time of each run of a text."""
        if text.name in PEERS:
            for run in self.results.find(kind="run", part="goals", **text.key(), **self.shared,
                                         options=self.options.options):  # fmt: skip
                key = {name: run[name] for name in ("text", "bytes", "minutes", "seed", "threads", "jobs", "options")}
                key = {"kind": "nanogpt", "with": PEERS[text.name], "model": self.engine} | key
                characters = PEERS[text.name] == "characters"
                work = partial(nanogpt, text, run, characters=characters, seed=run["seed"],
                               checkout=self.options.nanogpt)  # fmt: skip
                yield Cell(key, work)

    def goals(self) -> None:
        """Runs the command for the texts of the goals, and nanoGPT's recipe in the same time."""
        texts = [text for text in self.texts() if self.chosen(text.name)] if not self.options.show else []
        minutes = self.options.minutes
        self.carry_out(cell for text in texts for cell in self.runs("goals", text, minutes or MINUTES[text.name]))
        self.carry_out(cell for text in texts for cell in self.peers(text))
        self.show_runs("goals")

    def show_runs(self, part: str) -> None:
        """Prints a table of runs, one of what they are to be compared with, and one of nanoGPT's recipe."""
        rows = list[list[str]]()
        by = ("text", "bytes", "minutes", "threads", "jobs", "options")
        for (text, size, minutes, threads, jobs, options), runs in grouped(self.rows("run", part=part), *by).items():
            name = f"{text}, {size / 1000:,.0f} KB, {minutes:g} min" + (f", `{options}`" if options else "")
            side = f"{threads}" if jobs == 1 else f"{threads}, {jobs} side by side"
            columns = ("bits_per_byte", "bits_per_byte_side_by_side", "last_bits_per_byte", "nats_per_token")
            figures = [spread(run[column] for run in runs) for column in columns]
            sizes = [f"{mean(run[column] for run in runs):,.0f}" for column in ("parameters", "vocabulary", "steps")]
            rows.append([name, *figures, *sizes, spread((run["seconds"] for run in runs), 0), side])
        table(["text and time", "bits per byte", "windows side by side", "the last model's", "nats per token",
               "parameters", "tokens", "steps", "seconds", "threads"], rows)  # fmt: skip
        self.show_references()
        rows = []
        names = ("text", "with", "minutes", "model")
        for (text, kind, minutes, model), peers in grouped(self.rows("nanogpt"), *names).items():
            ours = [self.run_of(peer) for peer in peers]
            gain = (peer["nats_per_token"] - run["nats_per_token"] for peer, run in zip(peers, ours, strict=True))
            rows.append([
                f"{text}, {minutes:g} min, {kind}, model of {model}", spread(peer["bits_per_byte"] for peer in peers),
                spread(run["bits_per_byte"] for run in ours), spread(gain) if kind == "same vocabulary" else "",
                f"{mean(peer['parameters'] for peer in peers):,.0f}", f"{mean(peer['steps'] for peer in peers):,.0f}",
            ])  # fmt: skip
        table(["nanoGPT's recipe", "its bits per byte", "ours", "nats per token under it", "its parameters",
               "its steps"], rows)  # fmt: skip

    def run_of(self, peer: Row) -> Row:
        """Returns the run in whose time nanoGPT's recipe was trained."""
        names = ("text", "bytes", "minutes", "seed", "threads", "jobs", "options")
        return self.results.find(kind="run", part="goals", **{name: peer[name] for name in names})[0]

    def show_references(self) -> None:
        """Prints a table of methods without a neural network."""
        rows = self.rows("references")
        columns = list(dict.fromkeys(name for row in rows for name in row["references"]))
        table(
            ["text", *columns],
            ([f"{row['text']}, {row['bytes'] / 1000:,.0f} KB"]
             + [f"{row['references'][name]:.3f}" if name in row["references"] else "" for name in columns]
             for row in rows),
        )  # fmt: skip

    def rows(self, kind: str, **key: Any) -> list[Row]:  # noqa: ANN401
        """Returns the rows of a kind, of the texts that were asked for."""
        return [row for row in self.results.find(kind=kind, **key) if self.chosen(row["text"])]

    def time(self) -> None:
        """Compares the time to the loss that nanoGPT's recipe for CPUs ends with."""
        options = self.options
        text = Text.of(*self.largest(), 1_000_000)
        self.carry_out(
            Cell(
                {"kind": "time"} | text.key() | {"rate": options.rate, "seed": seed, "model": self.engine}
                | {"steps": options.steps, "shares": options.shares} | self.shared,
                partial(contest, text, shares=options.shares, rate=options.rate, seed=seed, checkout=options.nanogpt,
                        steps=options.steps),
            )
            for seed in options.seeds
        )  # fmt: skip
        for (model, rate), rows in grouped(self.results.find(kind="time"), "model", "rate").items():
            first = [f"nanoGPT's recipe, model of {model}, {rows[0]['parameters']:,} parameters", "1", "",
                     spread((row["seconds"] for row in rows), 0), spread(row["nats"] for row in rows)]  # fmt: skip
            shares = grouped((run for row in rows for run in row["ours"]), "share")
            ours = (
                [f"ours, rate {rate}, in {share:g} of the time", spread((run["ratio"] for run in runs), 2),
                 f"{mean(run['steps'] for run in runs):,.0f}", spread((run["seconds"] for run in runs), 0),
                 spread(run["nats"] for run in runs)]
                for (share,), runs in shares.items()
            )  # fmt: skip
            table(["", "time", "steps", "seconds", "nats per character"], [first, *ours])

    def largest(self) -> tuple[str, str]:
        """Returns the name of the largest text, and the text."""
        return (WIKITEXT, read_text(self.options.wikitext)) if self.options.wikitext else ("code", code())

    def ablations(self) -> None:
        """Trains by the base recipe, and with one thing changed at a time."""
        base = replace(Trial(), **dict(self.options.base))
        variants = {
            name: recipe
            for group, those in ABLATIONS.items()
            for name, changes in those.items()
            if (self.chosen(name) or self.chosen(group)) and (recipe := base.changed(changes)) != base
        }
        texts = [] if self.options.show else list(self.tuning_texts())
        self.carry_out(
            Cell({"kind": "trial"} | text.key() | {"variant": name, "recipe": asdict(recipe), "seed": seed},
                 partial(trial, text, recipe, seed))
            for name, recipe in {"": base, **variants}.items()
            for seed in self.options.seeds
            for text in texts
        )  # fmt: skip
        self.show_ablations(base, variants)

    def tuning_texts(self) -> Iterator[Text]:
        """Yields the beginnings of the training parts of three texts, each split once more."""
        options = self.options
        second = (
            (CHINESE, read_text(options.chinese)) if options.chinese else ("pydoc topics", " ".join(topics.values()))
        )
        for name, whole in ((SAMPLE, sample_text()), second, self.largest()):
            yield Text.of(name, Text.of(name, whole).train[0], options.bytes)

    def show_ablations(self, base: Trial, variants: dict[str, Trial]) -> None:
        """Prints the differences to the base, of the same text and seed."""
        trials = self.results.find(kind="trial")
        found = {(row["text"], row["bytes"], row["seed"]): row["bits_per_byte"]
                 for row in trials if row["recipe"] == asdict(base)}  # fmt: skip
        texts = list(dict.fromkeys((text, size) for text, size, _ in found))
        lines = [["the base: bits per byte", *(spread(bits for key, bits in found.items() if key[:2] == text)
                                               for text in texts), ""]]  # fmt: skip
        for name, recipe in variants.items():
            differences = {
                (row["text"], row["bytes"], row["seed"]): row["bits_per_byte"]
                - found[row["text"], row["bytes"], row["seed"]]
                for row in trials
                if row["recipe"] == asdict(recipe) and (row["text"], row["bytes"], row["seed"]) in found
            }
            columns = [[value for key, value in differences.items() if key[:2] == text] for text in texts]
            if differences:
                whole = f"{mean(map(mean, columns)):+.3f}" if all(columns) else ""
                lines.append([name, *(spread(column, sign=True) for column in columns), whole])
        if found:
            print(f"Base: {base}. Differences in bits per byte: below zero is better.\n")
            table(["changed", *(f"{text}, {size / 1000:,.0f} KB" for text, size in texts), "mean"], lines)

    def grid(self) -> None:
        """Runs the command for beginnings of a text, and prints bits per byte by size and time."""
        name, whole = ("", "") if self.options.show else self.largest()
        sizes = [round(1000 * size) for size in self.options.sizes if 1000 * size <= len(whole.encode())]
        texts = [Text.of(name, whole, size) for size in sizes]
        self.carry_out(
            cell for text in texts for cell in self.runs("grid", text, self.options.minutes or (0.5, 2.0, 10.0))
        )
        for (name,), runs in grouped(self.rows("run", part="grid"), "text").items():
            cells = grouped(runs, "bytes", "minutes")
            times = sorted({minutes for _, minutes in cells})
            lines = []
            for size in sorted({size for size, _ in cells}):
                found = [spread((run["bits_per_byte"] for run in cells.get((size, t), [])), 2) for t in times]
                known = self.references_of(name, size)
                found += [f"{known[each]:.2f}" if each in known else "" for each in (BYTES, "xz")]
                lines.append([f"{size / 1000:,.0f} KB", *found])
            table([name, *(f"{minutes:g} min" for minutes in times), BYTES, "xz"], lines)

    def references_of(self, text: str, size: int) -> dict[str, float]:
        """Returns the bits per byte of methods without a neural network, by their names, if they were measured."""
        found = self.results.find(kind="references", text=text, bytes=size)
        return found[0]["references"] if found else {}

    def curve(self) -> None:
        """Plots bits per byte against minutes, a figure for each text: a line for each time that a run was given."""
        for (text, size), runs in grouped(self.rows("run"), "text", "bytes").items():
            path = self.options.plots / f"{text.replace(' ', '-')}-{size / 1000:.0f}KB.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            plot(f"{text}, {size / 1000:,.0f} KB", runs, self.references_of(text, size), path)
            print(path)


def plot(title: str, runs: list[Row], references: dict[str, float], path: Path) -> None:
    """Draws the curves of runs and lines for the references, on white, which dark pages show as a card."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra

    figure = Figure(figsize=(6.4, 4.2), dpi=150, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    near = 1.3 * max([*references.values(), *(run["bits_per_byte"] for run in runs)])
    for number, ((minutes,), same) in enumerate(sorted(grouped(runs, "minutes").items())):
        for each in same:
            points = [(seconds / 60, bits) for seconds, bits in each["curve"] if bits is not None]
            name = f"tinygpt2 train --minutes {minutes:g}" if minutes else "tinygpt2 train"
            label = f"{name}: {spread((run['bits_per_byte'] for run in same), 2)}"
            axes.plot(
                *zip(*points, strict=True), color=f"C{number}", alpha=0.8, label=label if each is same[0] else None
            )
    for (name, bits), style in zip(references.items(), (":", "-.", (0, (1, 4)), "--"), strict=False):
        axes.axhline(bits, color="0.4", linestyle=style, linewidth=1.2, label=f"{name}: {bits:.2f}")
    axes.set(xlabel="Minutes", ylabel="Bits per byte", title=title)
    if axes.get_ylim()[1] > near:
        axes.set_ylim(top=near)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path)


def assignment(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def parser() -> argparse.ArgumentParser:
    every = ("goals", "time", "ablations", "grid", "curve")
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("parts", nargs="+", choices=every, metavar="PART", help=", ".join(every))
    made.add_argument("--out", type=Path, required=True, metavar="FILE", help="lines of JSON, which it adds to")
    made.add_argument("--show", action="store_true", help="measure nothing, show what is in FILE")
    made.add_argument("--only", nargs="*", default=[], metavar="WORD", help="texts, or ablations, with one in the name")
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="S")
    made.add_argument("--threads", type=int, default=2, metavar="N", help="of each measurement")
    made.add_argument("--jobs", type=int, default=1, metavar="N", help="measurements side by side")
    made.add_argument("--wikitext", type=Path, metavar="FILE")
    made.add_argument("--chinese", type=Path, metavar="FILE")
    made.add_argument("--nanogpt", metavar="PATH", help="a checkout")
    runs = made.add_argument_group("goals and grid")
    runs.add_argument("--minutes", type=float, nargs="+", metavar="M", help="0: without --minutes")
    runs.add_argument("--options", default="", metavar="'...'", help="more options for tinygpt2 train")
    runs.add_argument("--sizes", type=float, nargs="+", default=[5, 20, 84, 300, 1000], metavar="KB")
    time = made.add_argument_group("time")
    time.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.15, 0.2, 0.3], metavar="X", help="of its time")
    time.add_argument(
        "--rate", type=float, default=0.014, metavar="X", help="learning rate of ours; choose it without --wikitext"
    )
    time.add_argument("--steps", type=int, default=NANOGPT_STEPS, metavar="N", help="of nanoGPT's recipe")
    ablations = made.add_argument_group("ablations")
    ablations.add_argument("--bytes", type=int, default=60_000, metavar="N", help="of each text")
    ablations.add_argument("--base", type=assignment, nargs="+", default=[], metavar="NAME=VALUE",
                           help="other values of the base recipe")  # fmt: skip
    made.add_argument("--plots", type=Path, default=Path("plots"), metavar="DIR", help="for curve")
    return made


def main() -> None:
    options = parser().parse_args()
    benchmark = Benchmark(options)
    for part in dict.fromkeys(options.parts):
        print(f"## {part}\n", flush=True)
        getattr(benchmark, part)()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
