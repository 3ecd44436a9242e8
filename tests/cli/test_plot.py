"""``tinygpt2 plot``."""

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
