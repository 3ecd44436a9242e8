"""The options of ``tinygpt2 train``: what they may be, their defaults, and how the parser explains them."""

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

from tinygpt2._internal.checks import Bool, Check, Choice, Int, Many, Number, Optional, Text, check_fields
from tinygpt2.cli.options import Command, Commands, add_command, add_device, add_option, read_options
from tinygpt2.config import MODEL_RANGES, PRESETS, TRAINING_RANGES, GPT2Config, Precision, Schedule, TrainingConfig
from tinygpt2.run.directory import RunDirectory

PRESET = "gpt2-nano"  # of a new model, unless --preset says otherwise
CONTEXT_LENGTH = 128  # of a new model, unless --context-length says otherwise

EVALUATIONS = 20  # in a run, unless --eval-every says otherwise
RATE_TIMES_WIDTH = 0.5  # the wider a model, the smaller its steps: GPT-3 paper, table 2.1, 6e-4 at a width of 768
WARMUP_STEPS = 100  # unless --warmup-steps says otherwise, or the run is short

TOKENIZERS = ("trimmed", "gpt2", "char")

RANGES: Mapping[str, Check] = MappingProxyType(
    {
        "files": Many(Text()),
        "preset": Optional(Choice(tuple(PRESETS))),
        "context_length": Optional(MODEL_RANGES["context_length"]),
        "dropout": Optional(MODEL_RANGES["dropout"]),
        "tokenizer": Optional(Choice(TOKENIZERS)),
        "from_pretrained": Optional(Text()),
        "train_ratio": Number(maximum=1, above_minimum=True, below_maximum=True),
        "batch_size": Int(),
        "accumulate": TRAINING_RANGES["gradient_accumulation_steps"],
        "epochs": TRAINING_RANGES["epochs"],
        "max_steps": TRAINING_RANGES["max_steps"],
        "learning_rate": Optional(TRAINING_RANGES["learning_rate"]),
        "schedule": TRAINING_RANGES["schedule"],
        "warmup_steps": Optional(TRAINING_RANGES["warmup_steps"]),
        "weight_decay": TRAINING_RANGES["weight_decay"],
        "precision": TRAINING_RANGES["precision"],
        "compile": TRAINING_RANGES["compile"],
        "seed": TRAINING_RANGES["seed"],
        "eval_every": TRAINING_RANGES["eval_every"],
        "eval_batches": TRAINING_RANGES["eval_batches"],
        "sample_prompt": TRAINING_RANGES["sample_prompt"],
        "checkpoint_every": Optional(Int()),
        "keep": Int(minimum=2),
        "early_stopping": Optional(Int()),
    }
)
"""What each field of `TrainOptions` may be."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What makes a run what it is, and is saved with it; for ``None`` the run chooses, by its model or its text.

    Where a default is not that of `TrainingConfig` or of `train`, docs/reference/command-line.md says why.
    """

    files: tuple[str, ...] = ()
    preset: str | None = None
    context_length: int | None = None
    dropout: float | None = None
    tokenizer: str | None = None
    from_pretrained: str | None = None
    train_ratio: float = 0.9
    batch_size: int = 4
    accumulate: int = TrainingConfig.gradient_accumulation_steps
    epochs: int = 15
    max_steps: int | None = TrainingConfig.max_steps
    learning_rate: float | None = None
    schedule: Schedule = "cosine"
    warmup_steps: int | None = None
    weight_decay: float = TrainingConfig.weight_decay
    precision: Precision = TrainingConfig.precision
    compile: bool = TrainingConfig.compile
    seed: int = TrainingConfig.seed
    eval_every: int | None = None
    eval_batches: int | None = 20
    sample_prompt: str | None = None
    checkpoint_every: int | None = None
    keep: int = 2
    early_stopping: int | None = None

    def __post_init__(self) -> None:
        check_fields(self, RANGES)
        if self.from_pretrained is not None and (self.preset or self.tokenizer):
            flag = "--preset" if self.preset else "--tokenizer"
            raise ValueError(
                f"{flag} is of a new model, and --from-pretrained brings one with a size and a tokenizer of its own; "
                "leave out one of the two"
            )


_DEFAULTS: Mapping[str, object] = {
    **{field.name: field.default for field in fields(TrainOptions)},
    "preset": PRESET,
    "context_length": CONTEXT_LENGTH,
    "dropout": GPT2Config.dropout,
    "tokenizer": TOKENIZERS[0],
}


def options_of(arguments: argparse.Namespace, run: RunDirectory) -> TrainOptions:
    """Returns the options that were given; in a run to resume those that it began with take the place of the defaults.

    Raises:
        ValueError: If there is no run to resume, or what is saved are not the options of one.
    """
    given = {name: value for name, value in vars(arguments).items() if name in RANGES}
    return TrainOptions(**(_saved(run) if arguments.resume else {}) | given)


