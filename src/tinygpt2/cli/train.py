"""The command ``tinygpt2 train``."""

import argparse
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import torch

from tinygpt2._internal.console import write_line
from tinygpt2.cli.common import plot_history, validation_loss_in_words
from tinygpt2.cli.corpus import (
    Corpus,
    check_saved_files,
    once_only,
    read_corpus,
    run_name,
)
from tinygpt2.cli.hints import launched_by, option, positional, short_prompt, to_paste
from tinygpt2.cli.measurement import measured
from tinygpt2.cli.phases import Phases
from tinygpt2.cli.plan import Choices, Plan, make_choices, make_plan, summary
from tinygpt2.cli.recipes import RecipeMaker
from tinygpt2.cli.report import baselines_in, report_lines
from tinygpt2.cli.runs import RUNS, newest_to_resume, similar, suggesting_runs
from tinygpt2.cli.signals import STOPS, exit_code, signal_of
from tinygpt2.cli.train_options import FLAGS, TrainOptions, options_of
from tinygpt2.cli.wording import speaking_in_flags
from tinygpt2.distributed.launch import ranks_here
from tinygpt2.distributed.ranks import Ranks
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.run.directory import RunDirectory
from tinygpt2.training.history import TrainingHistory, lowest_loss

_SAMPLES = 10  # of new texts, in the line to try


class _Begun(NamedTuple):
    """A run that has begun: its directory, the options that were given, what was chosen, and its texts."""

    run: RunDirectory
    options: TrainOptions
    choices: Choices
    corpus: Corpus | None


def train_command(arguments: argparse.Namespace) -> int:
    """Trains a model and fills a run directory; of several processes, the first does all but the training itself."""
    began, (ranks, device) = time.monotonic(), ranks_here(arguments.device)
    arguments.quiet = arguments.quiet or not ranks.first
    run: RunDirectory | None = None
    try:
        with ranks.together(), ExitStack() as opened:
            own: list[_Begun] = []

            def begin() -> _Begun:
                nonlocal run
                run = opened.enter_context(_run_directory(arguments))
                own.append(_begin(run, arguments, device, began, ranks))
                return own[0]._replace(corpus=None)  # which each process reads

            try:
                begun = ranks.on_first(begin)
            except Exception:
                if ranks.first:
                    raise
                return 0  # the first says why, and fails; if this one did too, torchrun might end the first before
            _train(own[0] if own else begun, arguments, device, ranks)
    except STOPS as stop:
        number = signal_of(stop)
        where = "".join(getattr(stop, "__notes__", []))
        if ranks.first:
            write_line(f"stopped by {number.name}{where}{_how_to_resume(run, arguments, ranks.size)}")
        return exit_code(number)
    return 0


def _begin(
    run: RunDirectory, arguments: argparse.Namespace, device: torch.device, began: float, ranks: Ranks
) -> _Begun:
    """Reads the options and the corpus of a run, and chooses what they leave open."""
    with suggesting_runs(run.path):
        options = options_of(arguments, run)
    if not hasattr(arguments, "files"):
        check_saved_files(options.files, run.path, [*arguments.program, *arguments.words])
    if not ranks.alone and once_only(options.files):
        raise ValueError("a pipe can be read by one process only; pass a file, or start one process")
    with speaking_in_flags(FLAGS):
        corpus = read_corpus(options)
        maker = None if arguments.resume else RecipeMaker(options, corpus, device, began, processes=ranks.size)
        return _Begun(run, options, make_choices(run, options, corpus, maker, quiet=arguments.quiet), corpus)


def _train(begun: _Begun, arguments: argparse.Namespace, device: torch.device, ranks: Ranks) -> None:
    """Trains the model of a run; the first process writes what comes of it."""
    with speaking_in_flags(FLAGS):
        plan = make_plan(begun.run, begun.choices, begun.corpus or read_corpus(begun.options))
        if not arguments.quiet:
            for line in (*plan.choices.notes, summary(plan, device, ranks.size)):
                write_line(line)
            if note := once_only(begun.options.files):
                write_line(f"note: {note}")
        history = Phases(plan, arguments, device, ranks).train()
    if ranks.first:
        _finish(plan, history, arguments)


@contextmanager
def _run_directory(arguments: argparse.Namespace) -> Iterator[RunDirectory]:
    """Yields the directory of a new run, or of the run to resume, locked within the block.

    If a new run ends before its first checkpoint, nothing is left of it.
    """
    if arguments.resume:
        if arguments.out is None:
            raise ValueError(f"--resume needs --out DIR, the directory of the run to resume{_newest_run(arguments)}")
        run = RunDirectory(Path(arguments.out))
        if not run.path.is_dir():
            meant = similar(run.path)
            advice = f"did you mean {meant}?" if meant else "omit --resume to start a run there"
            raise ValueError(f"--resume: there is no directory {run.path}; {advice}")
        with run.locked():
            yield run
        return
    if arguments.out is not None:
        run = RunDirectory.claim(Path(arguments.out))
    else:
        files = getattr(arguments, "files", ())
        run = RunDirectory.create(RUNS, run_name(files))
    with run.locked(), run.discarded_on_failure():
        run.check_empty()  # again: another process may have had the lock and left something
        try:
            yield run
        except BaseException:
            if not run.has_begun():
                with suppress(OSError):  # there is none, or it is not empty
                    run.teacher(1).path.rmdir()
                for path in (run.options, *run.tokenizer_files):
                    path.unlink(missing_ok=True)
            raise


