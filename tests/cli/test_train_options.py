"""The options of ``tinygpt2 train``: their defaults, and where those differ from Python's."""

import argparse
import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

from tinygpt2 import GPT2Config, TrainingConfig, train
from tinygpt2.cli.main import _parser
from tinygpt2.cli.options import save_options
from tinygpt2.cli.train_options import RANGES, TrainOptions, options_of, to_save
from tinygpt2.config import PRESETS
from tinygpt2.run.directory import RunDirectory

PAGE = Path(__file__).parents[2] / "docs/reference/command-line.md"
NOWHERE = RunDirectory(Path("nowhere"))

# Where an option has another name in Python, and where the run chooses a value of its own.
OTHER_NAMES = {"accumulate": "gradient_accumulation_steps", "keep": "checkpoint_keep"}
CHOSEN = {"eval_every", "sample_prompt"}


def in_python(name: str) -> object:
    """Returns the default in Python of what an option sets; raises ``KeyError`` if nothing there is like it."""
    name = OTHER_NAMES.get(name, name)
    defaults = {field.name: field.default for cls in (GPT2Config, TrainingConfig) for field in fields(cls)}
    return (defaults | {key: value.default for key, value in inspect.signature(train).parameters.items()})[name]


def parsed(*arguments: str) -> argparse.Namespace:
    return _parser().parse_args(["train", *arguments])


def test_every_option_has_a_range_and_a_place_in_the_parser() -> None:
    assert list(RANGES) == [field.name for field in fields(TrainOptions)]
    (subparsers,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    train_parser: argparse.ArgumentParser = subparsers.choices["train"]
    assert set(RANGES) <= {action.dest for action in train_parser._actions}


def test_defaults_that_differ_from_pythons_are_in_the_reference_and_no_others() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("### Defaults that differ")[2].partition("\n## ")[0]
    documented = {flag.replace("-", "_") for flag in re.findall(r"`--([a-z-]+)`", table)}
    differing = {"preset", "train_ratio"} | CHOSEN  # of classmethods and functions
    for name in RANGES.keys() - {"files", "tokenizer", "from_pretrained", "batch_size", "early_stopping", *differing}:
        ours = {"context_length": 128, "dropout": GPT2Config.dropout}.get(name, getattr(TrainOptions, name))
        if ours != in_python(name):
            differing.add(name)
    assert documented == differing


def test_nothing_given_is_the_defaults() -> None:
    assert options_of(parsed(), NOWHERE) == TrainOptions()


def test_what_is_given_counts() -> None:
    options = options_of(parsed("a.txt", "b.txt", "--epochs", "3", "--compile", "--dropout", "0"), NOWHERE)
    assert options == TrainOptions(files=("a.txt", "b.txt"), epochs=3, compile=True, dropout=0.0)


@pytest.mark.parametrize("name", ["preset", "tokenizer"])
def test_what_is_of_new_models_does_not_go_with_another_model(name: str) -> None:
    value = {"preset": next(iter(PRESETS)), "tokenizer": "char"}[name]
    with pytest.raises(ValueError, match=f"--{name} is for a new model"):
        TrainOptions(from_pretrained="there", **{name: value})  # type: ignore[arg-type]


def test_what_is_given_takes_the_place_of_what_was_saved(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    saved = TrainOptions(files=("a.txt",), epochs=3, dropout=0.25, compile=True)
    save_options(run.options, to_save(saved))
    assert options_of(parsed("--resume"), run) == saved
    changed = options_of(parsed("b.txt", "--resume", "--epochs", "4"), run)
    assert changed == TrainOptions(files=("b.txt",), epochs=4, dropout=0.25, compile=True)
