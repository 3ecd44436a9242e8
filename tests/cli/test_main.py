"""The command line as a whole: usage, exit codes, failures in one line, streams that break."""

import importlib.metadata
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tinygpt2 import __version__
from tinygpt2.cli.commands import parsed
from tinygpt2.cli.main import _describe, main

if sys.platform != "win32":
    import resource

Begin = Callable[..., "subprocess.Popen[str]"]
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals, pipes and limits are others there")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["train", "--epochs", "0"],
        ["train", "--dropout", "1"],
        ["train", "--learning-rate", "fast"],
        ["train", "--seed", str(2**64)],
        ["train", "--schedule", "square"],
        ["train", "--keep", "1"],
        ["generate"],
        ["generate", "--model", "d", "x", "y"],
        ["generate", "--model", "d", "x", "--top-p", "1.5"],
        ["generate", "--model", "d", "x", "--temperature", "-1"],
        ["generate", "--model", "d", "x", "--temperature", "nan"],
        ["evaluate", "--model", "d"],
        ["tokenize", "x"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "usage: tinygpt2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("--epochs", "0", "expected an integer of at least 1, got '0'"),
        ("--dropout", "1", "expected a number of at least 0 and less than 1, got '1'"),
        ("--learning-rate", "0", "expected a number greater than 0, got '0'"),
        ("--train-ratio", "1", "expected a number greater than 0 and less than 1, got '1'"),
        ("--keep", "1", "expected an integer of at least 2, got '1'"),
    ],
)
def test_wrong_usage_says_what_was_expected(
    flag: str, value: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", flag, value]) == 2
    assert f"argument {flag}: {expected}" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["train"], ["generate"], ["evaluate"], ["tokenize"], ["plot"], ["info"]])
def test_help_exits_with_0(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    assert "usage: tinygpt2" in capsys.readouterr().out


def test_the_version_is_that_of_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tinygpt2 {version('tinygpt2')}\n" == f"tinygpt2 {__version__}\n"
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version("there is no such package"))
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "tinygpt2 (not installed)\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(2, "No such file or directory", "x"), "error: x: No such file or directory"),
        (BlockingIOError("another process is training in x"), "error: another process is training in x"),
        (ValueError("one\n  two"), "error: one two"),
        (KeyError("x"), "error: KeyError: 'x' (--traceback shows where)"),
    ],
)
def test_an_error_is_described_in_one_line(error: Exception, line: str) -> None:
    assert _describe(error) == line


def test_the_notes_of_an_error_are_in_the_line() -> None:
    error = ValueError("no")
    error.add_note("a checkpoint\nwas saved")
    assert _describe(error) == "error: no; a checkpoint was saved"


