"""Checkpoints, and runs that go on from them exactly. What kills and damage do is in faults/."""

import json
import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader

import tinygpt2._internal.files
import tinygpt2.formats.manifest
import tinygpt2.training.checkpoints.format
from tinygpt2 import (
    Callback,
    CharTokenizer,
    CheckpointError,
    EarlyStopping,
    GPT2Config,
    GPT2Model,
    TrainingConfig,
    TrainingHistory,
    TrainState,
    make_dataloader,
    newest_checkpoint,
    train,
)
from tinygpt2._internal.directories import remove_directory, write_directory
from tinygpt2.config import OptimizerName
from tinygpt2.data.batches import Batch
from tinygpt2.data.loader import Loader
from tinygpt2.training.checkpoints.format import read_history

TOKENS = torch.arange(500).mul(7).remainder(61)
SHAPE = GPT2Config(vocab_size=61, context_length=8, n_layer=1, n_head=2, n_embd=16, dropout=0.3)
CONFIG = TrainingConfig(epochs=2, learning_rate=1e-2, schedule="cosine", gradient_accumulation_steps=2, eval_batches=2)


def loaders(tokens: Tensor = TOKENS, batch_size: int = 4) -> tuple[DataLoader[Batch], DataLoader[Batch]]:
    shuffled = make_dataloader(tokens, batch_size=batch_size, context_length=8, shuffle=True)
    return shuffled, make_dataloader(tokens[:90], batch_size=4, context_length=8)


def run(
    directory: Path | None,
    config: TrainingConfig = CONFIG,
    *,
    shape: GPT2Config = SHAPE,
    data: tuple[Loader, Loader | None] | None = None,
    callbacks: Sequence[Callback | Callable[[TrainState], object]] = (),
    resume: bool = True,
    **options: Any,  # noqa: ANN401 - any of train's
) -> tuple[GPT2Model, TrainingHistory]:
    torch.manual_seed(3)
    model = GPT2Model(shape)
    history = train(
        model,
        *(loaders() if data is None else data),
        config,
        callbacks=callbacks,
        device="cpu",
        checkpoint_dir=directory,
        resume=resume and directory is not None,
        progress=False,
        **options,
    )
    return model, history


class CrashError(Exception):
    pass


def crash_after(step: int, event: str = "step") -> Callable[[TrainState], None]:
    def callback(state: TrainState) -> None:
        if state.event == event and state.step >= step:
            raise CrashError

    return callback


def stop_after(step: int) -> Callable[[TrainState], None]:
    def callback(state: TrainState) -> None:
        if state.step >= step:
            state.stop()

    return callback


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def names(directory: Path) -> list[str]:
    """Returns what is in a directory, except the time that the run has taken."""
    return sorted(path.name for path in directory.iterdir() if path.name != "seconds.json")


def equal(first: GPT2Model, second: GPT2Model) -> bool:
    return all(map(torch.equal, first.parameters(), second.parameters()))


# Exactness


@settings(deadline=None)
@given(
    stops=st.lists(st.integers(1, 31), max_size=3).map(sorted),
    accumulation=st.integers(1, 3),
    eval_every=st.sampled_from([None, 1, 4, 5]),
    event=st.sampled_from(["step", "evaluation", "epoch"]),
    optimizer=st.sampled_from(get_args(OptimizerName)),
)
def test_a_run_that_crashes_and_is_resumed_is_the_run_that_was_not(
    tmp_path_factory: pytest.TempPathFactory,
    *,
    stops: list[int],
    accumulation: int,
    eval_every: int | None,
    event: str,
    optimizer: OptimizerName,
) -> None:
    """Weights, history, and every byte of the last checkpoint and of the best: 16, 8 or 6 steps an epoch."""
    config = replace(CONFIG, gradient_accumulation_steps=accumulation, eval_every=eval_every, optimizer=optimizer)
    whole, broken = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("broken")
    expected_model, expected_history = run(whole, config)
    for stop in stops:
        with suppress(CrashError):
            run(broken, config, callbacks=[crash_after(stop, event)])
    model, history = run(broken, config)
    assert equal(model, expected_model)
    assert history == expected_history
    last = f"checkpoint-{history.steps[-1]}"
    assert content(broken / last) == content(whole / last)
    assert content(broken / "best") == content(whole / "best")


