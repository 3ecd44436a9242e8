"""The options of ``tinygpt2 train``: their ranges and defaults, and how they go together."""

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tinygpt2._internal.ranges import Check, Choice, Int, Many, Number, Optional, Text, check_fields
from tinygpt2.cli.options import Escaped, Pattern, read_options
from tinygpt2.config import (
    MODEL_RANGES,
    PRESETS,
    TRAINING_RANGES,
    OptimizerName,
    Precision,
    Schedule,
    TrainingConfig,
)
from tinygpt2.data.noise import NOISE_RANGES, TextNoise
from tinygpt2.formats.hub import is_name
from tinygpt2.recipe.students import STUDENT_STEPS, TEACHERS

if TYPE_CHECKING:
    from tinygpt2.run.directory import RunDirectory

AUTO = "auto"
TOKENIZERS = ("bpe", "trimmed", "gpt2", "char")
"""The names of tokenizers beside ``AUTO``; any other is the path of one."""

SNAPSHOTS = 8
"""Snapshots that a run keeps of a small model."""

SMALL = 5_000_000
"""Parameters that a small model has at most: its snapshots have 40 MB."""

SMALLEST_VOCABULARY = 257  # a token for each byte, and the end of text


RANGES: Mapping[str, Check] = MappingProxyType(
    {
        "files": Many(Text()),
        "field": Text(),
        "separator": Optional(Escaped()),
        "val": Many(Text()),
        "minutes": Optional(Number(above_minimum=True)),
        "preset": Optional(Choice(tuple(PRESETS))),
        "n_layer": Optional(MODEL_RANGES["n_layer"]),
        "n_head": Optional(MODEL_RANGES["n_head"]),
        "n_embd": Optional(MODEL_RANGES["n_embd"]),
        "context_length": Optional(MODEL_RANGES["context_length"]),
        "dropout": Optional(MODEL_RANGES["dropout"]),
        "tokenizer": Optional(Text()),
        "vocab_size": Optional(Int(minimum=SMALLEST_VOCABULARY)),
        "from_pretrained": Optional(Text()),
        "train_only": Optional(Pattern()),
        "train_ratio": Number(maximum=1, above_minimum=True, below_maximum=True),
        "batch_size": Optional(Int()),
        "accumulate": Optional(TRAINING_RANGES["gradient_accumulation_steps"]),
        "bpe_dropout": Optional(NOISE_RANGES["bpe_dropout"]),
        "token_noise": Optional(NOISE_RANGES["token_noise"]),
        "noise_epochs": NOISE_RANGES["epochs"],
        "teachers": Optional(TEACHERS),
        "student_steps": STUDENT_STEPS,
        "epochs": Optional(TRAINING_RANGES["epochs"]),
        "max_steps": TRAINING_RANGES["max_steps"],
        "optimizer": Optional(TRAINING_RANGES["optimizer"]),
        "spelling": Optional(TRAINING_RANGES["spelling"]),
        "learning_rate": Optional(TRAINING_RANGES["learning_rate"]),
        "schedule": Optional(TRAINING_RANGES["schedule"]),
        "warmup_steps": Optional(TRAINING_RANGES["warmup_steps"]),
        "weight_decay": Optional(TRAINING_RANGES["weight_decay"]),
        "ema_decay": Optional(TRAINING_RANGES["ema_decay"]),
        "precision": TRAINING_RANGES["precision"],
        "compile": TRAINING_RANGES["compile"],
        "seed": TRAINING_RANGES["seed"],
        "eval_every": TRAINING_RANGES["eval_every"],
        "eval_batches": TRAINING_RANGES["eval_batches"],
        "sample_prompt": TRAINING_RANGES["sample_prompt"],
        "snapshots": Optional(Int(minimum=0)),
        "checkpoint_every": Optional(Int()),
        "keep": Int(minimum=2),
        "early_stopping": Optional(Int(minimum=0)),
    }
)
"""The range of each field of `TrainOptions`."""

_CHOSEN = ("context_length", "dropout", "batch_size", "accumulate", "bpe_dropout", "token_noise", "optimizer",
           "spelling", "learning_rate", "schedule", "warmup_steps", "weight_decay",
           "ema_decay")  # fmt: skip
