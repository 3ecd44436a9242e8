"""What a run directory tells of a model's training: losses, figures, snapshots."""

from pathlib import Path

from torch import Tensor

from tinygpt2.formats.safetensors import read_safetensors
from tinygpt2.model.rounding import restored_weights
from tinygpt2.page.model_page import Past
from tinygpt2.run.directory import RunDirectory
from tinygpt2.run.report import Report
from tinygpt2.training.history import TrainingHistory

_LISTS = ("epochs", "tokens_seen", "train_losses", "val_losses", "learning_rates", "train_bits_per_byte",
          "val_bits_per_byte")  # fmt: skip


def past_of(run: RunDirectory) -> Past:
    """Returns what is known of a run; of a student also the training of its first teacher, as which it began.

    Raises:
        ValueError: If a file is damaged.
    """
    history, snapshots = _history(run), _snapshots(run)
    report = Report.load(run.report) if run.report.exists() else None
    if report is not None and (history is None or history.steps[-1] != report.step):
        report = None  # it is of a run that was made longer since
    teacher = run.teacher(1)
    before = _history(teacher)
    if history is not None and before is not None:
        begin = before.steps[-1]
        history = _joined(before, history)
        snapshots = _snapshots(teacher) | {begin + step: weights for step, weights in snapshots.items()}
    return Past(history=history, report=report, snapshots=snapshots)


def _history(run: RunDirectory) -> TrainingHistory | None:
    history = TrainingHistory.load(run.history) if run.history.exists() else None
    return history if history and history.steps else None


def _joined(before: TrainingHistory, after: TrainingHistory) -> TrainingHistory:
    """Returns two histories as one; the second begins with the model at the end of the first."""
    steps = before.steps + [before.steps[-1] + step for step in after.steps[1:]]
    return TrainingHistory(steps=steps, **{name: getattr(before, name) + getattr(after, name)[1:] for name in _LISTS})


def _snapshots(run: RunDirectory) -> dict[int, dict[str, Tensor]]:
    """Returns the weights that a run has kept, by their steps, in order."""
    return {step: restored_weights(read_safetensors(path)) for step, path in sorted(map(_with_step, run.snapshots()))}


def _with_step(path: Path) -> tuple[int, Path]:
    return int(path.stem), path
