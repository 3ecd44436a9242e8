"""The command line as a whole: usage, exit codes, failures in one line, streams that break."""

import os
import signal
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tinygpt2 import __version__
from tinygpt2.cli import main as module
from tinygpt2.cli.main import _describe, main

if TYPE_CHECKING:
    import subprocess

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
        ["train", "--schedule", "linear"],
        ["train", "--keep", "1"],
        ["generate", "x"],
        ["generate", "--model", "d", "x", "--top-p", "1.5"],
        ["generate", "--model", "d", "x", "--temperature", "-1"],
        ["generate", "--model", "d", "x", "--temperature", "nan"],
        ["evaluate", "--model", "d"],
        ["tokenize", "x"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as info:
        main(arguments)
    assert info.value.code == 2
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
    with pytest.raises(SystemExit):
        main(["train", flag, value])
    assert f"argument {flag}: {expected}" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["train"], ["generate"], ["evaluate"], ["tokenize"], ["plot"], ["info"]])
def test_help_exits_with_0(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as info:
        main([*command, "--help"])
    assert info.value.code == 0
    assert "usage: tinygpt2" in capsys.readouterr().out


def test_the_version_is_that_of_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"tinygpt2 {version('tinygpt2')}\n" == f"tinygpt2 {__version__}\n"
    monkeypatch.setattr(module, "version", lambda _: version("there is no such package"))
    with pytest.raises(SystemExit):
        main(["--version"])
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


def test_traceback_shows_where(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        main(["--traceback", "info", str(tmp_path)])


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
        assert main(["info", str(run_directory)]) == 1
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
    arguments: list[Any] = ["generate", "--model", run_directory, "The", "--max-new-tokens", "100000"]
    process = begin(*arguments)
    assert process.stdout is not None
    assert process.stdout.read(1) == "T"
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == "tinygpt2: nothing reads the output any more (broken pipe)\n"
    assert process.wait() == 1


@POSIX
def test_ctrl_c_while_generating_is_one_line(run_directory: Path, begin: Begin) -> None:
    arguments = ["generate", "--model", run_directory, "The", "--max-new-tokens", "1000000", "--seed", "1"]
    process = begin(*arguments)
    assert process.stdout is not None
    process.stdout.read(3)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "tinygpt2: interrupted\n")
