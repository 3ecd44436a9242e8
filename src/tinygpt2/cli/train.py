"""The command ``tinygpt2 train``."""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from typing_extensions import override

from tinygpt2._internal.console import write_line
from tinygpt2._internal.devices import choose_device
from tinygpt2.cli.common import naming, plot_history, validation_loss_in_words
from tinygpt2.cli.corpus import (
    Corpus,
    check_saved_files,
    make_loaders,
    once_only,
    prompt_from,
    read_corpus,
    run_name,
    to_read_again,
)
from tinygpt2.cli.hints import option, positional, short_prompt, to_paste
from tinygpt2.cli.measurement import measured
from tinygpt2.cli.models import model_of, name_of_tokenizer, tokenizer_of
from tinygpt2.cli.options import save_options
from tinygpt2.cli.recipes import RecipeMaker, training_config, with_recipe
from tinygpt2.cli.report import baselines_in, report_lines
from tinygpt2.cli.runs import RUNS, newest_to_resume, similar, suggesting_runs
from tinygpt2.cli.signals import STOPS, exit_code, signal_of
from tinygpt2.cli.train_options import FLAGS, TrainOptions, options_of, to_save
from tinygpt2.cli.wording import speaking_in_flags
from tinygpt2.config import TrainingConfig
from tinygpt2.data.batches import Batch
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.run.directory import RunDirectory
from tinygpt2.tokenizers.protocol import Tokenizer, encoded
from tinygpt2.tokenizers.storage import save_tokenizer
from tinygpt2.training.callbacks.base import Callback
from tinygpt2.training.callbacks.stopping import EarlyStopping
from tinygpt2.training.history import TrainingHistory, lowest_loss
from tinygpt2.training.state import TrainState
from tinygpt2.training.train import train

_SAMPLES = 10  # of new texts, in the line to try


@dataclass(frozen=True)
class _Plan:
    """A run that is ready to start.

    Attributes:
        run: Its directory.
        options: Its options, with the values chosen for those not given.
        corpus: Its texts.
        config: Its training configuration.
        prompt: A prompt to try its model with; empty if it begins new texts.
        notes: What to say about its data and its tokenizer.
        model: Its model, initialised or pretrained.
        tokenizer: Its tokenizer.
        train_loader: Its training data.
        val_loader: Its validation data.
    """

    run: RunDirectory
    options: TrainOptions
    corpus: Corpus
    config: TrainingConfig
    prompt: str
    notes: tuple[str, ...]
    model: GPT2Model
    tokenizer: Tokenizer
    train_loader: DataLoader[Batch]
    val_loader: DataLoader[Batch]


def train_command(arguments: argparse.Namespace) -> int:
    """Trains a model and fills a run directory."""
    began, device = time.monotonic(), choose_device(arguments.device)
    run: RunDirectory | None = None
    try:
        with _run_directory(arguments) as run:
            _train_in(run, arguments, device, began)
    except STOPS as stop:
        number = signal_of(stop)
        where = "".join(getattr(stop, "__notes__", []))
        write_line(f"stopped by {number.name}{where}{_how_to_resume(run, arguments)}")
        return exit_code(number)
    return 0


def _train_in(run: RunDirectory, arguments: argparse.Namespace, device: torch.device, began: float) -> None:
    with suggesting_runs(run.path):
        options = options_of(arguments, run)
    if not hasattr(arguments, "files"):
        check_saved_files(options.files, run.path, [*arguments.program, *arguments.words])
    with speaking_in_flags(FLAGS):
        corpus = read_corpus(options)
        maker = None if arguments.resume else RecipeMaker(options, corpus, device, began)
        plan = _plan(run, options, corpus, maker, quiet=arguments.quiet)
        if not arguments.quiet:
            for line in (*plan.notes, _summary(plan, corpus, device)):
                write_line(line)
            if note := once_only(options.files):
                write_line(f"note: {note}")
        history = _train(plan, arguments, device)
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
            if not run.checkpoints():
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


def _plan(run: RunDirectory, options: TrainOptions, corpus: Corpus, maker: RecipeMaker | None, *, quiet: bool) -> _Plan:
    """Returns the run that options and a corpus describe; without the maker of a recipe, one to resume."""
    resume = maker is None
    tokenizer, choice = tokenizer_of(
        run, options, corpus, resume=resume, vocab_size=maker.vocab_size if maker else lambda: options.vocab_size
    )
    tuned = None if options.from_pretrained is None else model_of(run, options, tokenizer, resume=resume)
    recipe = maker(tokenizer, None if tuned is None else tuned.config) if maker else None
    complete = with_recipe(options, recipe) if recipe else options
    model = tuned or model_of(run, complete, tokenizer, resume=resume)
    context_length = complete.context_length or model.config.context_length
    train_loader, val_loader = make_loaders(corpus, complete, tokenizer, context_length)
    prompt = prompt_from(corpus, tokenizer) if options.sample_prompt is None else options.sample_prompt
    with naming("--sample-prompt"):
        encoded(tokenizer, prompt)
    sampled = not quiet and options.sample_prompt != ""
    chosen = replace(
        complete,
        files=to_read_again(options.files),
        val=to_read_again(options.val),
        from_pretrained=None if options.from_pretrained is None else str(Path(options.from_pretrained).resolve()),
        tokenizer=name_of_tokenizer(options, corpus, choice),
        sample_prompt=prompt or options.sample_prompt,
    )
    config = training_config(chosen, prompt if sampled else None)
    notes = [*corpus.notes, *([] if choice is None else [f"tokenizer: {choice}"])]
    notes += recipe.explain().splitlines() if recipe else []
    return _Plan(run, chosen, corpus, config, prompt, tuple(notes), model, tokenizer, train_loader, val_loader)


