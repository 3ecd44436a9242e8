"""``tinygpt2 train``: new runs, fine-tuned ones and resumed ones, and the directories that they leave."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from tinygpt2 import (
    Callback,
    CharTokenizer,
    GPT2Config,
    GPT2Model,
    TrainingHistory,
    TrainState,
    load_tokenizer,
    make_dataloader,
    newest_checkpoint,
    sample_text,
    save_tokenizer,
    split_text,
)
from tinygpt2 import train as real_train
from tinygpt2.cli import models, phases, plan
from tinygpt2.cli import train as module
from tinygpt2.cli.corpus import first_words, read_corpus
from tinygpt2.cli.hints import to_paste
from tinygpt2.cli.main import main
from tinygpt2.cli.signals import TerminatedError
from tinygpt2.recipe.recommend import recommend
from tinygpt2.recipe.statistics import TextStatistics
from tinygpt2.run.directory import RunDirectory
from tinygpt2.training.checkpoints.format import read_history

Fails = Callable[..., None]
Begin = Callable[..., "subprocess.Popen[str]"]

CHINESE = "天地玄黃，宇宙洪荒。日月盈昃，辰宿列張。" * 40
TINY = {"n_layer": 1, "n_head": 2, "n_embd": 32}
PNG = b"\x89PNG\r\n\x1a\n"
FAST = ("--tokenizer", "char", "--context-length", "16", "--device", "cpu")
STEPS = ("--max-steps", "2", "--quiet")


def train(text: Path, out: Path, *options: object) -> int:
    return main(["train", str(text), "--out", str(out), *map(str, options)])


def resume(out: Path, *options: object) -> int:
    return main(["train", "--out", str(out), "--resume", *map(str, options)])


def saved(directory: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((directory / name).read_text(encoding="utf-8"))
    return content


def losses_of(directory: Path) -> TrainingHistory:
    """Returns the history of a run, which is compared without the time that it took."""
    return TrainingHistory.load(directory / "history.json")


@contextmanager
def interrupted_at(step: int) -> Iterator[None]:
    """Presses Ctrl-C in a step of training."""

    def press(state: TrainState) -> None:
        if state.event == "step" and state.step == step:
            signal.raise_signal(signal.SIGINT)

    def train_and_press(*args: Any, callbacks: Sequence[Callback], **options: Any) -> TrainingHistory:  # noqa: ANN401
        return real_train(*args, callbacks=[*callbacks, press], **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phases, "train", train_and_press)
        yield


# --- new runs ---


def test_training_leaves_a_run_directory(text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "runs" / "fox"
    assert train(text_file, directory, "--epochs", 3, "--sample-prompt", "The", *FAST) == 0
    captured = capsys.readouterr()
    last = newest_checkpoint(directory)
    assert {path.name for path in directory.iterdir() if not path.name.startswith("checkpoint-")} == {
        "best", "config.json", "generation_config.json", "history.json", "losses.png", "model.safetensors",
        "options.json", "report.json", "seconds.json", "snapshots", "tinygpt2_tokenizer.json", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    assert (last / "model.safetensors").read_bytes() == (directory / "model.safetensors").read_bytes()
    assert (directory / "losses.png").read_bytes().startswith(PNG)
    history = TrainingHistory.load(directory / "history.json")
    assert history.train_losses[-1] < history.train_losses[0] - 0.5
    assert history.steps == [0, 78]  # more evaluations would take more than a tenth of the time
    assert captured.err.count("sample: The") == 3
    assert "train loss" in captured.err
    assert f"try:  tinygpt2 generate --model {directory} --device cpu The\n" in captured.out
    text = text_file.read_text(encoding="utf-8")
    characters = CharTokenizer.from_text(text, byte_fallback=True)
    assert GPT2Model.from_pretrained(directory).config.vocab_size == characters.n_vocab


def test_the_same_seed_gives_the_same_run(text_file: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert train(text_file, tmp_path / name, "--seed", seed, *STEPS, *FAST) == 0
    weights = {name: (tmp_path / name / "model.safetensors").read_bytes() for name in "abc"}
    assert weights["a"] == weights["b"]
    assert weights["a"] != weights["c"]


def test_without_arguments_it_takes_the_text_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["train", "--max-steps", "1", "--eval-batches", "1", *FAST]
    assert main(arguments) == 0
    assert main(arguments) == 0
    train_text, val_text = split_text(sample_text(), 0.9)
    said = f"{len(train_text):,} characters to train on, {len(val_text):,} characters to validate on\n"
    assert said in capsys.readouterr().err
    assert sorted(path.name for path in Path("runs").iterdir()) == ["sample-text", "sample-text-2"]


def test_the_options_of_a_run_are_saved_with_what_was_chosen(text_file: Path, tmp_path: Path) -> None:
    assert train(text_file, tmp_path / "run", *STEPS, *FAST) == 0
    options = saved(tmp_path / "run", "options.json")
    chosen: dict[str, object] = {
        "files": [str(text_file)],
        "preset": None,
        "n_layer": 1,
        "n_head": 2,
        "n_embd": 64,
        "dropout": 0,
    }
    chosen |= {"optimizer": "muon", "learning_rate": 0.011, "schedule": "constant", "max_steps": 2, "epochs": None}
    chosen |= {"warmup_steps": 1, "eval_every": 2, "eval_batches": 1, "sample_prompt": "The quick brown fox"}
    assert {name: options[name] for name in chosen} == chosen
    assert not {"out", "resume", "quiet", "device", "allow_changes", "run", "traceback"} & options.keys()


def test_chinese_goes_through_any_locale(tmp_path: Path, begin: Begin) -> None:
    source = tmp_path / "千字文.txt"
    source.write_bytes(CHINESE.encode("utf-8"))
    locale = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    prompt = "日月".encode() if sys.platform != "win32" else "日月"
    process = begin(
        *("train", source, "--out", tmp_path / "运行", *STEPS, *FAST),
        *("++", "generate", "--model", tmp_path / "运行", prompt, "--max-new-tokens", 3),
        env=os.environ | locale,
    )
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert output.startswith("日月")


def test_a_plot_without_matplotlib_does_not_fail_the_run(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "tinygpt2._internal.figures", raising=False)  # another test may have imported it
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    directory = tmp_path / "out"
    assert train(text_file, directory, "--max-steps", 1, *FAST) == 0
    assert "no plot: plots need matplotlib: pip install 'tinygpt2[plot]'" in capsys.readouterr().err
    assert not (directory / "losses.png").exists()
    assert saved(directory, "history.json")["steps"] == [0, 1]


def test_a_diverging_run_is_one_line_and_keeps_what_was_learned(
    text_file: Path, tmp_path: Path, fails: Fails, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "out"
    rate = ["--learning-rate", "1e30", "--warmup-steps", "0", "--quiet"]
    advice = ("the learning rate is too high (try", "or --warmup-steps)", "was saved; pass --resume to resume from it")
    fails(["train", text_file, "--out", directory, *rate, *FAST], *advice)
    assert all(p.isfinite().all() for p in GPT2Model.from_pretrained(newest_checkpoint(directory)).parameters())
    assert main(["info", str(directory)]) == 0
    assert "did not finish" in capsys.readouterr().err


def test_it_trains_in_a_thread_of_another_program(text_file: Path, tmp_path: Path) -> None:
    """Signals are the main thread's: asking for one elsewhere is an error of Python's."""
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(train(text_file, tmp_path / "run", *STEPS, *FAST)))
    thread.start()
    thread.join()
    assert codes == [0]


def test_a_program_around_it_keeps_its_random_numbers(text_file: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    assert train(text_file, tmp_path / "run", *STEPS, *FAST) == 0
    assert torch.equal(torch.get_rng_state(), before)


def test_runs_in_two_threads_begin_with_their_own_weights(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both draw the same global random numbers: one seeded, then the other, and then the first drew."""
    assert train(text_file, tmp_path / "alone", *STEPS, *FAST) == 0
    real, barrier = GPT2Model, threading.Barrier(2)

    def slowly(shape: GPT2Config) -> GPT2Model:
        with suppress(threading.BrokenBarrierError):
            barrier.wait(timeout=0.2)  # for the other thread to seed, if it can
        return real(shape)

    monkeypatch.setattr(models, "GPT2Model", slowly)
    runs = [(tmp_path / "a", "0"), (tmp_path / "b", "1")]
    threads = [
        threading.Thread(target=train, args=(text_file, run, "--seed", seed, *STEPS, *FAST)) for run, seed in runs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone, together = ((tmp_path / run / "model.safetensors").read_bytes() for run in ("alone", "a"))
    assert alone == together


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("A title\n\n" + "The first paragraph of a long text " * 3, "The first paragraph"),
        ("\n\nshort", "short"),
        ("人" * 70, "人" * 20),
        ("Antidisestablishmentarianism " * 5, "Antidisestablishment"),
        (" \n", " \n"),
    ],
)
def test_the_samples_begin_with_the_first_words_of_a_paragraph(text: str, prompt: str) -> None:
    assert first_words(text) == prompt


