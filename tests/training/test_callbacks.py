"""What looks on during training."""

import io
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Never

import pytest
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm
from typing_extensions import override

from tinygpt2 import (
    Callback,
    CharTokenizer,
    EarlyStopping,
    GPT2Config,
    GPT2Model,
    GreedySampler,
    ProgressBar,
    TensorBoardLogger,
    TextSamples,
    TrainingConfig,
    TrainingHistory,
    TrainState,
    evaluate,
    make_dataloader,
    on_epoch,
    on_evaluation,
    on_step,
    train,
)
from tinygpt2.data.batches import Batch
from tinygpt2.evaluation.loss import evaluate_batches

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
    assert len(lines) == 4
    assert f"train loss {history.train_losses[-1]:.3f} | val loss {history.val_losses[-1]:.3f}" in lines[-2]
    assert "step 4/4" in lines[-2]
    assert "tokens/s" in lines[-2]
    assert "00:00 left" in lines[-2]
    assert re.fullmatch(r"time 00:\d\d: training \d+%, evaluations \d+%(, samples \d+%)?", lines[-1])


def test_a_line_ends_its_losses_with_bits_per_byte_where_they_are_known(
    tiny: GPT2Model, loader: DataLoader[Batch], capsys: pytest.CaptureFixture[str]
) -> None:
    history = train(tiny, loader, loader, TrainingConfig(max_steps=1), device="cpu", tokenizer=TOKENIZER)
    line = capsys.readouterr().err.splitlines()[-2]
    assert f"| val loss {history.val_losses[-1]:.3f} ({history.val_bits_per_byte[-1]:.2f} bits/byte) | " in line
    history = train(tiny, loader, None, TrainingConfig(max_steps=1), device="cpu", tokenizer=TOKENIZER)
    line = capsys.readouterr().err.splitlines()[-2]
    assert f"| train loss {history.train_losses[-1]:.3f} ({history.train_bits_per_byte[-1]:.2f} bits/byte) | " in line


def test_bits_per_byte_are_those_of_evaluate(tiny: GPT2Model, loader: DataLoader[Batch]) -> None:
    config = TrainingConfig(max_steps=2, eval_every=1, eval_batches=1)
    history = train(tiny, loader, loader, config, device="cpu", tokenizer=TOKENIZER, progress=False)
    result = evaluate(tiny, loader, max_batches=1, tokenizer=TOKENIZER)
    assert len(history.val_bits_per_byte) == 3
    assert history.val_bits_per_byte[-1] == history.train_bits_per_byte[-1] == result.bits_per_byte
    assert result.bits_per_byte == pytest.approx(result.loss / math.log(2))  # each character is a byte
    without = train(tiny, loader, loader, config, device="cpu", progress=False)
    assert without.val_bits_per_byte == without.train_bits_per_byte == [None] * 3


def test_bits_per_byte_of_a_resumed_run_are_those_of_an_uninterrupted_one(
    tiny: GPT2Model, loader: DataLoader[Batch], tmp_path: Path
) -> None:
    state = {name: weight.clone() for name, weight in tiny.state_dict().items()}

    def run(epochs: int, **options: Any) -> TrainingHistory:  # noqa: ANN401
        tiny.load_state_dict(state)
        config = TrainingConfig(epochs=epochs)
        return train(tiny, loader, loader, config, device="cpu", progress=False, tokenizer=TOKENIZER, **options)

    run(1, checkpoint_dir=tmp_path)
    assert run(2, checkpoint_dir=tmp_path, resume=True) == run(2)


def test_a_tokenizer_that_did_not_make_the_data_is_told(tiny: GPT2Model, loader: DataLoader[Batch]) -> None:
    with pytest.raises(ValueError, match="tokenizer has ids 0 to 3, but one of the targets of train_loader is"):
        train(tiny, loader, device="cpu", progress=False, tokenizer=CharTokenizer("abc"))


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
    assert shown.count("evaluating]") == 4


