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
from tinygpt2.cli.signals import STOPS
from tinygpt2.cli.train_options import to_save
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.recipe.students import student_training
from tinygpt2.run.directory import RunDirectory
from tinygpt2.tokenizers.storage import save_tokenizer
from tinygpt2.training.callbacks.base import Callback
from tinygpt2.training.callbacks.stopping import EarlyStopping
from tinygpt2.training.distillation import distil
from tinygpt2.training.history import TrainingHistory
from tinygpt2.training.state import TrainState
from tinygpt2.training.train import train


def trained(plan: Plan, arguments: argparse.Namespace, device: torch.device) -> TrainingHistory:
    """Trains the model of a plan, in one phase or in several, and returns the history of its training.

    With teachers, each of them is trained on the text first, in a directory and with random numbers of its own; then
    the model of the run begins as the first of them and learns from them all. What has been done is not done again when
    a run is resumed.
    """
    noted, teachers = _NotedRun(plan), plan.options.teachers or 0
    try:
        if not teachers:
            options = _options(plan, plan.run, arguments, device, noted)
            return train(plan.model, plan.train_loader, plan.val_loader, plan.config, **options)
        firsts = [_teacher(number, plan, arguments, device, noted) for number in range(1, teachers + 1)]
        _say(f"phase {teachers + 1} of {teachers + 1}: the student, in {plan.run.path}", arguments)
        plan.model.load_state_dict(firsts[0].state_dict())
        history = distil(
            plan.model,
            firsts,
            plan.train_loader,
            plan.val_loader,
            student_training(plan.config, plan.options.student_steps or 1),
            samples=plan.run.samples,
            **_options(plan, plan.run, arguments, device, noted),
        )
        return _after(history, [TrainingHistory.load(plan.run.teacher(i + 1).history) for i in range(teachers)])
    except STOPS as stop:
        stop.add_note(noted.stopped)
        raise


def _teacher(
    number: int, plan: Plan, arguments: argparse.Namespace, device: torch.device, noted: "_NotedRun"
) -> GPT2Model:
    """Returns one of the first models, which is trained unless that has been done."""
    directory, teachers = plan.run.teacher(number), plan.options.teachers or 0
    if not directory.has_model():
        _say(f"phase {number} of {teachers + 1}: a teacher, in {directory.path}", arguments)
        options = replace(plan.options, seed=plan.options.seed + number - 1)
        model = model_of(directory, options, plan.tokenizer, resume=False)
        loader, _ = make_loaders(plan.corpus, options, plan.tokenizer, model.config.context_length)
        config = replace(plan.config, seed=options.seed, sample_prompt=None)
        history = train(model, loader, plan.val_loader, config, **_options(plan, directory, arguments, device, noted))
        history.save(directory.history)
        model.save_pretrained(directory.path, tokenizer=plan.tokenizer)
    return GPT2Model.from_pretrained(directory.path)


def _after(history: TrainingHistory, earlier: list[TrainingHistory]) -> TrainingHistory:
    """Returns a history whose time begins when that of earlier phases did."""
    ends = [each.seconds[-1] for each in earlier]
    before = None if None in ends else sum(filter(None, ends))
    times = [None if before is None or seconds is None else before + seconds for seconds in history.seconds]
    return replace(history, seconds=times)


def _say(line: str, arguments: argparse.Namespace) -> None:
    if not arguments.quiet:
        write_line(line)


def _options(
    plan: Plan, run: RunDirectory, arguments: argparse.Namespace, device: torch.device, noted: "_NotedRun"
) -> dict[str, Any]:
    """Returns the options of a training with checkpoints in a directory."""
    patience = plan.options.early_stopping
    return {
        "callbacks": [noted, *([EarlyStopping(patience)] if patience else [])],  # 0 is never
        "tokenizer": plan.tokenizer,
        "device": device,
        "checkpoint_dir": run.path,
        "checkpoint_every": plan.options.checkpoint_every,
        "checkpoint_keep": plan.options.keep,
        "resume": arguments.resume and (not plan.options.teachers or bool(run.checkpoints())),
        "allow_changes": arguments.allow_changes,
        "keep_best": True,
        "progress": not arguments.quiet,
    }


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