# --- directories ---


def test_files_that_cannot_be_read_are_one_line_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    latin, empty, short = (tmp_path / f"{name}.txt" for name in ("latin", "empty", "short"))
    latin.write_bytes(b"caf\xe9")
    empty.touch()
    short.write_text("a few words only", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for out in ([], ["--out", tmp_path / "a" / "out"]):
        fails(["train", tmp_path / "none.txt", *out], "none.txt", "No such file")
        fails(["train", latin, *out], "latin.txt", "0xe9 at offset 3")
        fails(["train", empty, *out], "empty")
        fails(["train", short, *out], "the part to validate on", "--context-length is 8", "; pass a longer text")
        fails(["train", short, *out, "--device", "abacus"], "abacus", "available: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.txt", "latin.txt", "short.txt"]


def test_an_empty_directory_of_the_users_stays(tmp_path: Path, fails: Fails) -> None:
    (tmp_path / "out").mkdir()
    fails(["train", tmp_path / "none.txt", "--out", tmp_path / "out"], "No such file")
    assert (tmp_path / "out").is_dir()


def test_a_directory_that_holds_something_is_not_overwritten(
    run_directory: Path, text_file: Path, tmp_path: Path, fails: Fails
) -> None:
    before = (run_directory / "model.safetensors").read_bytes()
    fails(["train", text_file, "--out", run_directory], "not empty", "(--resume)")
    assert (run_directory / "model.safetensors").read_bytes() == before
    (tmp_path / "file").touch()
    fails(["train", text_file, "--out", tmp_path / "file"], "file: File exists")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission_is_one_line(text_file: Path, tmp_path: Path, fails: Fails) -> None:
    tmp_path.chmod(0o500)
    fails(["train", text_file, "--out", tmp_path / "out", *FAST], "Permission denied")


def test_whoever_comes_second_into_a_directory_finds_what_the_first_left(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    """Between the look into the directory and the lock another run may have come and gone."""
    real = RunDirectory.claim

    def claim(path: Path) -> RunDirectory:
        run = real(path)
        run.options.touch()
        return run

    monkeypatch.setattr(RunDirectory, "claim", claim)
    fails(["train", text_file, "--out", tmp_path / "run", *STEPS, *FAST], "not empty")


def test_nobody_else_is_in_the_directory_from_beginning_to_end(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def attempt(*_: object, **__: object) -> bool:
        def enter() -> None:
            try:
                with RunDirectory(tmp_path / "run").locked():
                    seen.append("let in")
            except BlockingIOError as error:
                seen.append(str(error))

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        return False

    monkeypatch.setattr(module, "read_corpus", lambda options: (attempt(), read_corpus(options))[1])  # the first thing
    monkeypatch.setattr(module, "_plot_if_possible", attempt)  # and the last
    assert train(text_file, tmp_path / "run", *STEPS, *FAST) == 0
    assert [said.startswith("another thread is training in") for said in seen] == [True, True]


# --- stopped and resumed ---


def first_line_with(part: str, process: "subprocess.Popen[str]") -> None:
    assert process.stderr is not None
    next(line for line in process.stderr if part in line)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_stops_after_the_step_and_saves(
    text_file: Path, tmp_path: Path, begin: Begin, fails: Fails, number: str
) -> None:
    """And until then no other process may resume the run, or begin one there."""
    directory = tmp_path / "out"
    arguments = ["train", text_file, "--out", directory, "--max-steps", 1000000, "--eval-every", 5, *FAST]
    process = begin(*arguments, stdout=subprocess.DEVNULL)
    first_line_with("step       5/", process)
    fails(["train", "--out", directory, "--resume"], f"another process is training in {directory}: wait until")
    fails(["train", text_file, "--out", directory], "not empty")
    first_line_with("step      15/", process)
    process.send_signal(signal.Signals[number])
    _, rest = process.communicate(timeout=60)
    assert process.returncode == {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}[number]
    step = int(newest_checkpoint(directory).name.removeprefix("checkpoint-"))
    assert step >= 15
    *_, last = rest.splitlines()
    where = f"after step {step} of 1000000, saved"
    assert last == (f"stopped by {number} {where}; to resume:  tinygpt2 train --out {directory} --resume --device cpu")
    assert rest.count("stopped") == 1
    assert torch.isfinite(GPT2Model.from_pretrained(directory / f"checkpoint-{step}").wte.weight).all()

    assert resume(directory, "--max-steps", step + 3, "--quiet") == 0
    steps = TrainingHistory.load(directory / "history.json").steps
    assert steps[:4] == [0, 5, 10, 15]
    assert steps[-1] == step + 3


@pytest.mark.skipif(sys.platform == "win32", reason="has no such terminals")
def test_a_closed_terminal_ends_a_run_as_ctrl_c_does(text_file: Path, tmp_path: Path, begin: Begin) -> None:
    """It was killed where it was, as by a dropped connection; what it writes then has nowhere to go."""
    whole, closed = tmp_path / "whole", tmp_path / "closed"
    constant = ["--schedule", "constant", "--warmup-steps", 0, "--learning-rate", 0.001]  # whatever the length
    constant += ["--batch-size", 4, "--dropout", 0.1, "--token-noise", 0, "--weight-decay", 0.1, "--ema-decay", 0.9]
    options = [*constant, "--eval-every", 5, "--eval-batches", 1, *FAST]
    terminal, end = os.openpty()
    words = ["train", text_file, "--out", closed, "--max-steps", 1000000, *options]
    process = begin(*words, stdin=end, stdout=end, stderr=end)
    os.close(end)
    shown = b""
    while b"step       5/" not in shown:
        shown += os.read(terminal, 1024)
    os.close(terminal)
    process.send_signal(signal.SIGHUP)  # as the system does to those that a terminal controls
    assert process.wait(timeout=60) == 129
    step = int(newest_checkpoint(closed).name.removeprefix("checkpoint-"))
    assert step >= 5
    assert resume(closed, "--max-steps", step + 3, "--quiet") == 0
    assert train(text_file, whole, "--max-steps", step + 3, *options, "--quiet") == 0
    assert (closed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert losses_of(closed) == losses_of(whole)


@contextmanager
def stopped_while(name: str, error: BaseException, *, after: bool) -> Iterator[None]:
    """Raises an error in place of a function of the command, or after it."""
    place = next(each for each in (module, plan, phases) if hasattr(each, name))
    real = getattr(place, name)

    def stop(*args: Any, **options: Any) -> None:  # noqa: ANN401 - the function's
        if after:
            real(*args, **options)
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, name, stop)
        yield


STOPPED = {KeyboardInterrupt(): (130, "stopped by SIGINT before the run began\n"),
           TerminatedError(): (143, "stopped by SIGTERM before the run began\n")}  # fmt: skip
FAILED = {ValueError("no"): (1, "tinygpt2: error: no\n")}


@pytest.mark.parametrize(
    ("error", "name"),
    [
        *product(STOPPED | FAILED, ("read_corpus", "make_loaders", "prompt_from")),
        *product(STOPPED, ("save_options", "save_tokenizer")),  # after an error there is a checkpoint
    ],
)
@pytest.mark.parametrize("after", [False, True])
def test_a_run_that_is_stopped_before_it_began_leaves_nothing(
    text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], *, name: str, after: bool, error: BaseException
) -> None:
    """The line to resume it was printed as soon as there were options, and did not work."""
    (tmp_path / "mine").mkdir()
    for out in ("mine", "a/new"):
        with stopped_while(name, error, after=after):
            code = train(text_file, tmp_path / out, *STEPS, *FAST)
        assert (code, capsys.readouterr().err) == (STOPPED | FAILED)[error]
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


def test_a_run_that_ended_can_be_finished_again(
    text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A signal after the last step, while the results are written."""
    with stopped_while("plot_history", KeyboardInterrupt(), after=False):
        assert train(text_file, tmp_path / "run", *STEPS, *FAST) == 130
    line = f"stopped by SIGINT; to resume:  tinygpt2 train --out {tmp_path / 'run'} --resume --device cpu\n"
    assert capsys.readouterr().err == line
    assert resume(tmp_path / "run", "--device", "cpu") == 0
    assert (tmp_path / "run" / "losses.png").exists()


def test_the_line_to_resume_a_resumed_run_repeats_what_was_given(
    run_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """More epochs, say, which are saved only when the run has begun."""
    shutil.copytree(run_directory, tmp_path / "my run")
    with stopped_while("read_corpus", KeyboardInterrupt(), after=False):
        assert resume(tmp_path / "my run", "--epochs", 9) == 130
    line = f"tinygpt2 train --out '{tmp_path / 'my run'}' --resume --epochs 9\n"
    assert capsys.readouterr().err == f"stopped by SIGINT; to resume:  {line}"
    assert (tmp_path / "my run" / "history.json").exists()


# The program under another name in a directory with a space, with a small model, which stops itself if asked to.
PROGRAM = f"""#!{sys.executable}
import os, signal, sys
from tinygpt2.config import PRESETS
PRESETS["gpt2-nano"] = {TINY}
from tinygpt2.cli import phases as module
real = module.train
def press(state):
    if state.event == "step" and state.step == 2:
        signal.raise_signal(signal.SIGINT)
if "STOP" in os.environ:
    module.train = lambda *args, callbacks, **options: real(*args, callbacks=[*callbacks, press], **options)
from tinygpt2.cli.hints import to_paste
from tinygpt2.cli.main import main
sys.exit(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell and a script that is executable")
def test_the_lines_to_paste_work_when_pasted(tmp_path: Path) -> None:
    """Spaces, Chinese, dashes, quotes, dollars and exclamation marks in every place where they can be."""
    program = tmp_path / "my bin" / "gpt 2"
    program.parent.mkdir()
    program.write_text(PROGRAM, encoding="utf-8")
    program.chmod(0o755)
    beginning = '-It\'s "a" $HOME, wow! 天地 `x`'
    (tmp_path / "a text.txt").write_text(f"\n{beginning}\n" * 40, encoding="utf-8")

    def paste(line: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(line, shell=True, cwd=tmp_path, env=os.environ | variables,  # noqa: S602 - as pasted
                              capture_output=True, encoding="utf-8", check=False)  # fmt: skip

    fast = ["--tokenizer", "char", "--context-length", "8", "--max-steps", "3", "--eval-batches", "1"]
    words = ["my bin/gpt 2", "train", "a text.txt", "--out=-x 運行", f"--sample-prompt={beginning}", *fast]
    stopped = paste(to_paste(words), STOP="1")
    assert stopped.returncode == 130, stopped.stderr
    resumed = paste(stopped.stderr.rpartition("to resume:  ")[2])
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed after step 2" in resumed.stderr
    tried = paste(resumed.stdout.rpartition("try:  ")[2])
    assert tried.returncode == 0, tried.stderr
    assert tried.stdout.startswith(beginning)


def test_a_resumed_run_is_the_run_that_was_not_stopped(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With nothing but --out and --resume, from another directory, and with more epochs."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    options = ["--epochs", "2", "--schedule", "constant", "--batch-size", "4", "--accumulate", "2", "--quiet", *FAST]
    assert train(text_file, whole, *options) == 0
    monkeypatch.chdir(text_file.parent)
    with interrupted_at(7):
        assert train(Path(text_file.name), stopped, *options) == 130
    assert f"to resume:  tinygpt2 train --out {stopped} --resume" in capsys.readouterr().err
    assert newest_checkpoint(stopped).name == "checkpoint-7"
    assert not (stopped / "model.safetensors").exists()

    for command in (["info", stopped], ["plot", stopped], ["generate", "--model", stopped, "The", "--device", "cpu"]):
        assert main(list(map(str, command))) == 0
        assert "did not finish; using checkpoint-7" in capsys.readouterr().err

    monkeypatch.chdir(tmp_path)
    assert resume(stopped) == 0
    assert "resumed after step 7" in capsys.readouterr().err
    assert losses_of(stopped) == losses_of(whole)
    for file in ("model.safetensors", "best/model.safetensors", "tinygpt2_tokenizer.json"):
        assert (stopped / file).read_bytes() == (whole / file).read_bytes()
    assert main(["generate", "--model", str(stopped / "best"), "The", "--device", "cpu"]) == 0

    assert resume(stopped) == 0
    assert "finished after 26 steps; more epochs extend it" in capsys.readouterr().err
    assert resume(stopped, "--epochs", 3, "--quiet") == 0
    assert TrainingHistory.load(stopped / "history.json").steps[-1] == 39


def test_the_model_handed_over_is_the_best_one(
    text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The validation text says the opposite of the training text, so that the loss rises once that is learned."""
    other, directory = tmp_path / "other.txt", tmp_path / "run"
    other.write_text(text_file.read_text(encoding="utf-8")[::-1], encoding="utf-8")
    adamw = ["--optimizer", "adamw", "--no-spelling"]
    options = ["--val", other, "--learning-rate", "3e-2", *adamw, "--eval-every", 10, "--eval-batches", 2, *FAST]
    assert train(text_file, directory, "--max-steps", 60, "--sample-prompt", "", *options) == 0
    output = capsys.readouterr().out
    history = TrainingHistory.load(directory / "history.json")
    assert history.best is not None
    assert 0 < history.best < 6
    step, handed_over = history.steps[history.best], (directory / "model.safetensors").read_bytes()
    assert handed_over == (directory / "best" / "model.safetensors").read_bytes()
    assert handed_over != (directory / "checkpoint-60" / "model.safetensors").read_bytes()
    assert f"saved in {directory}: the model of step {step}, history.json, losses.png\n" in output
    assert f"to try the last model, of step 60:  tinygpt2 generate --model {directory / 'checkpoint-60'} " in output
    assert main(["info", str(directory)]) == 0
    output = capsys.readouterr().out
    assert f"of step {step}, which has the lowest validation loss\n" in output
    assert f"of step 60, in {directory / 'checkpoint-60'}\n" in output

    assert resume(directory, "--max-steps", 62, "--quiet") == 0  # longer, and no better
    assert (directory / "model.safetensors").read_bytes() == handed_over
    shutil.rmtree(directory / "best")
    assert resume(directory, "--max-steps", 64, "--quiet") == 0
    assert (directory / "model.safetensors").read_bytes() == handed_over
    assert TrainingHistory.load(directory / "history.json").steps[-1] == 64


def test_the_best_model_of_a_run_that_did_not_finish_is_used_if_the_loss_has_risen(
    text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, directory = tmp_path / "other.txt", tmp_path / "run"
    other.write_text(text_file.read_text(encoding="utf-8")[::-1], encoding="utf-8")
    options = ["--val", other, "--learning-rate", "3e-2", "--eval-every", 10, "--eval-batches", 2, "--quiet", *FAST]
    with interrupted_at(61):
        assert train(text_file, directory, "--max-steps", 70, *options) == 130
    history = read_history(directory / "best")
    assert history is not None
    step = history.steps[-1]
    capsys.readouterr()
    for command in (["info", directory], ["generate", "--model", directory, "The", "--device", "cpu"]):
        assert main(list(map(str, command))) == 0
        captured = capsys.readouterr()
        assert captured.err == (
            f"the run in {directory} did not finish; using best, the model of step {step}, as the validation loss has "
            f"risen since; the last model is in {directory / 'checkpoint-61'}\n"
        )
    assert main(["plot", str(directory)]) == 0  # of the whole run
    assert "did not finish; using checkpoint-61\n" in capsys.readouterr().err
    shutil.rmtree(directory / "best")
    assert main(["info", str(directory)]) == 0
    assert "did not finish; using checkpoint-61\n" in capsys.readouterr().err


def test_a_run_that_stops_learning_ends_and_says_so(
    text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, directory = tmp_path / "other.txt", tmp_path / "run"
    other.write_text(text_file.read_text(encoding="utf-8")[::-1], encoding="utf-8")
    adamw = ["--optimizer", "adamw", "--no-spelling"]
    options = ["--val", other, "--learning-rate", "3e-2", *adamw, "--eval-every", 10, "--eval-batches", 2, *FAST]
    assert train(text_file, directory, "--max-steps", 90, "--early-stopping", 2, "--sample-prompt", "", *options) == 0
    history = TrainingHistory.load(directory / "history.json")
    assert history.best == len(history.steps) - 3
    last, best = history.steps[-1], history.steps[history.best]
    reason = "the validation loss has not fallen for 2 evaluations"
    assert f"stopped after step {last} of 90: {reason}; the best was at step {best}\n" in capsys.readouterr().err
    assert main(["info", str(directory)]) == 0
    assert re.search(rf"^stopped early +{reason}$", capsys.readouterr().out, re.MULTILINE)


def test_a_run_that_cannot_be_resumed_is_one_line(
    run_directory: Path, text_file: Path, tmp_path: Path, fails: Fails
) -> None:
    fails(["train", "--resume"], "--resume needs --out DIR")
    fails(["train", "--out", tmp_path, "--resume"], "has no options.json: no run")
    fails(["train", "--out", tmp_path / "none", "--resume"], f"there is no directory {tmp_path / 'none'}")
    assert not (tmp_path / "none").exists()
    before = (run_directory / "options.json").read_bytes()
    fails(
        ["train", "--out", run_directory, "--resume", "--batch-size", "2", "--epochs", "9", "--quiet"],
        "the training data's --batch-size was 4 and is 2",
        "or resume with the changes: --allow-changes\n",
    )
    assert (run_directory / "options.json").read_bytes() == before
    shutil.copytree(run_directory, tmp_path / "run")
    grown = tmp_path / "grown.txt"
    grown.write_text(text_file.read_text(encoding="utf-8") * 2, encoding="utf-8")
    more = ["train", grown, "--out", tmp_path / "run", "--resume", "--quiet", "--max-steps", "60"]
    fails(more, "the training data's", "tokens was 1620 and is 3240")
    assert main([*map(str, more), "--allow-changes"]) == 0


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"epochs": "2"}, ["epochs must be an integer, got '2'"]),
        ({"epochs": True}, ["epochs must be an integer, got True"]),
        ({"batch_size": None}, ["batch_size must be an integer, got None"]),
        ({"epochs": 0}, ["epochs must be at least 1, got 0"]),
        ({"compile": [1]}, ["compile must be True or False, got [1]"]),
        ({"compile": 1}, ["compile must be True or False, got 1"]),
        ({"dropout": "0.1"}, ["dropout must be a number, got '0.1'"]),
        ({"dropout": 1.5}, ["dropout must be", "less than 1, got 1.5"]),
        ({"weight_decay": float("nan")}, ["weight_decay must be a finite number", "got nan"]),
        ({"seed": 2**70}, ["seed must be at most"]),
        ({"preset": "gpt2-huge"}, ["preset must be one of 'gpt2-nano'", "got 'gpt2-huge'"]),
        ({"preset": {"n_layer": 1}}, ["preset must be one of"]),
        ({"schedule": None}, ["schedule must be one of 'constant', 'cosine', 'linear', got None"]),
        ({"files": "fox.txt"}, ["files must be a list, got 'fox.txt'"]),
        ({"files": [1]}, ["each of files must be a string, got 1"]),
        ({"sample_prompt": ["The"]}, ["sample_prompt must be a string, got ['The']"]),
        ({"keep": 1}, ["keep must be at least 2, got 1"]),
        ({"run": "rm"}, ["there is no option 'run'; expected files, field"]),
        ({"traceback": True}, ["there is no option 'traceback'"]),
        ({"sample_prompt": [[0] * 10_000]}, ["sample_prompt must be a string, got [[0, 0,", "..."]),
    ],
)
def test_options_that_were_damaged_are_one_line_which_names_them(
    run_directory: Path, tmp_path: Path, fails: Fails, change: dict[str, object], parts: list[str]
) -> None:
    """Whatever was in the file used to become the parser's defaults, the function to call among them."""
    content = saved(run_directory, "options.json") | change
    (tmp_path / "options.json").write_text(json.dumps(content), encoding="utf-8")
    fails(["train", "--out", tmp_path, "--resume"], str(tmp_path / "options.json"), *parts)
    assert [path.name for path in tmp_path.iterdir()] == ["options.json"]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"seed": 1, "seed": 2}', "the key 'seed' occurs twice"),
        ("[" * 100_000, "options.json"),
        ('{"sample_prompt": "' + "a" * (1 << 20) + '"}', "larger than 1,048,576 bytes"),
    ],
)
def test_options_that_are_no_json_are_one_line(tmp_path: Path, fails: Fails, content: str, part: str) -> None:
    (tmp_path / "options.json").write_text(content, encoding="utf-8")
    fails(["train", "--out", tmp_path, "--resume"], "options.json", part)


def test_options_that_an_older_version_did_not_save_have_their_defaults(run_directory: Path, tmp_path: Path) -> None:
    shutil.copytree(run_directory, tmp_path / "run")
    content = saved(run_directory, "options.json")
    for name in ("weight_decay", "keep", "early_stopping"):
        del content[name]
    (tmp_path / "run" / "options.json").write_text(json.dumps(content), encoding="utf-8")
    assert resume(tmp_path / "run", "--quiet", "--epochs", 3) == 0
    assert saved(tmp_path / "run", "options.json") == saved(run_directory, "options.json") | {"epochs": 3}


# --- fine-tuning ---


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows the characters of the text and has a longer context than it."""
    directory = tmp_path_factory.mktemp("base")
    tokenizer = CharTokenizer.from_text("The quick brown fox jumps over the lazy dog. ")
    shape = GPT2Config(vocab_size=tokenizer.n_vocab, context_length=4096, n_layer=1, n_head=2, n_embd=16, dropout=0.25)
    GPT2Model(shape).save_pretrained(directory)
    save_tokenizer(tokenizer, directory)
    return directory


def tune(text: Path, base: Path, out: Path, *options: object) -> int:
    return train(text, out, "--from-pretrained", base, "--device", "cpu", "--quiet", *options)


def test_fine_tuning_starts_from_a_saved_model(run_directory: Path, text_file: Path, tmp_path: Path) -> None:
    assert tune(text_file, run_directory, tmp_path / "tuned", "--max-steps", 2) == 0
    before = TrainingHistory.load(run_directory / "history.json")
    after = TrainingHistory.load(tmp_path / "tuned" / "history.json")
    assert after.train_losses[0] < before.train_losses[0] - 0.5
    assert load_tokenizer(tmp_path / "tuned") == load_tokenizer(run_directory)
    report = saved(tmp_path / "tuned", "report.json")
    assert report["pretrained"] == pytest.approx(saved(run_directory, "report.json")["bits_per_byte"], rel=0.05)


def test_only_the_weights_that_are_named_are_tuned(
    run_directory: Path, text_file: Path, tmp_path: Path, fails: Fails, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "--from-pretrained",
        run_directory,
        "--train-only",
        "ln_f|wpe",
        "--device",
        "cpu",
        "--learning-rate",
        "0.1",
    ]
    assert train(text_file, tmp_path / "tuned", *words, "--max-steps", 2) == 0
    assert "of which" in capsys.readouterr().err
    before, after = (GPT2Model.from_pretrained(path).state_dict() for path in (run_directory, tmp_path / "tuned"))
    newest = GPT2Model.from_pretrained(newest_checkpoint(tmp_path / "tuned")).state_dict()
    assert {name for name in before if not torch.equal(before[name], newest[name])} == {
        "wpe.weight", "ln_f.weight", "ln_f.bias"
    }  # fmt: skip
    assert after.keys() == before.keys()
    assert resume(tmp_path / "tuned", "--max-steps", 3, "--quiet") == 0
    arguments = ["train", text_file, "--out", tmp_path / "other", "--train-only"]
    fails([*arguments, "block", "--from-pretrained", run_directory], "match of --train-only 'block'", "wte.weight")
    fails([*arguments, "ln_f"], "--train-only leaves the other weights as they are", "--from-pretrained")
    assert main([*map(str, arguments), "(", "--from-pretrained", str(run_directory)]) == 2
    assert "must be a regular expression, got '('" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_text_shorter_than_the_context_is_tuned_on_shorter_windows(
    base: Path, text_file: Path, tmp_path: Path, fails: Fails
) -> None:
    """The error advised a context length that the other part was too short for, and the option was ignored."""
    arguments = ["train", text_file, "--from-pretrained", base, "--out", tmp_path / "run"]
    whole = ["--context-length", 4096]
    fails([*arguments, *whole], "the part to validate on", "pass --context-length 179 or less")
    fails([*arguments, *whole, "--train-ratio", "0.1"], "the part to train on", "pass --context-length 179 or less")
    assert tune(text_file, base, tmp_path / "longest", "--context-length", 179, "--max-steps", 1) == 0
    fails([*arguments, "--context-length", 5000], "--context-length is 5000", "has a context length of 4096")
    assert tune(text_file, base, tmp_path / "run", "--context-length", 32, "--max-steps", 1) == 0
    assert GPT2Model.from_pretrained(tmp_path / "run").config.context_length == 4096
    assert saved(tmp_path / "run", "options.json")["context_length"] == 32
    assert resume(tmp_path / "run", "--max-steps", 2, "--quiet") == 0


@pytest.mark.parametrize(("options", "dropout"), [([], 0.25), (["--dropout", "0.4"], 0.4), (["--dropout", "0"], 0.0)])
def test_the_dropout_of_a_tuned_model_is_its_own_or_the_one_asked_for(
    base: Path, text_file: Path, tmp_path: Path, options: list[str], dropout: float
) -> None:
    """It used to be recorded among the options, and ignored."""
    assert tune(text_file, base, tmp_path / "run", "--context-length", 32, "--max-steps", 1, *options) == 0
    assert saved(tmp_path / "run", "config.json")["resid_pdrop"] == dropout
    assert saved(tmp_path / "run", "options.json")["dropout"] == dropout
    assert resume(tmp_path / "run", "--max-steps", 2, "--quiet") == 0
    assert saved(tmp_path / "run", "config.json")["resid_pdrop"] == dropout


@pytest.mark.parametrize("option", [["--preset", "gpt2-micro"], ["--tokenizer", "gpt2"]])
def test_an_option_of_new_models_is_refused_with_one_that_is_not_new(
    base: Path, text_file: Path, tmp_path: Path, fails: Fails, option: list[str]
) -> None:
    arguments = ["train", text_file, "--from-pretrained", base, "--out", tmp_path / "run", *option]
    fails(arguments, f"{option[0]} is for a new model", "omit one of the two")
    assert not (tmp_path / "run").exists()


def test_a_fine_tuned_run_resumes_without_the_model_that_it_began_with(
    run_directory: Path, text_file: Path, tmp_path: Path
) -> None:
    base, whole, stopped = tmp_path / "base", tmp_path / "whole", tmp_path / "stopped"
    shutil.copytree(run_directory, base)
    assert tune(text_file, base, whole, "--epochs", 1) == 0
    with interrupted_at(3):
        assert tune(text_file, base, stopped, "--epochs", 1) == 130
    shutil.rmtree(base)
    assert resume(stopped, "--quiet") == 0
    assert (stopped / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


# --- what is chosen ---


def test_a_plain_run_is_that_of_its_recipe_in_python(
    text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(text_file, tmp_path / "run", "--minutes", 0.05, "--device", "cpu") == 0
    said = capsys.readouterr().err
    assert "time        3 seconds expected, of 3 seconds as given" in said
    options = saved(tmp_path / "run", "options.json")
    assert options["minutes"] == 0.05
    text, _ = split_text(text_file.read_text(encoding="utf-8"), 0.9)
    held_out = text_file.read_text(encoding="utf-8")[len(text) :]
    tokenizer = load_tokenizer(tmp_path / "run")
    statistics = replace(TextStatistics.of(text, tokenizer), held_out=TextStatistics.of(held_out, tokenizer).tokens)
    shape = {name: options[name] for name in ("n_layer", "n_head", "n_embd")}
    given = {"vocab_size": tokenizer.n_vocab, "max_steps": options["max_steps"], "epochs": options["epochs"], **shape}
    given |= {name: options[name] for name in ("batch_size", "context_length")}
    recipe = recommend(statistics, minutes=0.05, speed=1e8, given=given)
    torch.manual_seed(0)
    model = GPT2Model(recipe.model)
    loading: dict[str, Any] = {"batch_size": recipe.batch_size, "context_length": recipe.model.context_length}
    loading |= {"tokenizer": tokenizer}
    real_train(
        model,
        make_dataloader(text, shuffle=True, noise=recipe.noise, **loading),
        make_dataloader(held_out, **loading),
        recipe.training,
        tokenizer=tokenizer,
        device="cpu",
        keep_best=True,
        progress=False,
    )
    theirs = GPT2Model.from_pretrained(tmp_path / "run")
    assert all(torch.equal(ours, theirs.state_dict()[name]) for name, ours in model.state_dict().items())


def test_a_resumed_run_measures_and_chooses_nothing(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--minutes", 0.1, "--device", "cpu", "--quiet"]
    with interrupted_at(2):
        assert train(text_file, tmp_path / "stopped", *options) == 130
    assert train(text_file, tmp_path / "whole", *options) == 0
    before = saved(tmp_path / "stopped", "options.json")
    monkeypatch.setattr(module, "RecipeMaker", None)
    assert resume(tmp_path / "stopped", "--quiet") == 0
    assert saved(tmp_path / "stopped", "options.json") == before
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("stopped", "whole")]
    assert weights[0] == weights[1]


def test_minutes_are_no_option_of_a_run_to_resume(run_directory: Path, fails: Fails) -> None:
    fails(["train", "--out", run_directory, "--resume", "--minutes", "3"], "--minutes is for a new run", "--epochs")


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "two"])
def test_minutes_are_a_number_above_zero(minutes: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", f"--minutes={minutes}"]) == 2
    assert "argument --minutes: expected a number greater than 0" in capsys.readouterr().err
