"""Runs of several models: first ones, and their student."""

import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tinygpt2 import GPT2Model, TrainingHistory, train
from tinygpt2.cli import phases as module
from tinygpt2.cli.main import main
from tinygpt2.training import distillation
from tinygpt2.training.callbacks.base import Callback
from tinygpt2.training.state import TrainState

FAST = ("--tokenizer", "char", "--context-length", "16")
OPTIONS = ["--teachers", "2", "--epochs", "2", "--dropout", "0.2", "--token-noise", "0.1", "--device", "cpu", *FAST]


@contextmanager
def interrupted_in(of: Any, step: int) -> Iterator[None]:  # noqa: ANN401 - a module
    """Presses Ctrl-C in a step of one of the trainings."""

    def press(state: TrainState) -> None:
        if state.event == "step" and state.step == step:
            signal.raise_signal(signal.SIGINT)

    def train_and_press(*args: Any, callbacks: Sequence[Callback], **options: Any) -> TrainingHistory:  # noqa: ANN401
        return train(*args, callbacks=[*callbacks, press], **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of, "train", train_and_press)
        yield


def run(text_file: Path, out: Path, *words: str) -> int:
    return main(["train", str(text_file), "--out", str(out), *OPTIONS, *words])


def files_of(directory: Path) -> dict[str, bytes]:
    names = ("model.safetensors", "best/model.safetensors", "options.json", "config.json")
    paths = [*names, "samples.tokens", *(f"teacher-{i}/model.safetensors" for i in (1, 2))]
    return {name: (directory / name).read_bytes() for name in paths}


def test_the_run_is_that_of_the_student_and_resumes_in_either_phase(
    text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert run(text_file, whole, "--sample-prompt", "") == 0
    said = capsys.readouterr()
    for i in (1, 2):
        assert f"phase {i} of 3: a teacher, in {whole / f'teacher-{i}'}\n" in said.err
    assert f"phase 3 of 3: the student, in {whole}\n" in said.err
    teachers = [TrainingHistory.load(whole / f"teacher-{i}" / "history.json") for i in (1, 2)]
    first, student = teachers[0], TrainingHistory.load(whole / "history.json")
    assert first.steps[-1] == student.steps[-1]
    assert (student.seconds[0] or 0) >= sum(each.seconds[-1] or 0 for each in teachers) > 0
    assert len({first.val_losses[-1], teachers[1].val_losses[-1], student.val_losses[-1]}) == 3
    assert student.val_losses[0] == first.val_losses[first.best or 0]  # it begins as the first of them
    assert GPT2Model.from_pretrained(whole).config.dropout == 0
    assert GPT2Model.from_pretrained(whole / "teacher-2").config.dropout == 0.2
    assert json.loads((whole / "options.json").read_text(encoding="utf-8"))["dropout"] == 0.2
    expected = files_of(whole)

    with interrupted_in(module, 5):
        assert run(text_file, stopped, "--sample-prompt", "") == 130
    assert f"stopped by SIGINT after step 5 of {first.steps[-1]}, saved; to resume" in capsys.readouterr().err
    assert not (stopped / "teacher-1" / "model.safetensors").exists()
    resume = ["train", "--out", str(stopped), "--resume", "--device", "cpu"]
    with interrupted_in(distillation, 7):
        assert main(resume) == 130
    said = capsys.readouterr()
    assert "resumed after step 5\n" in said.err
    assert f"stopped by SIGINT after step 7 of {first.steps[-1]}, saved; to resume" in said.err
    assert main(resume) == 0
    said = capsys.readouterr()
    assert "resumed after step 7\n" in said.err
    assert "a teacher" not in said.err
    assert "sampling" not in said.err
    assert files_of(stopped) == expected
    assert TrainingHistory.load(stopped / "history.json") == student

    steps = student.steps[-1]
    assert main([*resume, "--student-steps", str(2 * steps), "--quiet"]) == 0
    assert TrainingHistory.load(stopped / "history.json").steps[-1] == 2 * steps
    assert (stopped / "teacher-2" / "model.safetensors").read_bytes() == expected["teacher-2/model.safetensors"]
    assert main(["info", str(stopped)]) == 0
    assert f"2 teachers of 2 epochs, then {2 * steps} steps" in capsys.readouterr().out


def test_nothing_is_left_of_a_run_that_never_began(text_file: Path, tmp_path: Path) -> None:
    assert run(text_file, tmp_path / "run", "--batch-size", "1", "--context-length", "100000") == 1
    assert not (tmp_path / "run").exists()


def test_a_pretrained_model_has_no_first_one(text_file: Path, run_directory: Path, fails: Any) -> None:  # noqa: ANN401
    fails(
        ["train", str(text_file), "--teachers", "1", "--from-pretrained", str(run_directory)],
        "--teachers trains new models, but --from-pretrained gives one to fine-tune; omit one of the two",
    )