@pytest.mark.parametrize("event", ["start", "step"])
def test_the_bar_says_that_an_evaluation_is_under_way(
    tiny: GPT2Model, loader: DataLoader[Batch], monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    """A long one looked like a bar that stands still."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    seen: list[str] = []

    def look(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        seen.append(terminal.getvalue().rpartition("\r")[2])
        return evaluate_batches(*arguments, **options)

    monkeypatch.setattr("tinygpt2.training.loop.evaluate_batches", look)
    train(tiny, loader, config=TrainingConfig(max_steps=3, eval_every=2), device="cpu")
    assert len(seen) == 3
    assert seen[0 if event == "start" else 1].rstrip().endswith("evaluating]")


# --- a process without stderr ---


def test_without_stderr_a_run_is_silent(
    tiny: GPT2Model,
    loader: DataLoader[Batch],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As under pythonw and in some services. The bar asked None whether it is a terminal; lines went to stdout."""
    monkeypatch.setattr(sys, "stderr", None)
    config = TrainingConfig(epochs=2, sample_prompt="abc", sample_tokens=2)
    resumed = {"checkpoint_dir": tmp_path, "resume": True}
    train(tiny, loader, loader, config, device="cpu", tokenizer=TOKENIZER, callbacks=[EarlyStopping(1)], **resumed)  # type: ignore[arg-type]
    train(tiny, loader, loader, config, device="cpu", tokenizer=TOKENIZER, **resumed)  # type: ignore[arg-type]
    assert capfd.readouterr() == ("", "")


def test_without_stderr_an_interrupted_run_is_silent_and_warnings_are_given(
    tiny: GPT2Model, loader: DataLoader[Batch], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The notice went to descriptor 2, which may by then be that of another file, for instance a checkpoint."""

    def press(state: TrainState) -> None:
        if state.event == "step":
            signal.raise_signal(signal.SIGINT)

    def fails(*_: object) -> Never:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", fails)
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(KeyboardInterrupt), pytest.warns(RuntimeWarning, match="not compiled"):
        train(tiny, loader, config=TrainingConfig(compile=True), device="cpu", callbacks=[press])
    assert capfd.readouterr() == ("", "")


def test_a_process_whose_stderr_is_closed_trains() -> None:
    """Python itself then sets ``sys.stderr`` to None."""
    script = """
import os, sys
os.close(2)
sys.stderr = sys.__stderr__ = None
import signal
from tinygpt2 import *
shape = GPT2Config(vocab_size=4, context_length=8, n_layer=1, n_head=2, n_embd=8)
loader = make_dataloader([0, 1, 2, 3] * 50, batch_size=4, context_length=8)
try:
    train(GPT2Model(shape), loader, device="cpu", callbacks=[on_step(lambda _: signal.raise_signal(signal.SIGINT))])
except KeyboardInterrupt:
    print("stopped")
"""
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert (finished.stdout, finished.stderr) == ("stopped\n", "")


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
    history = train(tiny, loader, loader, TrainingConfig(epochs=2), device="cpu", progress=False, callbacks=[logger],
                    tokenizer=TOKENIZER)  # fmt: skip
    events = reader.EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.step for event in events.Scalars("step/loss")] == [1, 2, 3, 4]
    logged = [event.value for event in events.Scalars("evaluation/val_loss")]
    assert torch.allclose(torch.tensor(logged), torch.tensor(history.val_losses))
    logged = [event.value for event in events.Scalars("evaluation/val_bits_per_byte")]
    assert torch.allclose(torch.tensor(logged), torch.tensor(history.val_bits_per_byte))


def test_tensorboard_that_is_not_installed_is_named(
    tiny: GPT2Model, loader: DataLoader[Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    with pytest.raises(ImportError, match=r"pip install 'tinygpt2\[tensorboard\]'"):
        train(tiny, loader, device="cpu", progress=False, callbacks=[TensorBoardLogger(tmp_path)])


# --- what every callback may rely on ---


class Diary(Callback):
    """Notes what it is called with, and raises where it is told to."""

    def __init__(self, fail: str = "", error: type[BaseException] = ZeroDivisionError) -> None:
        self.events: list[str] = []
        self.ends: list[BaseException | None] = []
        self.fail, self.error = fail, error

    def note(self, event: str, state: TrainState) -> None:
        assert state.event == event
        self.events.append(event)
        if event == self.fail:
            raise self.error(f"in {event}")

    @override
    def on_start(self, state: TrainState) -> None:
        self.note("start", state)

    @override
    def on_step(self, state: TrainState) -> None:
        self.note("step", state)

    @override
    def on_evaluation(self, state: TrainState) -> None:
        self.note("evaluation", state)

    @override
    def on_epoch(self, state: TrainState) -> None:
        self.note("epoch", state)

    @override
    def on_end(self, state: TrainState, error: BaseException | None) -> None:
        self.ends.append(error)
        self.note("end", state)


def run(model: GPT2Model, loader: Any, *callbacks: Any, epochs: int = 2, **options: Any) -> Any:  # noqa: ANN401
    return train(
        model,
        loader,
        config=TrainingConfig(epochs=epochs),
        callbacks=callbacks,
        device="cpu",
        progress=False,
        **options,
    )


def test_events_come_in_order_and_the_end_once(tiny: GPT2Model, loader: DataLoader[Batch]) -> None:
    diary, events = Diary(), list[str]()
    run(tiny, loader, diary, lambda state: events.append(state.event))
    epoch = ["step", "step", "evaluation", "epoch"]
    assert diary.events == events == ["start", "evaluation", *epoch, *epoch, "end"]
    assert diary.ends == [None]


def test_a_function_can_be_called_at_one_event(tiny: GPT2Model, loader: DataLoader[Batch]) -> None:
    for adapt, expected in ((on_step, 4), (on_evaluation, 3), (on_epoch, 2)):
        steps: list[int] = []
        run(tiny, loader, adapt(lambda state, steps=steps: steps.append(state.step)))  # type: ignore[misc]
        assert len(steps) == expected


@pytest.mark.parametrize("event", ["start", "step", "evaluation", "epoch"])
def test_an_error_in_a_callback_is_told_to_all_at_the_end(
    tiny: GPT2Model, loader: DataLoader[Batch], event: str
) -> None:
    first, failing, last = Diary(), Diary(event), Diary()
    with pytest.raises(ZeroDivisionError, match=f"in {event}") as caught:
        run(tiny, loader, first, failing, last)
    begun = [first, failing] if event == "start" else [first, failing, last]
    assert all(diary.ends == [caught.value] for diary in begun)
    assert last.events == ([] if event == "start" else [*last.events[:-1], "end"])


def test_an_error_in_the_loss_or_the_loader_is_told_to_all_at_the_end(
    tiny: GPT2Model, loader: DataLoader[Batch]
) -> None:
    class Breaks(list[Batch]):
        passes = 0

        @override
        def __iter__(self) -> Any:
            self.passes += 1
            yield self[0]
            if self.passes > 2:
                raise OSError("no disk")
            yield from self[1:]

    diary = Diary()
    with pytest.raises(OSError, match="no disk") as caught:
        run(tiny, Breaks(loader), diary)
    assert diary.ends == [caught.value]

    def raises(*_: object) -> None:
        if torch.is_grad_enabled():
            raise KeyError("loss")

    diary = Diary()
    tiny.register_forward_hook(raises)
    with pytest.raises(KeyError, match="loss") as missing:
        run(tiny, loader, diary)
    assert diary.ends == [missing.value]


def test_a_stopped_run_ends_once_and_without_an_error(tiny: GPT2Model, loader: DataLoader[Batch]) -> None:
    diary = Diary()
    history = run(tiny, loader, diary, on_step(lambda state: state.stop() if state.step == 1 else None))
    assert (diary.ends, history.steps) == ([None], [0, 1])


@pytest.mark.parametrize("presses", [1, 2])
def test_control_c_ends_once_and_has_the_history(tiny: GPT2Model, loader: DataLoader[Batch], presses: int) -> None:
    """Without a checkpoint_dir a notebook has no other way to it."""

    def press(state: TrainState) -> None:
        if state.step == 3:
            for _ in range(presses):
                signal.raise_signal(signal.SIGINT)

    diary = Diary()
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as caught:
        run(tiny, loader, diary, on_step(press))
    assert signal.getsignal(signal.SIGINT) is before
    assert diary.ends == [None if presses == 1 else caught.value]
    assert caught.value.history.steps == [0, 2]  # type: ignore[attr-defined]


@pytest.mark.parametrize("event", ["step", "evaluation"])
def test_an_epoch_that_ends_with_control_c_is_told_once(
    tiny: GPT2Model, loader: DataLoader[Batch], tmp_path: Path, event: str
) -> None:
    """It was not told, and not when the run was resumed either."""

    def press(state: TrainState) -> None:
        if state.step == 2 and state.event == event:
            signal.raise_signal(signal.SIGINT)

    diaries = Diary(), Diary()
    with pytest.raises(KeyboardInterrupt):
        run(tiny, loader, diaries[0], press, checkpoint_dir=tmp_path)
    run(tiny, loader, diaries[1], checkpoint_dir=tmp_path, resume=True)
    assert [diary.events.count("epoch") for diary in diaries] == [1, 1]
    assert diaries[0].events.count("evaluation") + diaries[1].events.count("evaluation") == 3


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_one_that_fails_at_the_end_does_not_keep_the_others_from_theirs(
    tiny: GPT2Model, loader: DataLoader[Batch], error: type[BaseException]
) -> None:
    """A Ctrl-C in the first left a TensorBoard file open in the second."""
    diaries = [Diary("end", error), Diary(), Diary("end"), Diary()]
    with pytest.raises(error, match="in end") as caught:
        run(tiny, loader, *diaries)
    assert all(diary.ends == [None] for diary in diaries)
    assert caught.value.__notes__ == ["and then, at the end of the run: ZeroDivisionError('in end')"]


def test_an_error_of_the_run_is_not_hidden_by_one_at_its_end(tiny: GPT2Model, loader: DataLoader[Batch]) -> None:
    diaries = [Diary("end"), Diary("step", KeyError), Diary()]
    with pytest.raises(KeyError, match="in step") as caught:
        run(tiny, loader, *diaries)
    assert caught.value.__notes__ == ["and then, at the end of the run: ZeroDivisionError('in end')"]
    assert all(diary.ends == [caught.value] for diary in diaries)


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (Diary, r"should be an object, not a class; pass Diary\(...\)"),
        (3, "a Callback or a function of the training state, got 3"),
        ("on_step", "got 'on_step'"),
        (None, "got None"),
    ],
)
def test_what_is_no_callback_is_a_type_error(
    tiny: GPT2Model, loader: DataLoader[Batch], callback: object, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        run(tiny, loader, callback)


@pytest.mark.parametrize("callbacks", [print, Diary(), None, 3, {"a": print}, ""])
def test_callbacks_are_several(tiny: GPT2Model, loader: DataLoader[Batch], callbacks: Any) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match="callbacks must be a list of Callback objects or functions of the training st"):
        train(tiny, loader, callbacks=callbacks, device="cpu", progress=False)


@pytest.mark.parametrize("adapt", [on_step, on_evaluation, on_epoch])
def test_what_is_no_function_is_not_called_at_one_event(adapt: Callable[[Any], Callback]) -> None:
    """It failed at the first event, and the class of a callback made an object at each."""
    for wrong, message in ((Diary, r"pass Diary\(...\)"), (3, r"got 3 \(int\)"), (EarlyStopping(3), r"got EarlyStop")):
        with pytest.raises(TypeError, match=message):
            adapt(wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens must be at least 0, got -1"),
        ({"max_new_tokens": "4"}, "max_new_tokens must be an integer, got '4'"),
        ({"sampler": GreedySampler}, "expected a sampler, such as .*; pass an instance"),
        ({"sampler": len}, "a sampler must accept"),
        ({"tokenizer": "gpt2"}, "tokenizer must be an object with n_vocab"),
    ],
)
def test_samples_that_cannot_be_made_are_told_before_training(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        TextSamples("abc", **{"tokenizer": TOKENIZER} | options)


def test_tensorboard_gets_an_address_as_it_is() -> None:
    """A path would make one slash of two."""
    assert TensorBoardLogger("s3://bucket/runs").directory == "s3://bucket/runs"
    assert TensorBoardLogger(Path("runs") / "a").directory == os.path.join("runs", "a")  # noqa: PTH118


class Counter(Callback):
    """Has a state of its own."""

    def __init__(self) -> None:
        self.steps: tuple[int, ...] = ()

    @override
    def on_step(self, state: TrainState) -> None:
        self.steps += (state.step,)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        self.steps = tuple(content["steps"])


class Function:
    """A function with a state."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, _: TrainState, /) -> None:
        self.calls += 1

    def state_dict(self) -> int:
        return self.calls

    def load_state_dict(self, calls: int) -> None:
        self.calls = calls


def test_the_states_of_callbacks_are_saved_and_given_back(
    tiny: GPT2Model, loader: DataLoader[Batch], tmp_path: Path
) -> None:
    """Those of functions with a state were not."""

    def callbacks() -> tuple[Any, ...]:
        return Counter(), Function(), Counter(), lambda _: None, Function()

    adapted = Function()
    run(tiny, loader, *callbacks(), on_step(adapted), epochs=1, checkpoint_dir=tmp_path)
    assert adapted.calls == 2
    again, adapted = callbacks(), Function()
    run(tiny, loader, *again, on_step(adapted), epochs=2, checkpoint_dir=tmp_path, resume=True)
    assert again[0].steps == again[2].steps == (1, 2, 3, 4)
    assert adapted.calls == 4
    assert again[1].calls == again[4].calls


def test_a_state_that_json_cannot_hold_is_a_type_error(
    tiny: GPT2Model, loader: DataLoader[Batch], tmp_path: Path
) -> None:
    class Wrong(Counter):
        @override
        def state_dict(self) -> dict[str, Any]:
            return {"steps": {1, 2}}

    with pytest.raises(TypeError, match=r"state_dict\(\) of the callback .*Wrong is saved in checkpoints as JSON"):
        run(tiny, loader, Wrong(), checkpoint_dir=tmp_path)


def test_tensorboards_file_is_closed_after_an_error(tiny: GPT2Model, loader: DataLoader[Batch], tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoardLogger(tmp_path)
    with pytest.raises(ZeroDivisionError):
        run(tiny, loader, logger, Diary("epoch"))
    assert logger._writer is None
    events = reader.EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.step for event in events.Scalars("step/loss")] == [1, 2]


def test_the_bar_is_a_callback_like_any_other_and_can_be_used_again(
    tiny: GPT2Model, loader: DataLoader[Batch], capsys: pytest.CaptureFixture[str]
) -> None:
    bar = ProgressBar()
    for _ in range(2):
        run(tiny, loader, bar)
        assert capsys.readouterr().err.count("train loss") == 3
