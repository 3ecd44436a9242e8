"""A history keeps its lists aligned, and comes back from a file as it was or not at all."""

import json
import math
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinygpt2 import TrainingHistory

BITS = ["train_bits_per_byte", "val_bits_per_byte"]
NAMES = ["steps", "epochs", "tokens_seen", "train_losses", "val_losses", "learning_rates", *BITS, "seconds"]
LOSSES = st.floats(0, 1e6) | st.floats(0, 1e-300)
ENTRIES = st.fixed_dictionaries(
    {
        "step": st.integers(0, 10**6),
        "epoch": st.floats(0, 1e4),
        "tokens_seen": st.integers(0, 2**60),
        "train_loss": LOSSES,
        "val_loss": st.none() | LOSSES,
        "learning_rate": st.floats(0, 1),
        "train_bits_per_byte": st.none() | LOSSES,
        "val_bits_per_byte": st.none() | LOSSES,
        "seconds": st.none() | st.floats(0, 1e9),
    }
)


def history_of(entries: list[dict[str, Any]]) -> TrainingHistory:
    history = TrainingHistory()
    for entry in entries:
        history.append(**entry)
    return history


@pytest.fixture
def history() -> TrainingHistory:
    return TrainingHistory([0, 10], [0.0, 0.5], [0, 2560], [10.8, 7.1], [10.9, None], [0.0, 4e-4])


@given(entries=st.lists(ENTRIES, max_size=5, unique_by=lambda entry: entry["step"]))
def test_a_saved_history_comes_back_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, entries: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("history") / "history.json"
    history = history_of(sorted(entries, key=lambda entry: entry["step"]))
    history.save(path)
    assert TrainingHistory.load(path) == history
    assert TrainingHistory.load(str(path)) == history
    assert TrainingHistory.load(path).seconds == history.seconds


@given(entries=st.lists(ENTRIES, max_size=5))
def test_each_entry_adds_its_values_to_the_list_of_the_same_name(entries: list[dict[str, Any]]) -> None:
    history = history_of(entries)
    assert history.steps == [entry["step"] for entry in entries]
    assert history.epochs == [entry["epoch"] for entry in entries]
    assert history.tokens_seen == [entry["tokens_seen"] for entry in entries]
    assert history.train_losses == [entry["train_loss"] for entry in entries]
    assert history.val_losses == [entry["val_loss"] for entry in entries]
    assert history.learning_rates == [entry["learning_rate"] for entry in entries]
    assert history.train_bits_per_byte == [entry["train_bits_per_byte"] for entry in entries]
    assert history.val_bits_per_byte == [entry["val_bits_per_byte"] for entry in entries]
    assert history.seconds == [entry["seconds"] for entry in entries]


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("step", -1, ValueError),
        ("step", 1.0, TypeError),
        ("epoch", math.nan, ValueError),
        ("tokens_seen", None, TypeError),
        ("train_loss", None, TypeError),
        ("val_loss", "3.5", TypeError),
        ("learning_rate", -0.1, ValueError),
        ("val_bits_per_byte", "2.5", TypeError),
        ("seconds", -1.0, ValueError),
    ],
)
def test_a_wrong_entry_is_told_when_it_is_added_and_adds_nothing(
    history: TrainingHistory, name: str, value: object, error: type[Exception]
) -> None:
    """It was told when the history was saved, after the training."""
    before = asdict(history)
    entry: dict[str, Any] = {"step": 99, "epoch": 9.0, "tokens_seen": 9, "train_loss": 1.0, "val_loss": 1.0}
    entry["learning_rate"] = 0.1
    with pytest.raises(error, match=f"{name} must be "):
        history.append(**entry | {name: value})
    assert asdict(history) == before


def test_numbers_of_numpy_and_pytorch_become_plain_ones() -> None:
    history = TrainingHistory()
    loss: Any = torch.tensor(2.5)
    step: Any = np.int64(3)
    history.append(step=step, epoch=np.float64(1), tokens_seen=step, train_loss=loss, val_loss=loss, learning_rate=0,
                   train_bits_per_byte=loss, val_bits_per_byte=loss, seconds=np.float64(9))  # fmt: skip
    assert history.seconds == [9.0]
    assert history == TrainingHistory([3], [1.0], [3], [2.5], [2.5], [0.0], [2.5], [2.5])
    assert {type(value) for name in NAMES for value in getattr(history, name)} == {int, float}


def test_bits_per_byte_that_are_left_out_are_unknown_at_each_evaluation(history: TrainingHistory) -> None:
    assert history.train_bits_per_byte == history.val_bits_per_byte == [None, None]
    history.append(step=20, epoch=1.0, tokens_seen=5120, train_loss=6.0, val_loss=7.0, learning_rate=0.1,
                   val_bits_per_byte=2.0)  # fmt: skip
    assert history.train_bits_per_byte == [None, None, None]
    assert history.val_bits_per_byte == [None, None, 2.0]


