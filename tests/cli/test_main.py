"""The command line, as somebody who types it meets it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tinygpt2 import (
    CharTokenizer,
    GPT2Config,
    GPT2Model,
    TokenFile,
    TrainingHistory,
    TrainState,
    evaluate,
    gpt2_tokenizer,
    load_tokenizer,
    newest_checkpoint,
    sample_text,
    save_tokenizer,
    text_to_tensor,
)
from tinygpt2 import training as tinygpt2_training
from tinygpt2.cli.main import main
from tinygpt2.cli.train import _prompt
from tinygpt2.data.windows import Batch

TEXT = "The quick brown fox jumps over the lazy dog. " * 40
CHINESE = "天地玄黃，宇宙洪荒。日月盈昃，辰宿列張。" * 40
PNG = b"\x89PNG\r\n\x1a\n"

FAST = ["--tokenizer", "char", "--preset", "gpt2-nano", "--context-length", "16", "--device", "cpu"]


def tinygpt2(*arguments: object, **options: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tinygpt2", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False, **options)  # type: ignore[call-overload, no-any-return]


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "fox.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run_directory(text_file: Path) -> Path:
    """A model trained for two epochs by the command line."""
    directory = text_file.parent / "run"
    assert main(["train", str(text_file), "--out", str(directory), "--epochs", "2", "--quiet", *FAST]) == 0
    return directory


def fails_with_one_line(capsys: pytest.CaptureFixture[str], arguments: Sequence[object], *parts: str) -> None:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert code == 1
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("tinygpt2: error: ")
    for part in parts:
        assert part in captured.err


def test_training_leaves_a_run_directory(text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "runs" / "fox"
    assert (
        main(["train", str(text_file), "--out", str(directory), "--epochs", "3", "--sample-prompt", "The", *FAST]) == 0
    )
    captured = capsys.readouterr()
    last = newest_checkpoint(directory)
    assert {path.name for path in directory.iterdir() if not path.name.startswith("checkpoint-")} == {
        "best", "config.json", "history.json", "losses.png", "model.safetensors", "options.json",
        "tinygpt2_tokenizer.json",
    }  # fmt: skip
    assert (last / "model.safetensors").read_bytes() == (directory / "model.safetensors").read_bytes()
    assert (directory / "losses.png").read_bytes().startswith(PNG)
    history = TrainingHistory.load(directory / "history.json")
    assert history.train_losses[-1] < history.train_losses[0] - 0.5
    assert len(history.steps) == 21
    assert captured.err.count("sample: The") == 3
    assert "train loss" in captured.err
    assert f"tinygpt2 generate --model {directory} The" in captured.out
    assert GPT2Model.from_pretrained(directory).config.vocab_size == CharTokenizer.from_text(TEXT).n_vocab


def test_the_same_seed_gives_the_same_run(text_file: Path, tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        arguments = [
            "train",
            str(text_file),
            "--out",
            str(tmp_path / name),
            "--max-steps",
            "3",
            "--seed",
            seed,
            "--quiet",
        ]
        assert main([*arguments, *FAST]) == 0
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
    assert f"{len(sample_text()):,} characters" in capsys.readouterr().err
    assert sorted(path.name for path in Path("runs").iterdir()) == ["sample-text", "sample-text-2"]


def test_fine_tuning_starts_from_a_saved_model(run_directory: Path, text_file: Path, tmp_path: Path) -> None:
    arguments = [
        "train",
        text_file,
        "--out",
        tmp_path / "tuned",
        "--max-steps",
        "2",
        "--from-pretrained",
        run_directory,
    ]
    assert main([*map(str, arguments), "--quiet", "--device", "cpu"]) == 0
    before = TrainingHistory.load(run_directory / "history.json")
    after = TrainingHistory.load(tmp_path / "tuned" / "history.json")
    assert after.train_losses[0] < before.train_losses[0] - 0.5
    assert load_tokenizer(tmp_path / "tuned") == load_tokenizer(run_directory)


def test_generate_streams_the_prompt_and_its_continuation(
    run_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["generate", "--model", str(run_directory), "The quick", "--max-new-tokens", "20", "--device", "cpu"]
    outputs = []
    drawn = [["--temperature", "5", "--top-k", "0", "--seed", seed] for seed in ("1", "1", "2")]
    for extra in (*drawn, ["--greedy"], ["--temperature", "0"]):
        assert main([*arguments, *extra]) == 0
        outputs.append(capsys.readouterr().out)
    assert all(output.startswith("The quick") for output in outputs)
    assert len(outputs[-1]) == len("The quick") + 20 + 1
    assert outputs[0] == outputs[1] != outputs[2]
    assert outputs[3] == outputs[4]


def test_generate_takes_all_sampler_flags_and_a_prompt_from_standard_input(run_directory: Path) -> None:
    flags = ["--top-k", "5", "--top-p", "0.9", "--min-p", "0.05", "--temperature", "1.4", "--max-new-tokens", "5"]
    result = tinygpt2("generate", "--model", run_directory, "-", *flags, input="The fox")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("The fox")


def test_chinese_goes_through_a_pipe_in_any_locale(tmp_path: Path) -> None:
    source = tmp_path / "千字文.txt"
    source.write_bytes(CHINESE.encode("utf-8"))
    directory = tmp_path / "运行"
    environment = os.environ | {
        "LC_ALL": "C",
        "PYTHONIOENCODING": "ascii",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }
    trained = tinygpt2("train", source, "--out", directory, "--max-steps", "2", *FAST, env=environment)
    assert trained.returncode == 0, trained.stderr
    prompt = os.fsencode("日月") if sys.platform != "win32" else "日月"
    command = [sys.executable, "-m", "tinygpt2", "generate", "--model", str(directory), prompt, "--max-new-tokens", "3"]
    generated = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert generated.returncode == 0, generated.stderr
    assert generated.stdout.decode("utf-8").startswith("日月")


def test_evaluate_predicts_every_token_but_the_first(
    run_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "some.txt"
    path.write_text(TEXT[:50], encoding="utf-8")
    assert main(["evaluate", "--model", str(run_directory), str(path), "--device", "cpu"]) == 0
    output = capsys.readouterr().out
    model = GPT2Model.from_pretrained(run_directory)
    tokens = text_to_tensor(TEXT[:50], load_tokenizer(run_directory))
    windows = [(tokens[:, i : min(i + 16, 49)], tokens[:, i + 1 : i + 17]) for i in range(0, 49, 16)]
    expected = evaluate(model, windows)
    assert expected.tokens == 49
    assert f"loss {expected.loss:.4f} nats per token, perplexity {expected.perplexity:.2f}, 49 tokens" in output


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_plot_writes_a_picture(run_directory: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"losses.{suffix}"
    assert main(["plot", str(run_directory), "--out", str(path)]) == 0
    begins = {"png": PNG, "svg": b"<?xml", "pdf": b"%PDF"}[suffix]
    assert path.read_bytes().startswith(begins)


def test_info_tells_shape_and_losses(run_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(run_directory)]) == 0
    output = capsys.readouterr().out
    assert f"{GPT2Model.from_pretrained(run_directory).num_parameters():,}" in output
    history = TrainingHistory.load(run_directory / "history.json")
    assert f"{history.train_losses[-1]:.4f}" in output
    assert "characters" in output


def test_info_of_a_model_that_was_not_trained_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    GPT2Model(GPT2Config(vocab_size=9, context_length=8, n_layer=1, n_head=1, n_embd=4)).save_pretrained(tmp_path)
    save_tokenizer(CharTokenizer("abcdefgh"), tmp_path)
    assert main(["info", str(tmp_path)]) == 0
    assert "1 of width 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["train", "--epochs", "0"],
        ["train", "--dropout", "1"],
        ["train", "--learning-rate", "fast"],
        ["generate", "x"],
        ["generate", "--model", "d", "x", "--top-p", "1.5"],
        ["generate", "--model", "d", "x", "--temperature", "-1"],
        ["evaluate", "--model", "d"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as info:
        main(arguments)
    assert info.value.code == 2
    assert "usage: tinygpt2" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["train"], ["generate"], ["evaluate"], ["plot"], ["info"]])
def test_help_exits_with_0(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as info:
        main([*command, "--help"])
    assert info.value.code == 0
    assert "usage: tinygpt2" in capsys.readouterr().out


def test_files_that_cannot_be_read_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"caf\xe9")
    empty = tmp_path / "empty.txt"
    empty.touch()
    short = tmp_path / "short.txt"
    short.write_text("a few words only", encoding="utf-8")
    out = ["--out", tmp_path / "out"]
    fails_with_one_line(capsys, ["train", tmp_path / "none.txt", *out], "none.txt", "No such file")
    fails_with_one_line(capsys, ["train", tmp_path, *out], str(tmp_path), "Is a directory")
    fails_with_one_line(capsys, ["train", latin, *out], "latin.txt", "0xe9 at offset 3")
    fails_with_one_line(capsys, ["train", empty, *out], "empty")
    fails_with_one_line(capsys, ["train", short, *out], "training part", "context_length is 128")
    fails_with_one_line(capsys, ["train", short, *out, "--device", "abacus"], "abacus", "available: ")
    assert not (tmp_path / "out").exists()


def test_directories_that_hold_no_run_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails_with_one_line(capsys, ["generate", "--model", tmp_path / "none", "x"], "does not exist")
    fails_with_one_line(capsys, ["generate", "--model", tmp_path, "x"], "has no config.json")
    fails_with_one_line(capsys, ["plot", tmp_path], "has no history.json")
    fails_with_one_line(capsys, ["info", tmp_path / "none"], "does not exist")


def test_a_directory_that_holds_something_is_not_overwritten(
    run_directory: Path, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run_directory / "model.safetensors").read_bytes()
    fails_with_one_line(capsys, ["train", text_file, "--out", run_directory], "not empty")
    assert (run_directory / "model.safetensors").read_bytes() == before


def test_an_unknown_character_is_one_line(run_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails_with_one_line(capsys, ["generate", "--model", run_directory, "你"], "'你'", "position 0")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission_is_one_line(text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o500)
    fails_with_one_line(capsys, ["train", text_file, "--out", tmp_path / "out", *FAST], "Permission denied")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_one_line(run_directory: Path, unbuffered: str) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "tinygpt2", "info", str(run_directory)]
        environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
        result = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, encoding="utf-8", check=False, env=environment
        )
    assert result.returncode == 1
    assert result.stderr == "tinygpt2: error: No space left on device\n"


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE")
def test_a_disk_that_fills_while_saving_is_one_line_and_keeps_what_was_there(
    run_directory: Path, tmp_path: Path
) -> None:
    """A limit on the size of files stands in for the disk."""
    command = f"ulimit -f 4; {sys.executable} -m tinygpt2 plot {run_directory} --out {tmp_path / 'losses.png'}"
    (tmp_path / "losses.png").write_bytes(b"old")
    result = subprocess.run(["/bin/sh", "-c", command], capture_output=True, encoding="utf-8", check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("tinygpt2: error: ")
    assert result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["losses.png"]
    assert (tmp_path / "losses.png").read_bytes() == b"old"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_a_broken_pipe_is_one_line(run_directory: Path) -> None:
    command = f"{sys.executable} -m tinygpt2 generate --model {run_directory} The --max-new-tokens 400 | head -c 1"
    result = subprocess.run(["/bin/sh", "-c", command], capture_output=True, encoding="utf-8", check=False)
    assert result.stdout == "T"
    assert result.stderr == "tinygpt2: nobody reads the output any more (broken pipe)\n"


def test_a_diverging_run_is_one_line_and_keeps_what_was_learned(
    text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "out"
    arguments = [
        "train",
        text_file,
        "--out",
        directory,
        "--learning-rate",
        "1e30",
        "--warmup-steps",
        "0",
        "--quiet",
        *FAST,
    ]
    fails_with_one_line(capsys, arguments, "learning rate is too high")
    assert all(p.isfinite().all() for p in GPT2Model.from_pretrained(newest_checkpoint(directory)).parameters())
    assert main(["info", str(directory)]) == 0
    assert "did not finish" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_after_the_step_and_saves(
    text_file: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    directory = tmp_path / "out"
    command = [sys.executable, "-m", "tinygpt2", "train", str(text_file), "--out", str(directory)]
    process = subprocess.Popen(
        [*command, "--max-steps", "1000000", "--eval-every", "5", *FAST], stderr=subprocess.PIPE, encoding="utf-8"
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "step       5/" in line:
            break
    process.send_signal(number)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == code
    step = int(newest_checkpoint(directory).name.removeprefix("checkpoint-"))
    *_, stopped, last = rest.splitlines()
    assert stopped == f"stopped after step {step} of 1000000, saved in {directory} to resume from"
    assert last == f"stopped by {number.name}; to go on:  tinygpt2 train --out {directory} --resume"
    assert torch.isfinite(GPT2Model.from_pretrained(directory / f"checkpoint-{step}").wte.weight).all()

    resumed = tinygpt2("train", "--out", directory, "--resume", "--max-steps", step + 3)
    assert resumed.returncode == 0, resumed.stderr
    assert f"resumed after step {step}" in resumed.stderr
    assert TrainingHistory.load(directory / "history.json").steps[-1] == step + 3


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
def test_ctrl_c_while_generating_is_one_line(run_directory: Path) -> None:
    command = [sys.executable, "-m", "tinygpt2", "generate", "--model", str(run_directory), "The"]
    process = subprocess.Popen(
        [*command, "--max-new-tokens", "1000000", "--top-k", "3", "--seed", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdout is not None
    process.stdout.read(3)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "tinygpt2: interrupted\n")


def test_traceback_shows_where(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        main(["--traceback", "info", str(tmp_path)])


def test_a_plot_without_matplotlib_does_not_fail_the_run(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    directory = tmp_path / "out"
    assert main(["train", str(text_file), "--out", str(directory), "--max-steps", "1", *FAST]) == 0
    assert "no plot: plots need matplotlib: pip install 'tinygpt2[plot]'" in capsys.readouterr().err
    assert not (directory / "losses.png").exists()
    assert json.loads((directory / "history.json").read_text(encoding="utf-8"))["steps"] == [0, 1]


def test_a_resumed_run_is_the_run_that_was_not_stopped(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With nothing but --out and --resume, from another directory, and with more epochs."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    options = ["--epochs", "2", "--schedule", "constant", "--accumulate", "2", "--quiet", *FAST]
    assert main(["train", str(text_file), "--out", str(whole), *options]) == 0
    monkeypatch.chdir(text_file.parent)
    part = ["train", text_file.name, "--out", str(stopped), *options]
    with monkeypatch.context() as patch:
        patch.setattr("tinygpt2.training.train._take_step", interrupted_at(7))
        assert main(part) == 130
    assert f"to go on:  tinygpt2 train --out {stopped} --resume" in capsys.readouterr().err
    assert newest_checkpoint(stopped).name == "checkpoint-7"
    assert not (stopped / "model.safetensors").exists()

    for command in (["info", stopped], ["plot", stopped], ["generate", "--model", stopped, "The", "--device", "cpu"]):
        assert main(list(map(str, command))) == 0
        assert "did not finish; this is checkpoint-7" in capsys.readouterr().err

    monkeypatch.chdir(tmp_path)
    assert main(["train", "--out", str(stopped), "--resume", "--quiet"]) == 0
    for file in ("model.safetensors", "history.json", "best/model.safetensors", "tinygpt2_tokenizer.json"):
        assert (stopped / file).read_bytes() == (whole / file).read_bytes()
    assert main(["generate", "--model", str(stopped / "best"), "The", "--device", "cpu"]) == 0

    assert main(["train", "--out", str(stopped), "--resume"]) == 0
    assert "is finished after 26 steps; more epochs make it longer" in capsys.readouterr().err
    assert main(["train", "--out", str(stopped), "--resume", "--epochs", "3", "--quiet"]) == 0
    assert TrainingHistory.load(stopped / "history.json").steps[-1] == 39


def interrupted_at(step: int) -> Callable[..., None]:
    """Returns a step of training in which Ctrl-C is pressed."""
    real = tinygpt2_training._take_step

    def take_step(state: TrainState, batches: Sequence[Batch], loss: Any) -> None:  # noqa: ANN401
        real(state, batches, loss)
        if state.step == step:
            signal.raise_signal(signal.SIGINT)

    return take_step


def test_a_run_that_cannot_be_resumed_is_one_line(
    run_directory: Path, text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fails_with_one_line(capsys, ["train", "--resume"], "--resume needs --out DIR")
    fails_with_one_line(capsys, ["train", "--out", tmp_path, "--resume"], "has no options.json: no run")
    before = (run_directory / "options.json").read_bytes()
    fails_with_one_line(
        capsys,
        ["train", "--out", run_directory, "--resume", "--batch-size", "2", "--epochs", "9", "--quiet"],
        "the training data's batch_size was 4 and is 2",
        "--allow-changes",
    )
    assert (run_directory / "options.json").read_bytes() == before
    shutil.copytree(run_directory, tmp_path / "run")
    grown = tmp_path / "grown.txt"
    grown.write_text(text_file.read_text(encoding="utf-8") * 2, encoding="utf-8")
    more = ["train", grown, "--out", tmp_path / "run", "--resume", "--quiet", "--max-steps", "60"]
    fails_with_one_line(capsys, more, "the training data's", "tokens was 1620 and is 3240")
    assert main([*map(str, more), "--allow-changes"]) == 0


def test_a_fine_tuned_run_resumes_without_the_model_that_it_began_with(
    run_directory: Path, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, whole, stopped = tmp_path / "base", tmp_path / "whole", tmp_path / "stopped"
    shutil.copytree(run_directory, base)
    options = [str(text_file), "--from-pretrained", str(base), "--epochs", "1", "--device", "cpu", "--quiet"]
    assert main(["train", "--out", str(whole), *options]) == 0
    with monkeypatch.context() as patch:
        patch.setattr("tinygpt2.training.train._take_step", interrupted_at(3))
        assert main(["train", "--out", str(stopped), *options]) == 130
    shutil.rmtree(base)
    assert main(["train", "--out", str(stopped), "--resume", "--quiet"]) == 0
    assert (stopped / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_training_on_a_file_of_tokens_is_training_on_its_text(
    text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = tmp_path / "fox.tokens"
    assert main(["tokenize", str(text_file), str(text_file), "--out", str(tokens)]) == 0
    text = f"{TEXT}\n{TEXT}"
    assert capsys.readouterr().out == f"{tokens}: 803 tokens, 4.48 bytes of text a token\n"
    assert TokenFile(tokens).tokens.tolist() == gpt2_tokenizer().encode_ordinary(text)
    options = ["--context-length", "16", "--epochs", "1", "--device", "cpu", "--quiet"]
    assert main(["train", str(tokens), "--out", str(tmp_path / "run"), *options]) == 0
    assert main(["train", "--out", str(tmp_path / "run"), "--resume", "--max-steps", "15", "--quiet"]) == 0
    history = TrainingHistory.load(tmp_path / "run" / "history.json")
    assert history.steps[-1] == 15
    assert history.tokens_seen[0] == 0
    assert main(["generate", "--model", str(tmp_path / "run"), "The", "--device", "cpu"]) == 0

    fails_with_one_line(capsys, ["train", tokens, text_file, "--out", tmp_path / "two"], "cannot be joined")


def test_tokens_of_another_tokenizer_are_one_line(
    run_directory: Path, text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    assert main(["tokenize", str(text_file), "--out", str(theirs)]) == 0
    assert main(["tokenize", str(text_file), "--out", str(ours), "--model", str(run_directory)]) == 0
    capsys.readouterr()
    tune = [
        "--from-pretrained",
        run_directory,
        "--epochs",
        "1",
        "--device",
        "cpu",
        "--quiet",
        "--out",
        tmp_path / "run",
    ]
    fails_with_one_line(capsys, ["train", theirs, *tune], "vocabulary of 50,257 and the model has 30")
    assert main(["train", str(ours), *map(str, tune)]) == 0
    fails_with_one_line(capsys, ["tokenize", tmp_path / "none", "--out", tmp_path / "x"], "No such file")
    nowhere = ["tokenize", text_file, "--out", tmp_path / "x", "--model", tmp_path / "none"]
    fails_with_one_line(capsys, nowhere, "none: there is no such directory of a model")


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
    assert _prompt(text) == prompt
