"""``tinygpt2 info``."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tinygpt2 import GPT2Config, GPT2Model, TrainingHistory
from tinygpt2.cli.main import main


def test_it_reports_shape_and_losses(run_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(run_directory)]) == 0
    output = capsys.readouterr().out
    assert f"{GPT2Model.from_pretrained(run_directory).num_parameters():,}" in output
    history = TrainingHistory.load(run_directory / "history.json")
    assert f"{history.train_losses[-1]:.4f}" in output
    assert "characters" in output


def test_a_model_that_was_not_trained_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    GPT2Model(GPT2Config(vocab_size=9, context_length=8, n_layer=1, n_head=1, n_embd=4)).save_pretrained(tmp_path)
    assert main(["info", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "1 of width 4" in output
    assert f"9 tokens, but no tokenizer: {tmp_path} has no tinygpt2_tokenizer.json" in output


def test_a_directory_that_is_not_there_is_one_line(tmp_path: Path, fails: Callable[..., None]) -> None:
    fails(["info", tmp_path / "none"], "does not exist")
