"""``tinygpt2 plot``."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tinygpt2.cli.main import main


@pytest.mark.parametrize(("suffix", "begins"), [("png", b"\x89PNG\r\n\x1a\n"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_it_writes_a_picture(run_directory: Path, tmp_path: Path, suffix: str, begins: bytes) -> None:
    path = tmp_path / f"losses.{suffix}"
    assert main(["plot", str(run_directory), "--out", str(path)]) == 0
    assert path.read_bytes().startswith(begins)


def test_a_directory_without_a_history_is_one_line(tmp_path: Path, fails: Callable[..., None]) -> None:
    fails(["plot", tmp_path], "has no history.json")


@pytest.mark.skipif(os.name != "posix", reason="/dev/stdout")
@pytest.mark.parametrize("redirected", ["pipe", "file"])
def test_a_picture_can_go_to_standard_output(run_directory: Path, tmp_path: Path, redirected: str) -> None:
    """And nothing else does; the file that the shell opened is written, and not another one put in its place."""
    command = [sys.executable, "-m", "tinygpt2", "plot", str(run_directory), "--out", "/dev/stdout"]
    with (tmp_path / "picture").open("w+b") as file:
        result = subprocess.run(command, stdout=subprocess.PIPE if redirected == "pipe" else file, check=True)
        file.seek(0)
        picture = result.stdout if redirected == "pipe" else file.read()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert picture.endswith(b"IEND\xaeB`\x82")


@pytest.mark.skipif(os.name != "posix", reason="/dev/null")
def test_a_device_is_written_to_and_a_directory_refused(
    run_directory: Path, tmp_path: Path, fails: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plot", str(run_directory), "--out", "/dev/null"]) == 0
    assert capsys.readouterr().out == ""
    assert Path("/dev/null").is_char_device()
    fails(["plot", run_directory, "--out", tmp_path], f"{tmp_path}: is a directory; expected the name of a file")
    fails(["plot", run_directory, "--out", tmp_path / "no" / "a.png"], f"cannot create a file in {tmp_path / 'no'}: No")
    assert not list(tmp_path.iterdir())
