"""``tinygpt2 info``."""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from tinygpt2 import GPT2Config, GPT2Model, TrainingHistory
from tinygpt2.cli.main import main
from tinygpt2.run.directory import RunDirectory
from tinygpt2.run.lock import locked


def test_it_reports_shape_and_losses(run_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(run_directory)]) == 0
    output = capsys.readouterr().out
    assert f"{GPT2Model.from_pretrained(run_directory).num_parameters():,}" in output
    history = TrainingHistory.load(run_directory / "history.json")
    best = min(range(len(history.steps)), key=lambda i: history.val_losses[i] or 0)
    assert (
        f"{history.train_losses[best]:.4f} nats per token, {history.train_bits_per_byte[best]:.4f} bits per" in output
    )
    assert f"{history.val_losses[best]:.4f} nats per token, {history.val_bits_per_byte[best]:.4f} bits per by" in output
    assert f"of step {history.steps[best]}, which has the lowest validation loss" in output
    assert "characters" in output
    assert "2 epochs, planned for " in output
    assert " minutes; muon at 0.016, constant, batches of 4, weight decay 0.1" in output


def test_a_model_that_was_not_trained_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    GPT2Model(GPT2Config(vocab_size=9, context_length=8, n_layer=1, n_head=1, n_embd=4)).save_pretrained(tmp_path)
    assert main(["info", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "1 of width 4" in output
    assert f"9 tokens, but no tokenizer: {tmp_path} has no tinygpt2_tokenizer.json" in output


def test_a_directory_that_is_not_there_is_one_line(tmp_path: Path, fails: Callable[..., None]) -> None:
    fails(["info", tmp_path / "none"], "does not exist")


def test_a_longer_run_that_died_does_not_go_unnoticed(
    run_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whose checkpoint is newer than the model of the run that finished, which every command uses."""
    directory = tmp_path / "run"
    shutil.copytree(run_directory, directory)
    last = TrainingHistory.load(directory / "history.json").steps[-1]
    commands = [["info", directory], ["generate", "--model", directory, "The", "--greedy", "--device", "cpu"]]
    outputs = []
    for extended in (False, True):
        if extended:
            shutil.copytree(directory / f"checkpoint-{last}", directory / "checkpoint-999")
        for command in commands:
            assert main(list(map(str, command))) == 0
            output, errors = capsys.readouterr()
            outputs.append(output)
            expected = (
                f"using {directory} as it was after step {last}; checkpoint-999 is of a longer run that did not "
                f"finish. To use it, pass {directory / 'checkpoint-999'}; "
                f"to resume the run:  tinygpt2 train --out {directory} --resume\n"
            )
            assert errors == (expected if extended else "")
    assert outputs[:2] == outputs[2:]
    capsys.readouterr()
    with locked(directory):
        assert main(["info", str(directory)]) == 0
    line = f"checkpoint-999 is of a longer run that is still training. To use it, pass {directory / 'checkpoint-999'}\n"
    assert capsys.readouterr().err.endswith(line)
    (directory / "history.json").write_text("damaged", encoding="utf-8")
    assert main(["generate", "--model", str(directory), "The", "--device", "cpu"]) == 0


@pytest.mark.parametrize(("training", "fate"), [(True, "is still training"), (False, "did not finish")])
def test_a_run_that_is_still_training_is_not_called_unfinished(
    training: bool, fate: str, run_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "run"
    newest = RunDirectory(run_directory).checkpoints()[0]
    shutil.copytree(newest, directory / newest.name)
    with locked(directory) if training else nullcontext():
        assert main(["info", str(directory)]) == 0
    assert capsys.readouterr().err == f"the run in {directory} {fate}; using {newest.name}\n"


def test_a_checkpoint_that_the_run_removes_meanwhile_is_chosen_anew(
    run_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "run"
    checkpoints = RunDirectory(run_directory).checkpoints()
    for path in checkpoints:
        shutil.copytree(path, directory / path.name)
    real = GPT2Model.from_pretrained
    removed: list[str] = []

    def read(path: Path) -> GPT2Model:
        if not removed:
            removed.append(path.name)
            shutil.rmtree(path)
        return real(path)

    monkeypatch.setattr(GPT2Model, "from_pretrained", read)
    assert main(["info", str(directory)]) == 0
    newest, older = (path.name for path in checkpoints)
    assert removed == [newest]
    assert [line.split()[-1] for line in capsys.readouterr().err.splitlines()] == [newest, older]