def test_checkpoints_do_not_change_what_is_learned(tmp_path: Path) -> None:
    with_them, history = run(tmp_path / "run", checkpoint_every=1)
    without, same_history = run(None)
    assert equal(with_them, without)
    assert history == same_history


@pytest.mark.parametrize("kind", ["list", "shuffled DataLoader"])
def test_any_loader_that_repeats_its_batches_resumes_exactly(tmp_path: Path, kind: str) -> None:
    def data() -> tuple[Loader, None]:
        batches = [(window[:, :-1], window[:, 1:]) for window in TOKENS[:486].view(-1, 2, 9)]
        if kind == "list":
            return batches, None
        return DataLoader([(x[0], y[0]) for x, y in batches], batch_size=3, shuffle=True), None  # type: ignore[arg-type]

    expected, _ = run(tmp_path / "whole", data=data())
    torch.manual_seed(99)  # another global state must not matter
    with pytest.raises(CrashError):
        run(tmp_path / "broken", data=data(), callbacks=[crash_after(7)])
    model, _ = run(tmp_path / "broken", data=data())
    assert equal(model, expected)
    with pytest.raises(ValueError, match=r"of another run: .*the training data's sha256"):
        run(tmp_path / "broken", data=([(x.flip(0), y.flip(0)) for x, y in data()[0]], None))


def test_an_untied_model_without_biases_and_with_frozen_weights_resumes_exactly(tmp_path: Path) -> None:
    def part(directory: Path, steps: int) -> GPT2Model:
        torch.manual_seed(3)
        model = GPT2Model(replace(SHAPE, tie_weights=False, qkv_bias=False))
        model.wpe.requires_grad_(requires_grad=False)
        config = replace(CONFIG, max_steps=steps, schedule="constant")
        train(model, *loaders(), config, device="cpu", checkpoint_dir=directory, resume=True, progress=False)
        return model

    part(tmp_path / "broken", 5)
    assert equal(part(tmp_path / "broken", 9), part(tmp_path / "whole", 9))


# What a run may and may not change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": replace(SHAPE, n_embd=32)}, "of another run: the model's n_embd was 16 and is 32"),
        ({"shape": replace(SHAPE, dropout=0.0)}, "the model's dropout was 0.3 and is 0.0"),
        ({"data": loaders(batch_size=2)}, "the training data's batch_size was 4 and is 2"),
        ({"data": loaders(torch.cat([TOKENS, TOKENS]))}, "the training data's .*tokens was 500 and is 1000"),
        ({"data": loaders(TOKENS.flip(0))}, "the training data's sha256 .*; the validation data's sha256"),
        ({"data": (loaders()[0], None)}, "there was validation data and now there is none"),
        ({"config": replace(CONFIG, learning_rate=1e-3)}, "the learning_rate was 0.01 and is 0.001"),
        ({"config": replace(CONFIG, seed=1, weight_decay=0.0)}, "the seed was 0 and is 1; the weight_decay was 0.1"),
    ],
)
def test_resuming_another_run_is_an_error_that_names_the_difference(
    tmp_path: Path, change: dict[str, Any], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path, stopped := replace(CONFIG, max_steps=3))
    before = content(tmp_path)
    change = {"config": replace(stopped, max_steps=6)} | change
    change["config"] = replace(change["config"], max_steps=6)
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **change)
    assert content(tmp_path) == before

    if "n_embd" in message:  # allow_changes does not make it fit
        with pytest.raises(ValueError, match=message):
            run(tmp_path, **change, allow_changes=True)
    else:
        _, history = run(tmp_path, **change, allow_changes=True)
        assert history.steps[-1] == 6
        assert "resuming with a change" in caplog.text


def test_what_a_run_reports_may_change(tmp_path: Path) -> None:
    run(tmp_path, replace(CONFIG, max_steps=3))
    _, history = run(tmp_path, replace(CONFIG, max_steps=6, eval_every=1, eval_batches=None, sample_tokens=3))
    assert history.steps == [0, 3, 4, 5, 6]


def test_a_finished_run_says_so_and_goes_on_with_more_epochs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(CONFIG, schedule="constant")
    first, history = run(tmp_path, config)
    before = content(tmp_path)
    model = GPT2Model(SHAPE)
    again = train(model, *loaders(), config, device="cpu", checkpoint_dir=tmp_path, resume=True)
    assert "finished after 16 steps; more epochs extend it" in capsys.readouterr().err
    assert (again, content(tmp_path)) == (history, before)
    assert equal(model, first)

    longer, _ = run(tmp_path, replace(config, epochs=4))
    assert equal(longer, run(None, replace(config, epochs=4))[0])