_SAVED: Mapping[str, Check] = MappingProxyType(
    {name: check.inner if name in _CHOSEN and isinstance(check, Optional) else check for name, check in RANGES.items()}
)
"""The ranges of what a run saves, in which all of its recipe is chosen."""

_OF_EARLIER_VERSIONS: Mapping[str, object] = MappingProxyType(
    {
        "bpe_dropout": TextNoise.bpe_dropout,
        "token_noise": TextNoise.token_noise,
        "optimizer": TrainingConfig.optimizer,
        "spelling": TrainingConfig.spelling,
        "weight_decay": TrainingConfig.weight_decay,
        "ema_decay": TrainingConfig.ema_decay,
    }
)
"""What a run has whose options were saved before there were these."""

FLAGS: Mapping[str, str] = MappingProxyType(
    {name: f"--{name.replace('_', '-')}" for name in RANGES if name != "files"}
    | {
        "gradient_accumulation_steps": "--accumulate",
        "checkpoint_keep": "--keep",
        "checkpoint_dir": "--out",
        "resume": "--resume",
        "allow_changes": "--allow-changes",
    }
)
"""The flag of each field of `TrainOptions`, and of what has another name in the library."""

_SHAPE = ("n_layer", "n_head", "n_embd")
_NEVER_CHANGE = (
    "preset",
    *_SHAPE,
    "tokenizer",
    "vocab_size",
    "from_pretrained",
    "teachers",
)  # whatever --allow-changes says
_PATHS = ("tokenizer", "from_pretrained")


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The options that define a run and are saved with it; ``None`` is replaced according to the model or the text.

    If a default differs from that of `TrainingConfig` or `train`, docs/reference/command-line.md gives the reason.
    """

    files: tuple[str, ...] = ()
    field: str = "text"
    separator: str | None = None
    val: tuple[str, ...] = ()
    minutes: float | None = None
    preset: str | None = None
    n_layer: int | None = None
    n_head: int | None = None
    n_embd: int | None = None
    context_length: int | None = None
    dropout: float | None = None
    tokenizer: str | None = None
    vocab_size: int | None = None
    from_pretrained: str | None = None
    train_only: str | None = None
    train_ratio: float = 0.9
    batch_size: int | None = None
    accumulate: int | None = None
    bpe_dropout: float | None = None
    token_noise: float | None = None
    noise_epochs: int | None = None
    teachers: int | None = None
    student_steps: int | None = None
    epochs: int | None = None
    max_steps: int | None = None
    optimizer: OptimizerName | None = None
    spelling: bool | None = None
    learning_rate: float | None = None
    schedule: Schedule | None = None
    warmup_steps: int | None = None
    weight_decay: float | None = None
    ema_decay: float | None = None
    precision: Precision = TrainingConfig.precision
    compile: bool | None = TrainingConfig.compile
    seed: int = TrainingConfig.seed
    eval_every: int | None = None
    eval_batches: int | None = None
    sample_prompt: str | None = None
    snapshots: int | None = None
    checkpoint_every: int | None = None
    keep: int = 2
    early_stopping: int | None = None

    def __post_init__(self) -> None:
        check_fields(self, RANGES)
        names = ("preset", *_SHAPE, "tokenizer", "vocab_size")
        given = [FLAGS[name] for name in names if getattr(self, name) is not None]
        if self.from_pretrained is not None and given:
            flag = given[0]
            raise ValueError(
                f"{flag} is for a new model, but --from-pretrained gives one with its own size and tokenizer; omit one "
                "of the two"
            )

        if self.from_pretrained is not None and self.teachers:
            raise ValueError(
                "--teachers trains new models, but --from-pretrained gives one to fine-tune; omit one of the two"
            )

        if self.train_only is not None and self.from_pretrained is None:
            raise ValueError(
                "--train-only leaves the other weights as they are, which a new model has at random; pass "
                "--from-pretrained, or omit it"
            )

        if self.student_steps is not None and self.teachers == 0:
            raise ValueError("--student-steps has no effect without --teachers; omit it, or pass --teachers N")

    @property
    def noise(self) -> TextNoise | None:
        """The noise on the text to train on, if there is any."""
        if not (self.bpe_dropout or self.token_noise):
            return None
        return TextNoise(
            bpe_dropout=self.bpe_dropout or 0.0, token_noise=self.token_noise or 0.0, epochs=self.noise_epochs
        )


DEFAULTS: Mapping[str, object] = {
    **{field.name: field.default for field in fields(TrainOptions)},
    "tokenizer": AUTO,
    "val": None,
}
"""What help texts show."""


def options_of(arguments: argparse.Namespace, run: "RunDirectory") -> TrainOptions:
    """Returns the given options; in a run to resume, its saved options replace the defaults.

    Raises:
        ValueError: If there is no run to resume, its saved options are invalid, or an option that was given would have
            no effect.
    """
    given = {name: value for name, value in vars(arguments).items() if name in RANGES}
    if given.get("tokenizer") == AUTO:  # the same as none
        del given["tokenizer"]
    _check_effects(given, arguments)
    if not arguments.resume:
        return TrainOptions(**given)
    saved = saved_options(run)
    _check_unchanged(saved, given, run)
    if "epochs" in given:
        saved["max_steps"] = None  # either of the two defines the length
    return TrainOptions(**saved | given)


def _check_effects(given: Mapping[str, object], arguments: argparse.Namespace) -> None:
    """Raises ``ValueError`` if an option has no effect because of another."""
    if "epochs" in given and "max_steps" in given:
        raise ValueError("--epochs and --max-steps both define the length of the run; omit one of the two")
    shape = [name for name in _SHAPE if name in given]
    if "preset" in given and shape:
        raise ValueError(f"--preset has a shape of its own, and {FLAGS[shape[0]]} changes it; omit one of the two")
    if "minutes" in given and arguments.resume:
        raise ValueError(
            "--minutes is for a new run, whose length it decides; omit it, or pass --epochs or --max-steps to extend "
            "the run"
        )
    if "val" in given and "train_ratio" in given:
        raise ValueError(
            "--train-ratio divides the text, but --val gives other text to validate on; omit one of the two"
        )
    if "vocab_size" in given and given.get("tokenizer", "bpe") != "bpe":
        raise ValueError(
            f"--vocab-size is for byte pairs learned from the text, but --tokenizer is {given['tokenizer']}; omit one "
            "of the two"
        )
    if given.get("sample_prompt") and arguments.quiet:
        raise ValueError("--sample-prompt has no effect with --quiet, which writes no samples; omit one of the two")
    if "noise_epochs" in given and given.get("bpe_dropout") == given.get("token_noise") == 0:
        raise ValueError("--noise-epochs has no effect without --bpe-dropout or --token-noise; omit it, or pass one")
    if arguments.allow_changes and not arguments.resume:
        raise ValueError("--allow-changes has no effect without --resume; omit it")


def _check_unchanged(saved: Mapping[str, Any], given: Mapping[str, Any], run: "RunDirectory") -> None:
    """Raises ``ValueError`` if an option that must not change when a run is resumed was given another value."""
    for name in _NEVER_CHANGE:
        if name not in given:
            continue
        before, now = saved.get(name), given[name]
        now = lasting(now) if name in _PATHS and now not in TOKENIZERS else now
        if now != before:
            began = f"without {FLAGS[name]}" if before is None else f"with {FLAGS[name]} {before}"
            raise ValueError(
                f"the run in {run.path} began {began}, which cannot change; omit {FLAGS[name]} to resume it, or start "
                "a new run in another directory"
            )


def lasting(path: str) -> str:
    """Returns a path that is right from any working directory, or the name of a model on the Hub as it is."""
    return path if is_name(path) else str(Path(path).resolve())


def saved_options(run: "RunDirectory") -> dict[str, Any]:
    """Returns the options that a run has saved.

    Raises:
        ValueError: If there is no run, or its saved options are invalid.
    """
    if not run.options.exists():
        raise ValueError(f"{run.path} has no {run.options.name}: no run of 'tinygpt2 train' was started there")
    return {**_OF_EARLIER_VERSIONS, **read_options(run.options, _SAVED)}


def shape_of(options: TrainOptions) -> dict[str, int]:
    """Returns the layers, heads and width of a new model, as far as options say them."""
    named = {} if options.preset is None else PRESETS[options.preset]
    return named | {name: value for name in _SHAPE if (value := getattr(options, name)) is not None}


def to_save(options: TrainOptions) -> dict[str, object]:
    """Returns options as values for JSON."""
    return asdict(options)
