"""What the commands take as input: files, pipes and standard input, each opened once."""

import gzip
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tinygpt2 import TokenFile, TrainingHistory, gpt2_tokenizer, tokenize_to_file
from tinygpt2.cli import phases
from tinygpt2.cli.corpus import run_name, to_read_again
from tinygpt2.cli.inputs import is_stream, read_files
from tinygpt2.cli.main import main

Fails = Callable[..., None]
Provide = Callable[[bytes], None]

FAST = ("--tokenizer", "char", "--context-length", "16", "--device", "cpu")
STEPS = ("--max-steps", "2", "--eval-batches", "1", "--quiet")

posix = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no named pipes")


@pytest.fixture
def pipe() -> Iterator[Callable[[bytes], str]]:
    """Returns what makes a pipe with some content and the name that a shell gives it for <(...)."""
    if not Path("/dev/fd").exists():
        pytest.skip("has no names for pipes")
    ends: list[int] = []
    threads: list[threading.Thread] = []

    def make(content: bytes) -> str:
        reading, writing = os.pipe()
        ends.append(reading)

        def write() -> None:
            with os.fdopen(writing, "wb") as file:
                file.write(content)

        threads.append(threading.Thread(target=write, daemon=True))
        threads[-1].start()
        return f"/dev/fd/{reading}"

    yield make
    for end in ends:
        os.close(end)
    for thread in threads:
        thread.join(timeout=60)


def files_in(run: Path) -> list[str]:
    files: list[str] = json.loads((run / "options.json").read_text(encoding="utf-8"))["files"]
    return files


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


# --- train ---


def test_a_run_from_a_pipe_is_the_run_from_the_file(
    text_file: Path, tmp_path: Path, pipe: Callable[[bytes], str], standard_input: Provide
) -> None:
    """A pipe lost its first 4,096 bytes, and the run resumed, if at all, from a pipe of the same number."""
    content = text_file.read_bytes()
    assert len(content) < 4096
    long = tmp_path / "long.txt"
    long.write_bytes(content * 9)
    standard_input(long.read_bytes())
    for name, file in (("file", str(long)), ("pipe", pipe(long.read_bytes())), ("stdin", "-")):
        assert main(["train", file, "--out", str(tmp_path / name), *STEPS, *FAST]) == 0
    assert weights(tmp_path / "file") == weights(tmp_path / "pipe") == weights(tmp_path / "stdin")
    assert files_in(tmp_path / "file") == [str(long.resolve())]
    assert files_in(tmp_path / "pipe") == files_in(tmp_path / "stdin") == ["-"]


def test_a_run_from_a_pipe_is_resumed_with_its_text_given_anew(
    text_file: Path, tmp_path: Path, standard_input: Provide, fails: Fails
) -> None:
    run, content = tmp_path / "run", text_file.read_bytes()
    standard_input(content)
    assert main(["train", "-", "--out", str(run), *STEPS, *FAST]) == 0
    before = (run / "options.json").read_bytes()
    resume = ["train", "--out", run, "--resume", "--quiet"]
    fails(
        [*resume, "--max-steps", 3],
        "pass the same text, as a file or with - for standard input: "
        f"tinygpt2 train --out {run} --resume --quiet --max-steps 3 FILE",
    )
    standard_input(content + b"more")
    fails([*resume, "-", "--max-steps", 3], "the training data's", "--allow-changes")
    assert (run / "options.json").read_bytes() == before

    standard_input(content)
    assert main([*map(str, resume), "-", "--max-steps", "3"]) == 0
    assert files_in(run) == ["-"]
    assert main([*map(str, resume), str(text_file), "--max-steps", "4"]) == 0
    assert files_in(run) == [str(text_file.resolve())]
    assert main([*map(str, resume), "--max-steps", "5"]) == 0
    assert TrainingHistory.load(run / "history.json").steps[-1] == 5