def test_traceback_shows_where(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        main(["--traceback", "info", str(tmp_path)])


def test_traceback_may_come_after_the_command(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        main(["info", "--traceback", str(tmp_path)])
    with pytest.raises(FileNotFoundError):
        main(["info", str(tmp_path), "--traceback"])


# --- what is mistyped ---


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "tinygpt2: error: there is no command 'trian'; did you mean train?"),
        (["TRAIN"], "tinygpt2: error: there is no command 'TRAIN'; did you mean train?"),
        (["--traceback", "gen", "x"], "there is no command 'gen'; did you mean generate?"),
        (
            ["fly"],
            "there is no command 'fly'; expected one of train, generate, evaluate, quantize, tokenize, plot, page",
        ),
        (["--verison"], "tinygpt2: error: there is no option --verison; did you mean --version?"),
        (["train", "--epoks", "3"], "tinygpt2 train: error: there is no option --epoks; did you mean --epochs?"),
        (["train", "--context_length=9"], "there is no option --context_length; did you mean --context-length?"),
        (["train", "--from", "x"], "there is no option --from; did you mean --from-pretrained?"),
        (["train", "-epochs", "3"], "there is no option -epochs; did you mean --epochs?"),
        (["train", "--lr", "3"], "there is no option --lr; 'tinygpt2 train --help' lists the options"),
        (["generate", "--top", "3"], "there is no option --top; did you mean --top-k or --top-p?"),
        (["generate", "--modle", "x", "y"], "there is no option --modle; did you mean --model?"),  # not: is required
        (["train", "--preset", "gpt2-nan"], "got 'gpt2-nan'; did you mean gpt2-nano?"),
        (["train", "--schedule", "square"], "expected one of constant, cosine, linear, got 'square'\n"),
    ],
)
def test_what_is_mistyped_is_suggested(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_an_abbreviation_is_refused_though_it_has_one_meaning_today(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--epoch", "3"]) == 2
    assert "there is no option --epoch; did you mean --epochs?" in capsys.readouterr().err


def test_words_that_only_look_like_options_are_none(run_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["generate", "--model", str(run_directory), "--max-new-tokens", "0"]
    for words, prompt in ((["-1"], "-1"), (["- x"], "- x"), (["--", "--epoks"], "--epoks")):
        assert main([*arguments, *words]) == 0
        assert capsys.readouterr().out == f"{prompt}\n"


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["evaluate", "R", "--stride", "3", "F"], {"first": "R", "files": ["F"], "stride": 3}),
        (["evaluate", "R", "F", "--stride=3", "G"], {"first": "R", "files": ["F", "G"], "stride": 3}),
        (["evaluate", "--stride", "3", "R", "-", "--", "-F"], {"first": "R", "files": ["-", "-F"], "stride": 3}),
        (["train", "A", "--val", "B", "C", "--quiet"], {"files": ["A"], "val": ["B", "C"], "quiet": True}),
        (["train", "A", "--quiet", "--val", "B", "C"], {"files": ["A"], "val": ["B", "C"], "quiet": True}),
        (["train", "--val", "B", "--", "A"], {"files": ["A"], "val": ["B"]}),
        (["train", "--spelling", "A", "--compile", "B"], {"files": ["A", "B"], "spelling": True, "compile": True}),
        (["generate", "R", "--seed", "1", "The", "--traceback"], {"model": "R", "prompt": "The", "traceback": True}),
        (["generate", "R", "--presence-penalty", "-1", "-1"], {"model": "R", "prompt": "-1", "presence_penalty": -1}),
    ],
)
def test_options_may_stand_between_arguments(words: list[str], values: dict[str, Any]) -> None:
    """The second argument was unknown if an option stood before it."""
    options = vars(parsed(words, ["tinygpt2"]))
    assert {name: options[name] for name in values} == values


# --- quick to start ---


def test_nothing_large_is_imported_for_help_or_a_mistake() -> None:
    """PyTorch alone takes seconds."""
    code = """
import contextlib, io, sys
from tinygpt2.cli.main import main
commands = ["train", "generate", "evaluate", "tokenize", "plot", "info"]
lines = [["--help"], ["--version"], [], ["trian"], ["train", "--epoks"], ["train", "--epochs", "x"]]
for words in [*lines, *([command, "--help"] for command in commands)]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main(words)
    large = {"torch", "numpy", "tiktoken", "safetensors", "matplotlib", "tqdm"} & set(sys.modules)
    assert not large, (words, large)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@POSIX
@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        ("SIGINT", 130, "tinygpt2: interrupted\n"),
        ("SIGTERM", 143, "tinygpt2: terminated\n"),
        ("SIGHUP", 129, "tinygpt2: hung up\n"),
    ],
)
@pytest.mark.parametrize("swallow", ["Exception", "BaseException"])
def test_a_signal_while_pytorch_is_imported_is_one_line(
    tmp_path: Path, number: str, code: int, line: str, swallow: str
) -> None:
    """Even if the import swallows what the signal raises, or turns it into an error of its own."""
    (tmp_path / "torch.py").write_text(
        f"import os, signal\nos.kill(os.getpid(), signal.{number})\n"
        f"try:\n    import there_is_none\nexcept {swallow}:\n    pass\n",
        encoding="utf-8",
    )
    paths = os.pathsep.join([str(tmp_path), *(path for path in sys.path if path)])
    command = [sys.executable, "-m", "tinygpt2", "info", "x"]
    result = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (code, line)


# --- streams and signals of the process, and of a program around this one ---


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["--version"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_help_on_a_full_disk_is_one_line(words: list[str], unbuffered: str) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "tinygpt2", *words]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environment, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "tinygpt2: error: No space left on device\n")


@POSIX
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams_are_no_failure(closed: str) -> None:
    command = ["sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-m", "tinygpt2", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_no_streams_at_all_are_no_failure(run_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a program without a console on Windows."""
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["info", str(run_directory)]) == 0
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["info", str(run_directory)]) == 0
    assert main(["info", str(run_directory / "none")]) == 1
    assert main(["trian"]) == 2
    assert main(["--help"]) == 0
    assert main(["--version"]) == 0