def _summary(plan: _Plan, corpus: Corpus, device: torch.device) -> str:
    batches = f"{plan.options.batch_size} × {plan.options.context_length} tokens"
    parameters = f"{plan.model.num_parameters():,} parameters on {device.type}"
    return f"{parameters}; {corpus.size} of text, in batches of {batches}; Ctrl-C stops and saves"


class _NotedRun(Callback):
    """Saves a run's options and tokenizer once it starts, after an incompatible resume has been rejected."""

    def __init__(self, plan: _Plan) -> None:
        self.plan = plan
        self.stopped = ""  # where, if a signal ended the run after a step

    @override
    def on_start(self, state: TrainState) -> None:
        save_tokenizer(self.plan.tokenizer, self.plan.run.path)
        save_options(self.plan.run.options, to_save(self.plan.options))

    @override
    def on_end(self, state: TrainState, error: BaseException | None) -> None:
        if state.interrupted and error is None:
            self.stopped = f" after step {state.step} of {state.total_steps}, saved"
            state.announced = True  # in one line with how to resume


def _train(plan: _Plan, arguments: argparse.Namespace, device: torch.device) -> TrainingHistory:
    patience, noted = plan.options.early_stopping, _NotedRun(plan)
    try:
        return train(
            plan.model,
            plan.train_loader,
            plan.val_loader,
            plan.config,
            callbacks=[noted, *([EarlyStopping(patience)] if patience else [])],  # 0 is never
            tokenizer=plan.tokenizer,
            device=device,
            checkpoint_dir=plan.run.path,
            checkpoint_every=plan.options.checkpoint_every,
            checkpoint_keep=plan.options.keep,
            resume=arguments.resume,
            allow_changes=arguments.allow_changes,
            keep_best=True,
            progress=not arguments.quiet,
        )
    except STOPS as stop:
        stop.add_note(noted.stopped)
        raise


def _how_to_resume(run: RunDirectory | None, arguments: argparse.Namespace) -> str:
    """Returns the command that resumes a run that was stopped, if there is anything to resume."""
    if run is None or not (run.options.exists() and run.checkpoints()):
        return " before the run began"
    note = once_only(getattr(arguments, "files", ()))
    if arguments.resume:  # and with what else was given, which may not have been saved yet
        words = list(arguments.words)
    else:
        words = ["train", *option("--out", run.path), "--resume", *_device(arguments), *(["FILE"] if note else [])]
    line = f"; to resume:  {to_paste([*arguments.program, *words])}"
    return f"{line}  ({note})" if note else line


def _device(arguments: argparse.Namespace) -> list[str]:
    """Returns the words that choose the device again, if it was chosen by hand."""
    return [] if arguments.device is None else option("--device", arguments.device)


def _finish(plan: _Plan, history: TrainingHistory, arguments: argparse.Namespace) -> None:
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
    left = run.config.exists() and run.weights.exists()
    return not left or earlier.best is None or lowest_loss(history) < lowest_loss(earlier)


def _to_try(plan: _Plan, directory: Path, arguments: argparse.Namespace) -> str:
    """Returns the command that writes a text with the model in a directory."""
    prompt = short_prompt(plan.prompt)
    what = positional(prompt) if prompt else option("--samples", _SAMPLES)
    return to_paste([*arguments.program, "generate", *option("--model", directory), *_device(arguments), *what])


def _report(plan: _Plan, history: TrainingHistory) -> list[str]:
    """Writes the report on a run, and returns its lines; none if there is nothing to compare its model with."""
    model, run = GPT2Model.from_pretrained(plan.run.path).to(plan.model.device), plan.run
    report = measured(model, plan.tokenizer, plan.corpus.parts, history, prompt=plan.prompt,
                      seed=plan.config.seed)  # fmt: skip
    if report is None:
        run.report.unlink(missing_ok=True)
        return []
    report.save(run.report)
    return report_lines(run.path)


def _plot_if_possible(run: RunDirectory, history: TrainingHistory, arguments: argparse.Namespace) -> bool:
    try:
        plot_history(history, run.plot, baselines_in(run.path))
    except ImportError as error:
        write_line(f"no plot: {error}; then:  {to_paste([*arguments.program, 'plot', *positional(run.path)])}")
        return False
    return True