def test_a_run_from_a_pipe_says_at_once_and_when_it_stops_that_it_needs_its_text_again(
    text_file: Path, tmp_path: Path, standard_input: Provide, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def stop(self: phases.Phases) -> None:
        self.noted.on_start(None)  # type: ignore[arg-type]
        self.plan.run.checkpoint(0).mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(phases.Phases, "train", stop)
    note = "its text came through a pipe, which cannot be read again: to resume, pass the same text, as a file or -"
    for file in ("-", str(text_file)):
        standard_input(text_file.read_bytes())
        run = tmp_path / Path(file).stem
        assert main(["train", file, "--out", str(run), *FAST]) == 128 + signal.SIGINT
        lines = capsys.readouterr().err.splitlines()
        stopped = f"stopped by SIGINT; to resume:  tinygpt2 train --out {run} --resume --device cpu"
        if file == "-":
            assert lines[-2:] == [f"note: {note}", f"{stopped} FILE  ({note})"]
        else:
            assert lines[-1] == stopped
            assert f"note: {note}" not in lines


def test_several_files_one_of_them_a_pipe_are_documents_in_order(
    text_file: Path, pipe: Callable[[bytes], str], standard_input: Provide
) -> None:
    standard_input(b"three\r\n")
    files = [str(text_file), pipe(b"\xef\xbb\xbftwo"), "-"]
    assert to_read_again(files) == (str(text_file.resolve()), "-", "-")
    assert read_files(files, "text", None).part == [text_file.read_text(encoding="utf-8"), "two", "three\n"]


@posix
def test_a_link_to_a_file_and_a_name_of_one_are_the_file(text_file: Path, tmp_path: Path) -> None:
    (tmp_path / "link.txt").symlink_to(text_file)
    assert to_read_again([str(tmp_path / "link.txt")]) == (str(text_file.resolve()),)
    assert run_name([str(tmp_path / "link.txt")]) == "link"
    if Path("/dev/fd").exists():
        with text_file.open("rb") as file:
            name = f"/dev/fd/{file.fileno()}"
            assert is_stream(name) == (os.path.realpath(name) != str(text_file.resolve()))  # it is none on Linux
            assert read_files([name], "text", None).part == text_file.read_text(encoding="utf-8")


@posix
def test_what_is_no_file_cannot_be_read_again(tmp_path: Path, pipe: Callable[[bytes], str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in (str(tmp_path / "pipe"), pipe(b""), "-", os.devnull):
        assert is_stream(name)
    for name in (str(tmp_path), str(tmp_path / "none"), str(tmp_path / "*.txt")):
        assert not is_stream(name)
    assert run_name(["-"]) == run_name([str(tmp_path / "pipe")]) == "piped-text"
    assert run_name([]) == "sample-text"
    assert run_name(["poems.jsonl.gz", "b.txt"]) == "poems"
    assert run_name([f"{tmp_path}/*.txt"]) == run_name([f"{tmp_path}/"]) == tmp_path.name


# --- the other commands ---


def test_tokenizing_a_pipe_counts_the_bytes_that_it_brings(
    text_file: Path, tmp_path: Path, pipe: Callable[[bytes], str], standard_input: Provide,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """It had a size of 0, and 0.00 bytes of text per token."""
    content, out = text_file.read_bytes(), tmp_path / "out"
    (tmp_path / "copy.txt").write_bytes(content)
    lines = []
    for file in (str(text_file), pipe(content), "-"):
        standard_input(content)
        assert main(["tokenize", file, str(tmp_path / "copy.txt"), "--out", str(out)]) == 0
        lines.append(capsys.readouterr().out)
        ids = gpt2_tokenizer().encode_ordinary(content.decode())
        assert TokenFile(out).tokens.tolist() == [*ids, 50256] * 2
    assert set(lines) == {f"{out}: 804 tokens of 2 documents, 4.48 bytes of text per token\n"}


def test_a_file_of_tokens_is_evaluated_like_its_text(
    run_directory: Path, text_file: Path, tmp_path: Path, fails: Fails, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = tmp_path / "fox.tokens"
    assert main(["tokenize", str(text_file), "--model", str(run_directory), "--out", str(tokens)]) == 0
    capsys.readouterr()
    evaluate = ["evaluate", "--model", str(run_directory), "--device", "cpu"]
    losses = []
    for file in (text_file, tokens):
        assert main([*evaluate, str(file)]) == 0
        losses.append(capsys.readouterr().out.splitlines()[0])
    assert losses[0] == losses[1]
    assert "bits per byte" in losses[0]

    tokenize_to_file([text_file], tokens)
    fails([*evaluate, tokens], f"{tokens} has tokens of a vocabulary of 50,257, but the tokenizer has 286")


def test_a_file_of_tokens_does_not_come_through_a_pipe(
    run_directory: Path, tmp_path: Path, pipe: Callable[[bytes], str], standard_input: Provide, fails: Fails
) -> None:
    content = tokenize_to_file(["some text"], tmp_path / "tokens").path.read_bytes()
    for command in (["train", "--out", tmp_path / "run"], ["evaluate", "--model", run_directory]):
        standard_input(content)
        fails([*command, "-"], "standard input is a file of tokens, where a text is expected; pass its path")
        fails([*command, pipe(content)], "is a file of tokens, where a text is expected; pass its path")
    fails(["tokenize", pipe(content), "--out", tmp_path / "x"], "is a file of tokens, where a text is expected")


# --- what is refused ---


def test_what_is_no_text_is_one_line_that_helps_in_every_command(
    run_directory: Path, tmp_path: Path, standard_input: Provide, fails: Fails
) -> None:
    for name, content in {
        "empty.txt": b"", "blank.txt": b" \n\t\n", "mark.txt": b"\xef\xbb\xbf", "a book": gzip.compress(b"text"),
        "a.pdf": b"%PDF-1.7", "wide.txt": "a text".encode("utf-16"),
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
    commands = (
        ["train", "--out", tmp_path / "out"],
        ["tokenize", "--out", tmp_path / "out"],
        ["evaluate", "--model", run_directory],
    )
    for command in commands:
        fails([*command, tmp_path / "empty.txt"], "empty.txt: the text is empty\n")
        fails([*command, tmp_path / "blank.txt"], "blank.txt: the text is only whitespace (4 bytes)\n")
        fails([*command, tmp_path / "mark.txt"], "mark.txt: the text is only whitespace (3 bytes)")
        gz = tmp_path / "a book"
        named = "pass a file whose name ends in .gz, or decompress it"
        fails([*command, gz], f"{gz} is compressed with gzip; {named}: gzip -dc '{gz}' | tinygpt2 train -")
        fails([*command, tmp_path / "a.pdf"], "a.pdf is a PDF; extract its text: pdftotext")
        fails([*command, tmp_path / "wide.txt"], "wide.txt is not UTF-8: byte 0xff at offset 0; it is UTF-16: ")
        fails(
            [*command, tmp_path / "blnk.txt"],
            f"blnk.txt: No such file or directory; did you mean {tmp_path / 'blank.txt'}?",
        )
        fails([*command, tmp_path / "none"], "none: No such file or directory")
        for content, part in (
            (b"", "the text is empty"),
            (gzip.compress(b"text"), f"is compressed with gzip; {named}: gzip -dc FILE |"),
        ):
            standard_input(content)
            fails([*command, "-"], f"standard input{':' if not content else ''} {part}")
        fails([*command, "-", "-"], "standard input (-) can be read once")
    assert not (tmp_path / "out").exists()


def test_a_second_file_that_is_missing_is_told_before_the_first_is_read(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    monkeypatch.setattr("tinygpt2.text.reading.TextReader.__iter__", lambda _: pytest.fail("was read"))
    fails(["train", text_file, tmp_path / "none"], "none: No such file")
    fails(["tokenize", text_file, tmp_path / "none", "--out", tmp_path / "out"], "none: No such file")


def test_an_empty_file_among_others_is_nothing(text_file: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    assert main(["tokenize", str(text_file), str(tmp_path / "empty.txt"), "--out", str(tmp_path / "out")]) == 0
    read = read_files([str(text_file), str(tmp_path / "empty.txt")], "text", None)
    assert read.part == [text_file.read_text(encoding="utf-8")]
    assert read.notes == ["note: 1 empty document left out"]


def test_several_files_without_a_text_are_one_line(tmp_path: Path, fails: Fails) -> None:
    for name, content in (("a.txt", b" \n"), ("b.txt", b"")):
        (tmp_path / name).write_bytes(content)
    files = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for command in (["train", "--out", tmp_path / "out"], ["tokenize", "--out", tmp_path / "out"]):
        fails([*command, *files], f"{files[0]}, {files[1]}: there are no documents; left out as empty: 2\n")


def test_no_standard_input_is_one_line(monkeypatch: pytest.MonkeyPatch, fails: Fails) -> None:
    """As in a program without a console on Windows."""
    monkeypatch.setattr(sys, "stdin", None)
    fails(["train", "-"], "there is no standard input; pass a file")
