"""``tinygpt2 tokenize``, and training on what it makes."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tinygpt2 import TokenFile, TrainingHistory, gpt2_tokenizer, sample_text
from tinygpt2.cli.main import main

TINY_STEPS = ("--batch-size", "2", "--eval-batches", "1", "--device", "cpu", "--quiet")


def test_training_on_a_file_of_tokens_is_training_on_its_text(
    text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fails: Callable[..., None]
) -> None:
    tokens, run = tmp_path / "fox.tokens", tmp_path / "run"
    assert main(["tokenize", str(text_file), str(text_file), "--out", str(tokens)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tokens}: 401 tokens, 4.49 bytes of text per token\n"
    assert captured.err == "note: 1 file named twice and read once\n"
    assert TokenFile(tokens).tokens.tolist() == gpt2_tokenizer().encode_ordinary(text_file.read_text(encoding="utf-8"))
    options = ["--context-length", "16", "--max-steps", "2", *TINY_STEPS]
    assert main(["train", str(tokens), "--out", str(run), *options]) == 0
    assert main(["train", "--out", str(run), "--resume", "--max-steps", "3", "--quiet"]) == 0
    history = TrainingHistory.load(run / "history.json")
    assert history.steps[-1] == 3
    assert history.tokens_seen[0] == 0
    assert main(["generate", "--model", str(run), "The", "--max-new-tokens", "2", "--device", "cpu"]) == 0

    fails(["train", tokens, text_file, "--out", tmp_path / "two"], "is a file of tokens, but")
    fails(["train", tokens, "--tokenizer", "char", "--out", tmp_path / "two"], "--tokenizer char is for text")
    assert not (tmp_path / "two").exists()


def test_tokens_of_another_tokenizer_are_one_line(
    run_directory: Path, text_file: Path, tmp_path: Path, fails: Callable[..., None]
) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    assert main(["tokenize", str(text_file), "--out", str(theirs)]) == 0
    assert main(["tokenize", str(text_file), "--out", str(ours), "--model", str(run_directory)]) == 0
    tune = ["--from-pretrained", run_directory, "--max-steps", "1", *TINY_STEPS, "--out", tmp_path / "run"]
    fails(["train", theirs, *tune], "vocabulary of 50,257, but the tokenizer has 286")
    assert main(["train", str(ours), *map(str, tune)]) == 0
    fails(["tokenize", tmp_path / "none", "--out", tmp_path / "x"], "No such file")
    nowhere = ["tokenize", text_file, "--out", tmp_path / "x", "--model", tmp_path / "none"]
    fails(nowhere, "none: there is no such model directory")


@pytest.mark.skipif(os.name != "posix", reason="devices and pipes")
def test_a_file_of_tokens_cannot_be_a_device_or_a_pipe(
    text_file: Path, tmp_path: Path, fails: Callable[..., None]
) -> None:
    """Its header is written last. As root, ``--out /dev/null`` used to put a file in the place of the device."""
    os.mkfifo(tmp_path / "pipe")
    for out in ("/dev/null", tmp_path / "pipe"):
        fails(["tokenize", text_file, "--out", out], f"{out}: is not a regular file; expected the name of a new or a")
    assert Path("/dev/null").is_char_device()


def test_machines_divide_the_files_and_the_directory_joins_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, corpus = tmp_path / "text.txt", tmp_path / "corpus"
    text.write_text(sample_text()[:18_000], encoding="utf-8")
    words = ["tokenize", str(text), "--out", str(corpus), "--shard-bytes", "4000"]
    assert main([*words, "--shard", "2/2"]) == 0
    assert f"{corpus}: 2 files, " in capsys.readouterr().out
    train = ["train", str(corpus), "--device", "cpu", "--out", str(tmp_path / "run"), "--max-steps", "1"]
    assert main(train) == 1
    assert "00000.tokens is missing: there are files up to 00003; run the same tokenize" in capsys.readouterr().err
    assert main([*words, "--shard", "1/2"]) == 0
    assert f"{corpus}: 5 files, " in capsys.readouterr().out
    for wrong in ("2", "0/2", "3/2", "a/b"):
        assert main([*words, "--shard", wrong]) == 1
        assert f"--shard must be K/N, the K-th of N, for instance 3/16, got '{wrong}'" in capsys.readouterr().err
    assert main([*words[:4], "--shard", "1/2"]) == 1
    assert "--shard needs --shard-bytes N" in capsys.readouterr().err