def test_a_run_in_the_directory_is_never_overwritten(tmp_path: Path) -> None:
    run(tmp_path)
    before = content(tmp_path)
    with pytest.raises(ValueError, match="earlier run, the newest checkpoint-16; pass resume=True"):
        run(tmp_path, resume=False)
    assert content(tmp_path) == before


def test_resuming_where_nothing_is_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(GPT2Model(SHAPE), *loaders(), CONFIG, device="cpu", checkpoint_dir=tmp_path / "new", resume=True)
    assert "no checkpoint in" in capsys.readouterr().err
    assert newest_checkpoint(tmp_path / "new").name == "checkpoint-16"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resume": True}, "need a checkpoint_dir"),
        ({"checkpoint_every": 5}, "need a checkpoint_dir"),
        ({"checkpoint_every": 0, "checkpoint_dir": "x"}, "checkpoint_every must be at least 1"),
        ({"checkpoint_keep": 1, "checkpoint_dir": "x"}, "checkpoint_keep must be at least 2"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(GPT2Model(SHAPE), *loaders(), **options)


# What is on the disk


def test_the_newest_are_kept_and_the_best_beside_them(tmp_path: Path) -> None:
    _, history = run(tmp_path, replace(CONFIG, eval_every=1), checkpoint_every=3, checkpoint_keep=3)
    assert names(tmp_path) == ["best", "checkpoint-12", "checkpoint-15", "checkpoint-16"]
    assert names(tmp_path / "checkpoint-16") == [
        "config.json", "manifest.json", "model.safetensors", "training.json", "training_state.safetensors"
    ]  # fmt: skip
    losses = [loss for loss in history.val_losses if loss is not None]
    best = losses.index(min(losses))
    content = json.loads((tmp_path / "best" / "training.json").read_text(encoding="utf-8"))
    assert content["progress"]["step"] == history.steps[best]
    at_best = run(None, replace(CONFIG, eval_every=1), callbacks=[stop_after(history.steps[best])])[0]
    assert equal(GPT2Model.from_pretrained(tmp_path / "best"), at_best)


def test_by_default_saving_takes_about_a_hundredth_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that goes on by a second a step and two a save: 400 steps have time for two saves, and the ends."""
    now = [0.0]
    monkeypatch.setattr("tinygpt2.training.checkpoints.saver.time.perf_counter", lambda: now[0])
    real = tinygpt2.training.checkpoints.format.write_checkpoint
    saved: list[int] = []

    def write(path: Path, *content: Any) -> None:  # noqa: ANN401
        real(path, *content)
        saved.append(int(path.name.removeprefix("checkpoint-")))
        now[0] += 1

    def tick(state: TrainState) -> None:
        now[0] += state.event == "step"

    monkeypatch.setattr("tinygpt2.training.checkpoints.saver.write_checkpoint", write)
    run(tmp_path, replace(CONFIG, max_steps=400, eval_batches=1, eval_every=1000), callbacks=[tick])
    assert saved == [0, 199, 298, 397, 400]


def test_weights_that_change_after_saving_are_not_in_the_file(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def spoil(state: TrainState) -> None:
        if state.event == "end":
            seen.append((tmp_path / "checkpoint-16" / "model.safetensors").read_bytes())
            for parameter in state.model.parameters():
                parameter.data.zero_()

    model, _ = run(tmp_path, callbacks=[spoil])
    assert not any(parameter.any() for parameter in model.parameters())
    assert (tmp_path / "checkpoint-16" / "model.safetensors").read_bytes() == seen[0]
    assert equal(GPT2Model.from_pretrained(tmp_path / "checkpoint-16"), run(None)[0])


def test_transformers_reads_a_checkpoint(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model, _ = run(tmp_path)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "checkpoint-16").eval()
    tokens = TOKENS[:8].unsqueeze(0)
    assert torch.allclose(theirs(tokens).logits, model.eval()(tokens), atol=1e-5)


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_permissions_are_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        run(tmp_path)
    finally:
        os.umask(before)
    assert (tmp_path / "checkpoint-16").stat().st_mode & 0o777 == 0o750
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "checkpoint-16").iterdir()} == {0o640}


@pytest.mark.skipif(os.name != "posix", reason="directories are not synced elsewhere")
def test_everything_is_on_the_disk_before_it_has_its_name_and_then_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 does not lose what the system has not yet written; a power cut does."""
    calls: list[tuple[str, str]] = []
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")

    def record(name: str) -> None:
        real = getattr(os, name)

        def recording(first: Any, *rest: Any) -> Any:  # noqa: ANN401
            path = f"/proc/self/fd/{first}" if isinstance(first, int) else rest[0]
            calls.append((name, Path(path).resolve().name))
            return real(first, *rest)

        monkeypatch.setattr(os, name, recording)

    for name in ("fsync", "write", "rename"):
        record(name)
    run(tmp_path, replace(CONFIG, max_steps=1), data=(loaders()[0], None))

    named = calls.index(("rename", "checkpoint-1"))
    begin = max(i for i in range(named) if calls[i] == ("fsync", tmp_path.name)) + 1
    saving = calls[begin:named]
    files = {"config.json", "manifest.json", "model.safetensors", "training.json", "training_state.safetensors"}
    assert {name for call, name in saving if call == "write"} == files
    for file in files:
        last_write = max(i for i, call in enumerate(saving) if call == ("write", file))
        assert ("fsync", file) in saving[last_write:]
    assert saving[-1][0] == "fsync"
    assert saving[-1][1].startswith(".checkpoint-1.")
    assert calls[named + 1] == ("fsync", tmp_path.name)


# Damage


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_damaged_checkpoint_is_skipped_named_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected, _ = run(tmp_path / "whole")
    with pytest.raises(CrashError):
        run(tmp_path / "run", checkpoint_every=4, callbacks=[crash_after(9)])
    assert names(tmp_path / "run") == ["best", "checkpoint-8", "checkpoint-9"]
    damage(tmp_path / "run" / "checkpoint-9" / "model.safetensors")
    with caplog.at_level(logging.WARNING):
        assert newest_checkpoint(tmp_path / "run").name == "checkpoint-8"
    assert "checkpoint-9 is not an intact checkpoint: model.safetensors does not have the SHA-256" in caplog.text
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        GPT2Model.from_pretrained(tmp_path / "run" / "checkpoint-9")

    (tmp_path / "run" / "checkpoint-9.damaged").mkdir()
    model, _ = run(tmp_path / "run")
    assert equal(model, expected)
    assert "checkpoint-9.damaged-2" in names(tmp_path / "run")


def test_where_every_checkpoint_is_damaged_nothing_is_begun_or_removed(tmp_path: Path) -> None:
    run(tmp_path, checkpoint_every=4)
    for path in tmp_path.glob("checkpoint-*"):
        damage(path / "training_state.safetensors")
    before = content(tmp_path)
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is intact: .*checkpoint-16.*; .*checkpoint-12"):
        run(tmp_path)
    assert content(tmp_path) == before


def test_what_a_killed_process_leaves_is_tidied_up(tmp_path: Path) -> None:
    run(tmp_path, replace(CONFIG, max_steps=4))
    best = content(tmp_path / "best")
    (tmp_path / "best").rename(tmp_path / ".best.old")
    (tmp_path / ".checkpoint-9.0123abcd").mkdir()
    (tmp_path / ".checkpoint-9.0123abcd" / "config.json").write_text("{", encoding="utf-8")
    (tmp_path / ".mine").mkdir()
    run(tmp_path, replace(CONFIG, max_steps=4))
    assert names(tmp_path) == [".mine", "best", "checkpoint-0", "checkpoint-4"]
    assert content(tmp_path / "best") == best


# Names


def test_a_checkpoint_under_another_steps_name_is_no_checkpoint_of_that_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """``train`` refused it where ``newest_checkpoint`` did not."""
    run(tmp_path, replace(CONFIG, max_steps=8), checkpoint_every=4)
    (tmp_path / "checkpoint-8").rename(tmp_path / "checkpoint-9")
    message = "checkpoint-9 is not an intact checkpoint: its step is 8, not 9"
    assert newest_checkpoint(tmp_path).name == "checkpoint-4"
    assert message in caplog.text
    with pytest.raises(CheckpointError, match=message):
        read_history(tmp_path / "checkpoint-9")
    (tmp_path / "checkpoint-9").rename(tmp_path / "mine")
    history = read_history(tmp_path / "mine")
    assert history is not None
    assert history.steps[-1] == 8
    (tmp_path / "mine").rename(tmp_path / "checkpoint-9")
    run(tmp_path, replace(CONFIG, max_steps=8), checkpoint_every=4)
    assert names(tmp_path) == ["best", "checkpoint-4", "checkpoint-8", "checkpoint-9.damaged"]


@pytest.mark.parametrize("name", ["checkpoint-0004", "checkpoint-０４", "checkpoint-٤"])
def test_a_checkpoint_with_a_number_that_is_written_otherwise_is_ignored_aloud(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path, replace(CONFIG, max_steps=4), checkpoint_every=4)
    (tmp_path / "checkpoint-4").rename(tmp_path / name)
    message = f"ignored {tmp_path / name}: it is not named like a checkpoint; expected checkpoint-4"
    assert newest_checkpoint(tmp_path).name == "checkpoint-0"
    assert caplog.text.count(message) == 1
    run(tmp_path, replace(CONFIG, max_steps=4), checkpoint_every=4)
    assert caplog.text.count(message) == 2
    assert names(tmp_path) == sorted(["best", "checkpoint-0", "checkpoint-4", name])


def test_the_tokenizer_is_verified_like_every_other_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = CharTokenizer("".join(map(chr, range(97, 97 + 61))))
    run(tmp_path, replace(CONFIG, max_steps=8), checkpoint_every=4, tokenizer=tokenizer)
    damage(tmp_path / "checkpoint-8" / "tinygpt2_tokenizer.json")
    assert newest_checkpoint(tmp_path).name == "checkpoint-4"
    assert "checkpoint-8 is not an intact checkpoint: tinygpt2_tokenizer.json does not have the SHA-256" in caplog.text
    run(tmp_path, replace(CONFIG, max_steps=8), checkpoint_every=4, tokenizer=tokenizer)
    assert names(tmp_path) == ["best", "checkpoint-4", "checkpoint-8", "checkpoint-8.damaged"]


# What others do in the directory meanwhile


@pytest.mark.parametrize("kind", ["link", "file", "directory"])
def test_whatever_is_in_the_way_blocks_neither_a_save_nor_the_resumed_run(tmp_path: Path, kind: str) -> None:
    """A ``best`` that was a link used to make the next save but one fail, and each run after it."""
    if kind == "link" and os.name != "posix":
        pytest.skip("links")
    config = replace(CONFIG, eval_every=2)
    expected, _ = run(tmp_path / "whole", config)
    directory = tmp_path / "run"

    def meddle(state: TrainState) -> None:
        if state.event != "step" or state.step not in (5, 11):
            return
        for name in ("best", ".best.old", f"checkpoint-{state.step + 1}", f".checkpoint-{state.step + 1}.old"):
            path = directory / name
            if path.is_dir():
                path.rename(tmp_path / f"{name}-{state.step}")
            if kind == "link":
                path.symlink_to(tmp_path)
            elif kind == "file":
                path.touch()
            else:
                path.mkdir()
                (path / "file").touch()

    for step in (9, 13):
        with pytest.raises(CrashError):
            run(directory, config, checkpoint_every=2, callbacks=[meddle, crash_after(step)])
    model, _ = run(directory, config, checkpoint_every=2)
    assert equal(model, expected)
    assert names(directory) == ["best", "checkpoint-14", "checkpoint-16"]
    for name in ("best", "checkpoint-16"):
        assert content(directory / name) == content(tmp_path / "whole" / name)


def test_what_another_program_holds_open_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on Windows, where a directory with an open file in it has the name that it has."""
    held = {"best", "checkpoint-4"}
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name in held:
            raise PermissionError(13, "Access is denied", str(path), str(target))
        return rename(path, target)

    def release(state: TrainState) -> None:
        if state.event == "step" and state.step == 13:
            held.clear()

    expected, _ = run(tmp_path / "whole", replace(CONFIG, eval_every=2))
    monkeypatch.setattr(Path, "rename", refuse)
    model, _ = run(tmp_path / "run", replace(CONFIG, eval_every=2), checkpoint_every=4, callbacks=[release])
    assert equal(model, expected)
    assert f"{tmp_path / 'run' / 'best'} cannot be replaced: Access is denied; it keeps what it has" in caplog.text
    assert f"cannot remove {tmp_path / 'run' / 'checkpoint-4'}: Access is denied" in caplog.text
    assert names(tmp_path / "run") == ["best", "checkpoint-12", "checkpoint-16"]
    assert content(tmp_path / "run" / "best") == content(tmp_path / "whole" / "best")


def test_a_damaged_checkpoint_that_cannot_be_renamed_does_not_block_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected, _ = run(tmp_path / "whole")
    with pytest.raises(CrashError):
        run(tmp_path / "run", checkpoint_every=4, callbacks=[crash_after(9)])
    damage(tmp_path / "run" / "checkpoint-9" / "training.json")
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name == "checkpoint-9":
            raise PermissionError(13, "Access is denied", str(path), str(target))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    assert equal(run(tmp_path / "run")[0], expected)
    assert "cannot rename the damaged" in caplog.text


def test_a_checkpoint_that_is_removed_while_it_is_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By the run that is training there, which has saved and removed more of them by then."""
    run(tmp_path / "source", replace(CONFIG, max_steps=8), checkpoint_every=2, checkpoint_keep=9)
    directory = tmp_path / "run"
    for step in (2, 4):
        shutil.copytree(tmp_path / "source" / f"checkpoint-{step}", directory / f"checkpoint-{step}")
    real = tinygpt2._internal.files.digest_file
    left = [6, 8]

    def advance(path: Path) -> object:
        if left and path.name == "training.json":
            step = left.pop(0)
            shutil.copytree(tmp_path / "source" / f"checkpoint-{step}", directory / f"checkpoint-{step}")
            remove_directory(directory / f"checkpoint-{step - 2}")
            remove_directory(directory / f"checkpoint-{step - 4}")
        return real(path)

    monkeypatch.setattr(tinygpt2.formats.manifest, "digest_file", advance)
    assert newest_checkpoint(directory).name == "checkpoint-8"
    assert not left
    assert not caplog.text


def test_a_model_that_is_replaced_while_it_is_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 of 147 reads of ``best`` beside a run found files of two models."""
    best = tmp_path / "best"
    for name, steps in (("one", 4), ("two", 8)):
        run(tmp_path / name, replace(CONFIG, max_steps=steps))
        shutil.copytree(tmp_path / name / f"checkpoint-{steps}", tmp_path / f"model-{name}")

    def exchange(name: str) -> None:
        write_directory(best, lambda draft: shutil.copytree(tmp_path / f"model-{name}", draft, dirs_exist_ok=True))

    exchange("one")
    real = tinygpt2._internal.files.digest_file
    left = ["two", "one", "two"]

    def exchanging(path: Path) -> object:
        if left and path.name == "model.safetensors":
            exchange(left.pop(0))
        return real(path)

    monkeypatch.setattr(tinygpt2.formats.manifest, "digest_file", exchanging)
    assert equal(GPT2Model.from_pretrained(best), GPT2Model.from_pretrained(tmp_path / "model-two"))
    assert not left
    best.rename(tmp_path / ".best.old")  # a run that was killed just then
    assert equal(GPT2Model.from_pretrained(best), GPT2Model.from_pretrained(tmp_path / "model-two"))


@pytest.mark.skipif(os.name != "posix", reason="directories are not synced elsewhere")
def test_the_new_directory_of_a_run_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[int, int]] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        status = os.fstat(descriptor)
        synced.append((status.st_dev, status.st_ino))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    run(tmp_path / "a" / "b", replace(CONFIG, max_steps=1))
    GPT2Model(SHAPE).save_pretrained(tmp_path / "c" / "d")
    for parent in (tmp_path, tmp_path / "a", tmp_path / "c"):
        assert (parent.stat().st_dev, parent.stat().st_ino) in synced


# Stopping


def test_a_callback_that_raises_does_not_lose_the_run(tmp_path: Path) -> None:
    with pytest.raises(CrashError) as caught:
        run(tmp_path, callbacks=[crash_after(5)])
    assert newest_checkpoint(tmp_path).name == "checkpoint-5"
    assert caught.value.__notes__ == ["a checkpoint of step 5 was saved; pass resume=True to resume from it"]


def test_an_optimizer_that_fails_half_way_is_not_saved(tmp_path: Path) -> None:
    def spoil(state: TrainState) -> None:
        if state.step == 5:
            step = state.optimizer.step

            def half(*_: object) -> None:
                step()
                raise CrashError

            state.optimizer.step = half  # type: ignore[method-assign, assignment]

    expected, _ = run(None)
    with pytest.raises(CrashError):
        run(tmp_path, callbacks=[spoil], checkpoint_every=4)
    assert newest_checkpoint(tmp_path).name == "checkpoint-4"
    assert equal(run(tmp_path)[0], expected)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGINT)])
def test_the_first_signal_ends_after_the_step_and_then_does_what_it_would_have(
    tmp_path: Path, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    def raise_it(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, raise_it)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, callbacks=[lambda state: signal.raise_signal(number) if state.step == 5 else None])
        assert signal.getsignal(number) is raise_it
    finally:
        signal.signal(number, before)
    assert newest_checkpoint(tmp_path).name == "checkpoint-5"
    assert equal(run(tmp_path)[0], run(None)[0])
    assert not capsys.readouterr().out


def test_a_signal_during_an_evaluation_does_not_wait_for_it_and_it_is_made_later(tmp_path: Path) -> None:
    train_loader, val_loader = loaders()

    class Interrupting:
        """Validation data in the second pass over which Ctrl-C is pressed."""

        def __init__(self) -> None:
            self.passes = 0
            self.read = 0

        def __len__(self) -> int:
            return len(val_loader)

        def __iter__(self) -> Any:  # noqa: ANN401
            self.passes += 1
            for batch in val_loader:
                self.read += 1
                yield batch
                if self.passes == 3:  # the first is for the fingerprint
                    signal.raise_signal(signal.SIGINT)

    interrupting = Interrupting()
    config = replace(CONFIG, eval_every=5, eval_batches=None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, config, data=(train_loader, interrupting))
    assert interrupting.read == 1 + len(val_loader) + 2  # the one that was being read is the last
    _, history = run(tmp_path, config, data=(train_loader, interrupting))
    assert history == run(None, config, data=(train_loader, list(val_loader)))[1]


def test_the_second_signal_ends_at_once_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes while the checkpoint that the first asked for is being written."""
    real = tinygpt2._internal.files.write_file

    def interrupted(path: Path, chunks: Any) -> Any:  # noqa: ANN401
        if ".checkpoint-5." in str(path) and path.name == "training.json":
            signal.raise_signal(signal.SIGINT)
        return real(path, chunks)

    monkeypatch.setattr("tinygpt2.training.checkpoints.format.write_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, callbacks=[lambda state: signal.raise_signal(signal.SIGINT) if state.step == 5 else None])
    assert names(tmp_path) == ["best", "checkpoint-0"]
    assert equal(run(tmp_path)[0], run(None)[0])


def test_training_outside_the_main_thread_leaves_signals_alone(tmp_path: Path) -> None:
    results: list[GPT2Model] = []
    thread = threading.Thread(target=lambda: results.append(run(tmp_path)[0]))
    thread.start()
    thread.join()
    assert equal(results[0], run(None)[0])


# Early stopping


def test_early_stopping_waits_for_its_patience_and_the_best_is_kept(tmp_path: Path) -> None:
    """Validation data that says the opposite of the training data."""
    data = loaders()[0], make_dataloader(TOKENS.flip(0), batch_size=4, context_length=8)
    config = replace(CONFIG, epochs=30, eval_every=4, schedule="constant")
    _, history = run(tmp_path, config, data=data, callbacks=[EarlyStopping(3)])
    losses = [loss for loss in history.val_losses if loss is not None]
    assert losses.index(min(losses)) == history.best == len(losses) - 4
    assert history.steps[-1] < 240
    assert history.stopped == "the validation loss has not fallen for 3 evaluations"
    best = json.loads((tmp_path / "best" / "training.json").read_text(encoding="utf-8"))
    assert best["progress"]["step"] == history.steps[-4]

    _, again = run(tmp_path, config, data=data, callbacks=[EarlyStopping(3)])
    assert again == history
    _, longer = run(tmp_path, config, data=data, callbacks=[EarlyStopping(5)])
    assert len(longer.steps) == len(history.steps) + 2
    assert longer.stopped == "the validation loss has not fallen for 5 evaluations"
    _, unstopped = run(tmp_path, replace(config, epochs=len(longer.steps)), data=data)
    assert unstopped.stopped is None


def test_early_stopping_needs_validation_data_and_sensible_numbers() -> None:
    with pytest.raises(ValueError, match="pass a val_loader"):
        run(None, data=(loaders()[0], None), callbacks=[EarlyStopping(1)])
    with pytest.raises(ValueError, match="patience must be at least 1"):
        EarlyStopping(0)
    with pytest.raises(ValueError, match="min_delta"):
        EarlyStopping(1, min_delta=-1.0)