def _saved(run: RunDirectory) -> dict[str, Any]:
    if not run.options.exists():
        raise ValueError(f"{run.path} has no {run.options.name}: no run of 'tinygpt2 train' began there")
    return read_options(run.options, RANGES)


def to_save(options: TrainOptions) -> dict[str, object]:
    """Returns options as JSON has them."""
    return asdict(options)


def add_parser(commands: Commands, run: Command) -> None:
    """Adds the command, which ``run`` does."""
    parser = add_command(
        commands,
        "train",
        run,
        "train a model on text files",
        "Without a FILE it trains on the article that comes with the package. The run directory gets the model "
        "(config.json and model.safetensors, as Hugging Face's transformers has them), the losses (history.json) and "
        "their plot (losses.png), two checkpoints, and in best the model with the lowest validation loss. Losses are "
        "in nats per token; an untrained model's is about the logarithm of the vocabulary. When the validation loss "
        "rises while the training loss falls, the model memorises the text: take more text, a smaller model, more "
        "dropout or fewer epochs.",
    )
    files_help = "UTF-8 text files, joined; or one of tokens"
    parser.add_argument("files", metavar="FILE", nargs="*", default=argparse.SUPPRESS, help=files_help)
    add_option(parser, "--out", "run directory, new or empty (default: a new one in runs/)", metavar="DIR")
    _add_model_options(parser)
    _add_data_options(parser)
    _add_optimisation_options(parser)
    _add_report_options(parser)
    _add_resuming_options(parser)
    add_device(parser)


def _add(group: "argparse._ArgumentGroup", name: str, help_text: str, metavar: str | None = "N") -> None:
    """Adds an option of a run, by its range and its default."""
    flag = f"--{name.replace('_', '-')}"
    check, default = RANGES[name], _DEFAULTS[name]
    add_option(group, flag, help_text, check, metavar=metavar, default=default, only_if_given=True)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    _add(group, "preset", "size of the model", None)
    _add(group, "context_length", "tokens that the model can look back on")
    _add(group, "dropout", "against overfitting", "P")
    _add(
        group,
        "tokenizer",
        "trimmed: those of GPT-2's tokens that the text needs, for a small and fast model; gpt2: all 50,257; char: one "
        "token for each character of the text",
        None,
    )
    add_option(
        group,
        "--from-pretrained",
        "fine-tune the model in DIR, with its size and tokenizer; --dropout and --context-length, which may be less, "
        "are then by default what it has",
        metavar="DIR",
        only_if_given=True,
    )


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    _add(group, "train_ratio", "share of the text to train on; the rest, from the end, validates", "R")
    _add(group, "batch_size", "windows per batch")
    _add(group, "accumulate", "batches per step: as one N times as large, in the memory of one")


def _add_optimisation_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("optimisation")
    _add(group, "epochs", "passes over the text")
    _add(group, "max_steps", "steps, instead of epochs")
    _add(
        group,
        "learning_rate",
        f"highest rate (default: {RATE_TIMES_WIDTH} divided by the width of the model; a tenth of that with "
        "--from-pretrained)",
        "X",
    )
    _add(group, "schedule", "how the rate changes after the warm-up", None)
    _add(
        group,
        "warmup_steps",
        f"steps in which the rate rises from nothing (default: {WARMUP_STEPS}, or a fifth of a shorter run)",
    )
    _add(group, "weight_decay", "AdamW's", "X")
    _add(group, "precision", "auto is bf16 on a GPU that has it", None)
    _add(group, "compile", "compile the model, which pays on a GPU")
    _add(group, "seed", "of weights, order and dropout: the same seed gives the same run")


def _add_report_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("report")
    _add(group, "eval_every", f"steps between evaluations (default: {EVALUATIONS} in the run)")
    _add(group, "eval_batches", "batches that an evaluation reads of each part")
    _add(group, "sample_prompt", "text to continue after each epoch (default: how the text begins)", "TEXT")
    add_option(group, "--quiet", "no progress and no samples", Bool())


def _add_resuming_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("stopping and resuming")
    add_option(
        group,
        "--resume",
        "resume the run in --out from its newest checkpoint, with the options that it began with; more --epochs or "
        "--max-steps make it longer",
        Bool(),
    )
    add_option(group, "--allow-changes", "resume although the text or other options are not the same", Bool())
    _add(
        group,
        "checkpoint_every",
        "steps between checkpoints (default: as often as a hundredth of the time allows)",
    )
    _add(group, "keep", "checkpoints to keep")
    _add(group, "early_stopping", "end when the validation loss was not lower in N evaluations")