def test_a_closed_stream_of_a_program_is_one_line(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = io.StringIO()
    closed.close()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", closed)
        assert main(["info", str(run_directory)]) == 1
    assert capsys.readouterr().err == "tinygpt2: error: I/O operation on closed file\n"


def test_a_program_around_it_keeps_its_streams_and_signal_handlers(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", stream)
    seen: list[object] = []

    def note(directory: str, read: Callable[[Path], object], _: object) -> object:
        seen.append(signal.getsignal(signal.SIGTERM))
        return read(Path(directory))

    monkeypatch.setattr("tinygpt2.cli.common.read_model", note)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    assert main(["info", str(run_directory)]) == 0
    assert seen[-1] != before[0]  # nobody else took the signal
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert (stream.encoding, stream.errors) == ("latin-1", "strict")

    def mine(*_: object) -> None:
        """A handler of the program's own."""

    signal.signal(signal.SIGTERM, mine)
    try:
        assert main(["info", str(run_directory)]) == 0
        assert seen[-1] is mine is signal.getsignal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before[0])


def test_it_runs_in_a_thread(run_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes: list[int] = []
    lines = (["info", str(run_directory)], ["info", "nowhere"], ["trian"], ["--help"])
    threads = [threading.Thread(target=lambda words=words: codes.append(main(words))) for words in lines]
    for thread in threads:
        thread.start()
        thread.join()
    assert codes == [0, 1, 2, 0]
    assert "parameters" in capsys.readouterr().out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line_also_when_python_exits(run_directory: Path, begin: Begin) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        process = begin("info", run_directory, stdout=full, env=os.environ | {"PYTHONUNBUFFERED": ""})
        _, errors = process.communicate()
    assert (process.returncode, errors) == (1, "tinygpt2: error: No space left on device\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_without_a_buffer_is_one_line(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(sys, "stdout", os.fdopen(os.dup(full.fileno()), "w", encoding="utf-8"))
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
        monkeypatch.setattr(sys, "argv", ["tinygpt2", "info", str(run_directory)])  # the stream is the process's own
        assert main() == 1
        sys.stdout.close()
    assert capsys.readouterr().err == "tinygpt2: error: No space left on device\n"


@POSIX
def test_a_disk_that_fills_while_saving_is_one_line_and_keeps_what_was_there(
    run_directory: Path, tmp_path: Path, fails: Callable[..., None]
) -> None:
    """A limit on the size of files stands in for the disk."""
    (tmp_path / "losses.png").write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))
    try:
        fails(["plot", run_directory, "--out", tmp_path / "losses.png"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["losses.png"]
    assert (tmp_path / "losses.png").read_bytes() == b"old"


@POSIX
def test_a_broken_pipe_is_one_line(run_directory: Path, begin: Begin) -> None:
    arguments: list[Any] = ["generate", "--model", run_directory, "The", "--max-new-tokens", "100000", "--greedy"]
    process = begin(*arguments)
    assert process.stdout is not None
    assert process.stdout.read(1) == "T"
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == "tinygpt2: nothing reads the output any more (broken pipe)\n"
    assert process.wait() == 1


@POSIX
def test_ctrl_c_while_generating_is_one_line(run_directory: Path, begin: Begin) -> None:
    arguments = ["generate", "--model", run_directory, "The", "--max-new-tokens", "1000000", "--greedy"]
    process = begin(*arguments)
    assert process.stdout is not None
    process.stdout.read(3)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "tinygpt2: interrupted\n")