def test_a_file_without_bits_per_byte_is_read(tmp_path: Path, history: TrainingHistory) -> None:
    """As runs wrote it before there were any."""
    content = {name: values for name, values in asdict(history).items() if name not in BITS}
    (tmp_path / "history.json").write_text(json.dumps(content), encoding="utf-8")
    assert TrainingHistory.load(tmp_path / "history.json") == history


def test_a_file_without_seconds_is_read(tmp_path: Path, history: TrainingHistory) -> None:
    """As runs wrote it before there were any."""
    content = {name: values for name, values in asdict(history).items() if name != "seconds"}
    (tmp_path / "history.json").write_text(json.dumps(content), encoding="utf-8")
    assert TrainingHistory.load(tmp_path / "history.json").seconds == [None, None]


def test_time_is_no_part_of_a_comparison(history: TrainingHistory) -> None:
    """A resumed run has the losses of an uninterrupted one to the last bit, but not its seconds."""
    other = TrainingHistory(**asdict(history) | {"seconds": [0.0, 9.5]})
    assert other == history
    assert other.seconds != history.seconds
    other.val_losses[0] = 1.0
    assert other != history


def test_histories_share_no_list() -> None:
    TrainingHistory().steps.append(1)
    assert TrainingHistory() == TrainingHistory([], [], [], [], [], [])


def test_the_file_is_json_that_other_programs_read(tmp_path: Path, history: TrainingHistory) -> None:
    history.save(tmp_path / "history.json")
    content = json.loads((tmp_path / "history.json").read_bytes())
    assert list(content) == [*NAMES, "stopped"]
    assert content == asdict(history)


def test_why_a_run_was_stopped_is_saved(tmp_path: Path, history: TrainingHistory) -> None:
    history.stopped = "the validation loss has not fallen for 3 evaluations"
    history.save(tmp_path / "history.json")
    assert TrainingHistory.load(tmp_path / "history.json") == history
    content = asdict(history)
    del content["stopped"]  # as runs wrote it before there was any
    assert TrainingHistory.from_dict(content).stopped is None
    with pytest.raises(ValueError, match="stopped must be a string, got 3"):
        TrainingHistory.from_dict(content | {"stopped": 3})


@pytest.mark.parametrize(
    ("losses", "best"),
    [([], None), ([None, None], None), ([3.0, 1.0, 2.0, 1.0], 1), ([float("nan"), 2.0], 1), ([float("inf")], 0)],
)
def test_the_best_evaluation_is_the_first_with_the_lowest_validation_loss(
    losses: list[float | None], best: int | None
) -> None:
    history = TrainingHistory(val_losses=losses)
    assert history.best == best


@pytest.mark.parametrize("loss", [float("inf"), float("nan")])
def test_a_run_that_diverged_can_be_saved_too(tmp_path: Path, history: TrainingHistory, loss: float) -> None:
    history.append(step=20, epoch=1.0, tokens_seen=5120, train_loss=loss, val_loss=loss, learning_rate=4e-4)
    history.save(tmp_path / "history.json")
    assert repr(TrainingHistory.load(tmp_path / "history.json")) == repr(history)


def test_saving_into_a_missing_directory_is_told(tmp_path: Path, history: TrainingHistory) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        history.save(tmp_path / "missing" / "history.json")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"history\.json"):
        TrainingHistory.load(tmp_path / "history.json")


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "7", "{}", '{"steps": []}', '{"steps": [], "other": []}', "\ufeff{}", "[1, 2"],
)
def test_a_file_that_is_no_history_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "history.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"history\.json is not a training history"):
        TrainingHistory.load(tmp_path / "history.json")


def test_a_file_that_is_not_utf8_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "history.json").write_bytes(b'{"steps": "\xff"}')
    with pytest.raises(ValueError, match=r"history\.json is not a training history"):
        TrainingHistory.load(tmp_path / "history.json")


@pytest.mark.parametrize("cut", [1, 5, 50])
def test_a_file_cut_short_is_refused_by_name(tmp_path: Path, history: TrainingHistory, cut: int) -> None:
    path = tmp_path / "history.json"
    history.save(path)
    path.write_bytes(path.read_bytes()[: -cut - 1])
    with pytest.raises(ValueError, match=r"history\.json is not a training history"):
        TrainingHistory.load(path)


