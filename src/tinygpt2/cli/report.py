"""The report on a run: what its model's figure is to be compared with, and what would make it better."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from tinygpt2.cli.common import history_in
from tinygpt2.evaluation.baselines import Baselines
from tinygpt2.run.directory import RunDirectory
from tinygpt2.run.report import Report
from tinygpt2.training.history import TrainingHistory

STRETCH = 50
"""Characters from which on a stretch of generated text counts as copied."""

_SHORT = 4096  # bytes of held-out text below which the figure says little
_EARLY = 0.8  # share of the steps before which the best one is early
_RISE = 0.01  # by how much the validation loss has risen since, to be worth a word
_CLOSE = 0.05  # validation losses this much above the training loss, or less, mean that the time is what limits
_FAR = 0.15  # and this much, or more, the text

_Limit = Literal["overfitted", "unread", "time", "text", "both"]

_BETTER: Mapping[_Limit, str] = MappingProxyType(
    {
        "overfitted": "It overfitted from step {step:,} of {last:,} on: {epochs:.2g} epochs are enough, and more text "
        "would help.",
        "unread": "It has read {passes:.0%} of the text: more minutes would help.",
        "time": "It predicts new text about as well as its training text: more minutes or a larger model would help.",
        "text": "It predicts its training text much better than new text: more text would help, not more minutes.",
        "both": "It predicts its training text better than new text: more text would help, more minutes a little.",
    }
)
"""Advice for a model that predicts new text better than n-grams do, by what limited its run."""

_SMALL_TEXT = "the text is too small for this model."
_LITTLE_TIME = "it needs more minutes, or should be smaller."
_WORSE: Mapping[_Limit, str] = MappingProxyType(
    {
        "overfitted": "It predicts new text worse than n-grams do, and overfitted from step {step:,} on: "
        f"{_SMALL_TEXT}",
        "unread": f"It predicts new text worse than n-grams do and has read {{passes:.0%}} of the text: {_LITTLE_TIME}",
        "time": f"It predicts new text worse than n-grams do, and its training text no better: {_LITTLE_TIME}",
        "text": f"It predicts new text worse than n-grams do, and its training text much better: {_SMALL_TEXT}",
        "both": "It predicts new text worse than n-grams do: it needs more text and more minutes.",
    }
)
"""Advice for any other."""

_IN_VAIN = (
    "It predicts new text no better than before fine-tuning: more text of its kind or a lower learning rate may help."
)


def baselines_in(directory: Path) -> Baselines | None:
    """Returns the baselines of the run in a directory; ``None`` if they are not known."""
    path = RunDirectory(directory).report
    return Report.load(path).baselines if path.exists() else None


def report_lines(directory: Path) -> list[str]:
    """Returns the report in a run directory as lines to print; none if it has none."""
    run = RunDirectory(directory)
    if not run.report.exists():
        return []
    report, history = Report.load(run.report), history_in(directory)
    if history is None or not history.steps or history.steps[-1] != report.step:
        return []  # it is of a run that was made longer since
    said = advice(report.bits_per_byte, report.baselines.ngram, history, taught=run.teacher(1).path.is_dir())
    if report.pretrained is not None and report.bits_per_byte >= report.pretrained:
        said = _IN_VAIN
    return [*table(report), *notes(report), *([said] if said else [])]


def table(report: Report) -> list[str]:
    """Returns the figures of the model and of the baselines, one in a line."""
    rows = {"on held-out text": "bits per byte"} | {name: f"{bits:.2f}" for name, bits in report.rows().items()}
    if report.standard_error is not None:
        rows["this model"] += f" ± {report.standard_error:.2f}"
    width = max(map(len, rows))
    return [f"{name:{width}}  {value}" for name, value in rows.items()]


def notes(report: Report) -> Iterator[str]:
    """Yields what the figures were measured on, and how much of a generated text is copied."""
    against, total = report.baselines, report.held_out_bytes
    part = f"{against.bytes:,}" if against.bytes == total else f"the first {against.bytes:,} of {total:,}"
    error = "" if report.standard_error is None else "; ± is a standard error"
    short = ", a short text, so the figures say little" if against.bytes < _SHORT else ""
    yield f"measured on {part} bytes{short}{error}"
    if against.training_bytes < against.training_bytes_in_all:
        yield (
            f"the n-grams and xz know the last {against.training_bytes:,} of {against.training_bytes_in_all:,} bytes "
            "of the training text, the model all of it"
        )
    if report.copied_share is not None:
        yield (
            f"of {report.generated_characters:,} characters generated, {report.copied_share:.0%} are in stretches of "
            f"{STRETCH} or more copied from the training text"
        )


def advice(bits_per_byte: float, ngram: float, history: TrainingHistory, *, taught: bool = False) -> str:
    """Returns a sentence on what would make a model better.

    Args:
        bits_per_byte: Loss of the model on held-out text.
        ngram: What n-grams need for it.
        history: The evaluations of the run.
        taught: Whether it is of a student, whose teachers have read the text.
    """
    best = history.best
    if best is None:
        return ""
    limit = _limit(history, best, taught=taught)
    words = _WORSE if bits_per_byte > ngram else _BETTER
    return words[limit].format(
        step=history.steps[best], last=history.steps[-1], epochs=history.epochs[best], passes=history.epochs[-1]
    )


def _limit(history: TrainingHistory, best: int, *, taught: bool) -> _Limit:
    """Returns what limited a run.

    Whether the loss was still falling at the end does not tell: if the learning rate falls to zero, it always was. How
    much worse the model predicts new text than its training text does tell: if little, there was more to learn from it.
    """
    training, loss, at_end = history.train_losses[best], history.val_losses[best] or 0.0, history.val_losses[-1] or 0.0
    if history.steps[best] <= _EARLY * history.steps[-1] and not at_end <= (1 + _RISE) * loss:
        return "overfitted"
    if history.epochs[-1] < 1 and not taught:
        return "unread"
    if loss <= (1 + _CLOSE) * training:
        return "time"
    return "text" if loss >= (1 + _FAR) * training else "both"