def _newest_run(arguments: argparse.Namespace) -> str:
    """Returns, to end a message, how to resume the newest run that can be resumed, if there is one."""
    newest = newest_to_resume()
    if newest is None:
        return ""
    words = list(arguments.words)
    place = words.index("--resume")
    words[place:place] = option("--out", newest.path)
    return f"; for the newest: {to_paste([*arguments.program, *words])}"


def _how_to_resume(run: RunDirectory | None, arguments: argparse.Namespace, processes: int) -> str:
    """Returns the command that resumes a run that was stopped, if there is anything to resume."""
    if run is None or not (run.options.exists() and run.has_begun()):
        return " before the run began"
    note = once_only(getattr(arguments, "files", ()))
    if arguments.resume:  # and with what else was given, which may not have been saved yet
        words = list(arguments.words)
    else:
        words = ["train", *option("--out", run.path), "--resume", *_device(arguments), *(["FILE"] if note else [])]
    program = arguments.program if processes == 1 else launched_by(processes)
    line = f"; to resume:  {to_paste([*program, *words])}"
    return f"{line}  ({note})" if note else line


def _device(arguments: argparse.Namespace) -> list[str]:
    """Returns the words that choose the device again, if it was chosen by hand."""
    return [] if arguments.device is None else option("--device", arguments.device)


def _finish(plan: Plan, history: TrainingHistory, arguments: argparse.Namespace) -> None:
    """Writes the results of a run, and prints how to use them."""
    run = plan.run
    if _is_better(history, run):
        plan.model.save_pretrained(run.path, tokenizer=plan.tokenizer)
    history.save(run.history)
    lines = _report(plan, history)
    plotted = _plot_if_possible(run, history, arguments)
    if arguments.quiet:
        return
    for line in lines:
        print(line)
    last = len(history.steps) - 1
    best = last if history.best is None else history.best
    model = "the model" if best == last else f"the model of step {history.steps[best]}"
    print(f"saved in {run.path}: {model}, {run.history.name}{f', {run.plot.name}' if plotted else ''}")
    if best != last:
        step, losses = history.steps[last], [validation_loss_in_words(history, i) for i in (best, last)]
        print(f"it has the lowest validation loss, {losses[0]}; that of the last model is {losses[1]}")
        print(f"to try the last model, of step {step}:  {_to_try(plan, run.checkpoint(step), arguments)}")
    print(f"try:  {_to_try(plan, run.path, arguments)}")


def _is_better(history: TrainingHistory, run: RunDirectory) -> bool:
    """Returns whether a run's model is better than the one that an earlier, shorter one has left."""
    try:
        earlier = TrainingHistory.load(run.history)
    except (OSError, ValueError):
        return True
    return not run.has_model() or earlier.best is None or lowest_loss(history) < lowest_loss(earlier)


def _to_try(plan: Plan, directory: Path, arguments: argparse.Namespace) -> str:
    """Returns the command that writes a text with the model in a directory."""
    prompt = short_prompt(plan.choices.prompt)
    what = positional(prompt) if prompt else option("--samples", _SAMPLES)
    return to_paste([*arguments.program, "generate", *option("--model", directory), *_device(arguments), *what])


def _report(plan: Plan, history: TrainingHistory) -> list[str]:
    """Writes the report on a run, and returns its lines; none if there is nothing to compare its model with."""
    model, run = GPT2Model.from_pretrained(plan.run.path).to(plan.model.device), plan.run
    report = measured(model, plan.tokenizer, plan.corpus.parts, history, prompt=plan.choices.prompt,
                      seed=plan.config.seed, pretrained=_pretrained(plan))  # fmt: skip
    if report is None:
        run.report.unlink(missing_ok=True)
        return []
    report.save(run.report)
    return report_lines(run.path)


def _pretrained(plan: Plan) -> GPT2Model | None:
    """Returns the model that was fine-tuned, as it was before; ``None`` if there is none, or not any more."""
    place = plan.options.from_pretrained
    if place is None:
        return None
    try:
        return GPT2Model.from_pretrained(place).to(plan.model.device)
    except (ImportError, OSError, ValueError):
        return None


def _plot_if_possible(run: RunDirectory, history: TrainingHistory, arguments: argparse.Namespace) -> bool:
    try:
        plot_history(history, run.plot, baselines_in(run.path))
    except ImportError as error:
        write_line(f"no plot: {error}; then:  {to_paste([*arguments.program, 'plot', *positional(run.path)])}")
        return False
    return True
