"""What looks on during training."""

import io
import sys
from pathlib import Path
from typing import Never

import pytest
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from tinygpt2 import (
    CharTokenizer,
    GPT2Config,
    GPT2Model,
    ProgressBar,
    TensorBoardLogger,
    TextSamples,
    TrainingConfig,
    make_dataloader,
    train,
)
from tinygpt2.data.batches import Batch

TOKENIZER = CharTokenizer("abcdefgh")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def tiny() -> GPT2Model:
    return GPT2Model(GPT2Config(vocab_size=9, context_length=8, n_layer=1, n_head=2, n_embd=8))


@pytest.fixture
def loader() -> DataLoader[Batch]:
    return make_dataloader("abcdefgh" * 9, batch_size=4, context_length=8, tokenizer=TOKENIZER)  # 2 batches


def test_where_there_is_no_terminal_each_evaluation_is_a_line(
    tiny: GPT2Model, loader: DataLoader[Batch], capsys: pytest.CaptureFixture[str]
) -> None:
    history = train(tiny, loader, loader, TrainingConfig(epochs=2), device="cpu")
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    assert len(lines) == 3
    assert f"train loss {history.train_losses[-1]:.3f} | val loss {history.val_losses[-1]:.3f}" in lines[-1]
    assert "step 4/4" in lines[-1]
    assert "tokens/s" in lines[-1]
    assert "00:00 left" in lines[-1]


def test_on_a_terminal_there_is_a_bar_with_loss_speed_and_remaining_time(
    tiny: GPT2Model, loader: DataLoader[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    train(tiny, loader, config=TrainingConfig(max_steps=300, eval_every=100), device="cpu")
    shown = terminal.getvalue()
    assert "\r" in shown
    assert "/300 [" in shown
    assert "tokens/s" in shown
    assert shown.count("train loss") == 4


def test_the_bar_is_closed_when_training_fails(
    tiny: GPT2Model, loader: DataLoader[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    closed: list[object] = []
    real = tqdm.close

    def close(bar: "tqdm[Never]") -> None:
        closed.append(bar)
        real(bar)

    monkeypatch.setattr(tqdm, "close", close)
    with pytest.raises(ZeroDivisionError):
        train(
            tiny,
            loader,
            device="cpu",
            progress=False,
            callbacks=[ProgressBar(), lambda state: 1 // (3 - state.step - 2)],
        )
    assert len(closed) == 1


def test_progress_false_is_silent(
    tiny: GPT2Model, loader: DataLoader[Batch], capfd: pytest.CaptureFixture[str]
) -> None:
    train(tiny, loader, loader, device="cpu", progress=False)
    assert capfd.readouterr() == ("", "")


def test_a_run_that_ends_within_an_epoch_has_a_last_sample(
    tiny: GPT2Model, loader: DataLoader[Batch], capsys: pytest.CaptureFixture[str]
) -> None:
    samples = TextSamples("abc", TOKENIZER, max_new_tokens=4)
    train(tiny, loader, config=TrainingConfig(max_steps=5), device="cpu", progress=False, callbacks=[samples])
    assert capsys.readouterr().err.count("sample: abc") == 3


def test_samples_do_not_change_what_is_learned(tiny: GPT2Model, loader: DataLoader[Batch]) -> None:
    start = {name: weight.clone() for name, weight in tiny.state_dict().items()}
    results = []
    for prompt in (None, "abc"):
        tiny.load_state_dict(start)
        config = TrainingConfig(epochs=3, sample_prompt=prompt)
        results.append(train(tiny, loader, config=config, tokenizer=TOKENIZER, device="cpu", progress=False))
    assert results[0] == results[1]


def test_tensorboard_gets_every_step_and_evaluation(tiny: GPT2Model, loader: DataLoader[Batch], tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoardLogger(tmp_path)
    history = train(tiny, loader, loader, TrainingConfig(epochs=2), device="cpu", progress=False, callbacks=[logger])
    events = reader.EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.step for event in events.Scalars("step/loss")] == [1, 2, 3, 4]
    logged = [event.value for event in events.Scalars("evaluation/val_loss")]
    assert torch.allclose(torch.tensor(logged), torch.tensor(history.val_losses))


def test_tensorboard_that_is_not_installed_is_named(
    tiny: GPT2Model, loader: DataLoader[Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    with pytest.raises(ImportError, match=r"pip install 'tinygpt2\[tensorboard\]'"):
        train(tiny, loader, device="cpu", progress=False, callbacks=[TensorBoardLogger(tmp_path)])