@pytest.mark.parametrize("name", NAMES)
def test_lists_of_different_lengths_are_refused(tmp_path: Path, history: TrainingHistory, name: str) -> None:
    content = asdict(history)
    content[name] = content[name][:1]
    (tmp_path / "history.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"history\.json is not.*{name} 1"):
        TrainingHistory.load(tmp_path / "history.json")


@pytest.mark.parametrize("name", ["steps", "val_losses"])
@pytest.mark.parametrize("values", [None, "ab", {"0": 1, "1": 2}, ["a", "b"], [[1], [2]]], ids=str)
def test_anything_but_a_list_of_numbers_is_refused(
    tmp_path: Path, history: TrainingHistory, name: str, values: object
) -> None:
    (tmp_path / "history.json").write_text(json.dumps({**asdict(history), name: values}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"history\.json is not a training history"):
        TrainingHistory.load(tmp_path / "history.json")


@pytest.mark.parametrize("name", ["steps", "train_losses"])
def test_only_a_validation_loss_may_be_missing(tmp_path: Path, history: TrainingHistory, name: str) -> None:
    content = {**asdict(history), name: [1, None]}
    (tmp_path / "history.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=r"history\.json is not a training history"):
        TrainingHistory.load(tmp_path / "history.json")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("steps", [10, 0], "steps must increase, but 0 follows 10"),
        ("steps", [7, 7], "steps must increase, but 7 follows 7"),
        ("steps", [-1, 0], "each of steps must be at least 0, got -1"),
        ("steps", [0, True], "each of steps must be an integer, got True"),
        ("steps", [0, 1.0], "each of steps must be an integer, got 1.0"),
        ("steps", [0, 2**63], "each of steps must be at most 9223372036854775807"),
        ("steps", [0, 10**400], "each of steps must be at most 9223372036854775807, got about 10..400"),
        ("tokens_seen", [0, -5], "each of tokens_seen must be at least 0, got -5"),
        ("tokens_seen", ["0", "1"], "each of tokens_seen must be an integer, got '0'"),
        ("epochs", [0.0, float("nan")], "each of epochs must be a finite number at least 0, got nan"),
        ("epochs", [0.0, float("inf")], "each of epochs must be a finite number at least 0, got inf"),
        ("epochs", [0.0, -1.0], "each of epochs must be a finite number at least 0, got -1.0"),
        ("epochs", [0.0, 10**400], "each of epochs must be a finite number at least 0, got about"),
        ("learning_rates", [0.0, float("inf")], "each of learning_rates must be a finite number"),
        ("learning_rates", [False, 0.1], "each of learning_rates must be a number, got False"),
        ("train_losses", [0.1, 10**400], "each of train_losses must be a finite number of any size, got about"),
        ("train_losses", [0.1, True], "each of train_losses must be a number, got True"),
        ("val_losses", [None, "0.1"], "each of val_losses must be a number, got '0.1'"),
        ("val_losses", {"a": "x" * 10**5}, "val_losses must be a list, got .'a': 'xxx"),
    ],
)
def test_a_wrong_value_is_told_by_the_names_of_file_and_list_and_never_saved(
    tmp_path: Path,
    history: TrainingHistory,
    name: str,
    values: Any,  # noqa: ANN401
    message: str,
) -> None:
    path = tmp_path / "history.json"
    path.write_text(json.dumps(asdict(history) | {name: values}), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"history\.json is not a training history: {message}") as caught:
        TrainingHistory.load(path)
    assert len(str(caught.value)) < len(str(path)) + 250
    setattr(history, name, values)
    path.unlink()
    with pytest.raises(ValueError, match=message):
        history.save(path)
    assert not path.exists()


@pytest.mark.parametrize(
    "content",
    ["[" * 10**5, '{"steps":' * 10**5, '{"steps": [' + "9" * 5000 + "]}", '{"steps": [], "steps": []}', "\ufeff{}"],
    ids=lambda content: content[:9],
)
def test_hostile_json_is_refused_by_name(tmp_path: Path, content: str) -> None:
    """Deep nesting used to raise a RecursionError."""
    path = tmp_path / "history.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"history\.json is not a training history: history\.json is n"):
        TrainingHistory.load(path)


def test_a_file_of_any_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "history.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match=r"history\.json is larger than 33,554,432 bytes"):
        TrainingHistory.load(path)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes, devices, and links without a privilege")
def test_pipes_and_devices_are_not_waited_for_and_links_are_followed(tmp_path: Path, history: TrainingHistory) -> None:
    path = tmp_path / "history.json"
    os.mkfifo(path)
    with pytest.raises(ValueError, match=r"history\.json is not a regular file"):
        TrainingHistory.load(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"history\.json is not a regular file"):
        TrainingHistory.load(path)
    path.unlink()
    history.save(tmp_path / "whole.json")
    path.symlink_to("whole.json")
    assert TrainingHistory.load(path) == history


def test_numbers_of_numpy_are_saved_as_plain_ones(tmp_path: Path, history: TrainingHistory) -> None:
    """A loop of one's own, which appends what NumPy or PyTorch computed."""
    loss: Any = np.float32(0.5)
    history.append(
        step=np.int64(20),  # type: ignore[arg-type]
        epoch=np.float64(1),
        tokens_seen=5120,
        train_loss=loss,
        val_loss=loss,
        learning_rate=4e-4,
    )
    history.save(tmp_path / "history.json")
    assert TrainingHistory.load(tmp_path / "history.json") == history


def test_plot_is_the_plot_of_its_losses(history: TrainingHistory) -> None:
    training = history.plot().axes[0].lines[0]
    epochs, losses = zip(*training.get_xydata().tolist(), strict=True)  # type: ignore[union-attr]
    assert list(epochs) == history.epochs
    assert list(losses) == history.train_losses
