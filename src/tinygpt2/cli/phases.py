"""The training of a run: of its model, or of first models and then of the student that learns from them."""

import argparse
from dataclasses import replace
from typing import Any

import torch
from typing_extensions import override

from tinygpt2._internal.console import write_line
from tinygpt2.cli.corpus import make_loaders
from tinygpt2.cli.models import model_of
from tinygpt2.cli.options import save_options
from tinygpt2.cli.plan import Plan
from tinygpt2.cli.settings import default_sampler
from tinygpt2.cli.signals import STOPS
from tinygpt2.cli.train_options import SMALL, SNAPSHOTS, to_save
from tinygpt2.distributed.ranks import Ranks
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.recipe.students import student_training
from tinygpt2.run.directory import RunDirectory
from tinygpt2.tokenizers.storage import save_tokenizer
from tinygpt2.training.callbacks.base import Callback
from tinygpt2.training.callbacks.samples import TextSamples
from tinygpt2.training.callbacks.snapshots import Snapshots
from tinygpt2.training.callbacks.stopping import EarlyStopping
from tinygpt2.training.distillation import distil
from tinygpt2.training.history import TrainingHistory
from tinygpt2.training.state import TrainState
from tinygpt2.training.train import train


class Phases:
    """The training of a plan, in one phase or in several.

    With teachers, each of them is trained on the text first, in a directory and with random numbers of its own; then
    the model of the run begins as the first of them and learns from them all. What has been done is not done again when
    a run is resumed.

    Args:
        plan: The plan.
        arguments: The command line.
        device: Device to train on.
        ranks: The processes that train together.
    """

    def __init__(self, plan: Plan, arguments: argparse.Namespace, device: torch.device, ranks: Ranks) -> None:
        self.plan, self.arguments, self.device, self.ranks = plan, arguments, device, ranks
        self.noted = _NotedRun(plan)
        self.teachers = plan.options.teachers or 0

    def train(self) -> TrainingHistory:
        """Trains the model, and returns the history of its training."""
        plan = self.plan
        try:
            if not self.teachers:
                config = replace(plan.config, sample_prompt=None)
                return train(plan.model, plan.train_loader, plan.val_loader, config, **self._options(plan.run))
            firsts = [self._teacher(number) for number in range(1, self.teachers + 1)]
            return self._student(firsts)
        except STOPS as stop:
            stop.add_note(self.noted.stopped)
            raise

    def _teacher(self, number: int) -> GPT2Model:
        """Returns one of the first models, which is trained unless that has been done."""
        plan, directory = self.plan, self.plan.run.teacher(number)
        options = replace(plan.options, seed=plan.options.seed + number - 1)
        model = model_of(directory, options, plan.tokenizer, resume=False)
        if not self.ranks.on_first(directory.has_model):
            self._say(number, f"a teacher, in {directory.path}")
            loader, _ = make_loaders(plan.corpus, options, plan.tokenizer, model.config.context_length)
            config = replace(plan.config, seed=options.seed, sample_prompt=None)
            history = train(model, loader, plan.val_loader, config, **self._options(directory))
            if self.ranks.first:
                history.save(directory.history)
                model.save_pretrained(directory.path, tokenizer=plan.tokenizer)
        saved = self.ranks.from_first(lambda: GPT2Model.from_pretrained(directory.path).state_dict())
        model.cpu().load_state_dict(saved)
        return model

    def _student(self, firsts: list[GPT2Model]) -> TrainingHistory:
        """Trains the model of the run, and returns its history, with the time of its teachers."""
        plan = self.plan
        self._say(self.teachers + 1, f"the student, in {plan.run.path}")
        plan.model.load_state_dict(firsts[0].state_dict())
        history = distil(
            plan.model,
            firsts,
            plan.train_loader,
            plan.val_loader,
            student_training(replace(plan.config, sample_prompt=None), plan.options.student_steps or 1),
            samples=plan.run.samples,
            **self._options(plan.run),
        )
        if not self.ranks.first:
            return history
        paths = [plan.run.teacher(number + 1).history for number in range(self.teachers)]
        return _after(history, [TrainingHistory.load(path) for path in paths])

    def _samples(self, run: RunDirectory) -> list[Callback]:
        """Returns what writes samples of the run's model, drawn as `generate` draws: the likeliest tokens loop."""
        config, tokenizer = self.plan.config, self.plan.tokenizer
        if config.sample_prompt is None or run.path != self.plan.run.path:
            return []
        length = config.sample_tokens
        return [TextSamples(config.sample_prompt, tokenizer, max_new_tokens=length, sampler=default_sampler())]

    def _snapshots(self, run: RunDirectory) -> list[Callback]:
        """Returns what keeps snapshots of the run's model; a student's begin with those of its first teacher."""
        plan = self.plan
        wanted = plan.options.snapshots
        if wanted is None:
            wanted = SNAPSHOTS if plan.model.num_parameters() <= SMALL else 0
        later = wanted // 4 if self.teachers else 0  # of the student, which has little left to learn
        counts = {plan.run.teacher(1).path: wanted - later, plan.run.path: later or wanted}
        count = counts.get(run.path, 0)
        beginning = not self.teachers or run.path != plan.run.path
        return [Snapshots(run, count, beginning=beginning, writes=self.ranks.first)] if count else []

    def _say(self, number: int, what: str) -> None:
        if not self.arguments.quiet:
            write_line(f"phase {number} of {self.teachers + 1}: {what}")

    def _options(self, run: RunDirectory) -> dict[str, Any]:
        """Returns the options of a training with checkpoints in a directory."""
        options, arguments = self.plan.options, self.arguments
        patience = options.early_stopping  # 0 is never
        begun = not self.teachers or self.ranks.on_first(lambda: bool(run.checkpoints()))
        return {
            "callbacks": [
                self.noted,
                *self._samples(run),
                *self._snapshots(run),
                *([EarlyStopping(patience)] if patience else []),
            ],
            "tokenizer": self.plan.tokenizer,
            "device": self.device,
            "checkpoint_dir": run.path,
            "checkpoint_every": options.checkpoint_every,
            "checkpoint_keep": options.keep,
            "resume": arguments.resume and begun,
            "allow_changes": arguments.allow_changes,
            "keep_best": True,
            "progress": not arguments.quiet,
        }


def _after(history: TrainingHistory, earlier: list[TrainingHistory]) -> TrainingHistory:
    """Returns a history whose time begins when that of earlier phases did."""
    ends = [each.seconds[-1] for each in earlier]
    before = None if None in ends else sum(filter(None, ends))
    times = [None if before is None or seconds is None else before + seconds for seconds in history.seconds]
    return replace(history, seconds=times)


class _NotedRun(Callback):
    """Saves a run's options and tokenizer once it starts, after an incompatible resume has been rejected."""

    def __init__(self, plan: Plan) -> None:
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
