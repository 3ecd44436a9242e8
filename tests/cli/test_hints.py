"""The lines to paste: they name the program as it was called, and survive a shell."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinygpt2.cli import hints

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
ODD = [
    "",
    "a b",
    "運行",
    "it's",
    'a "quote"',
    "$HOME",
    "`date`",
    "wow!",
    "a\\b",
    "~",
    "*",
    "a;b",
    "a&b",
    "-x",
    "%PATH%",
]


@POSIX
def test_a_shell_gives_back_the_words() -> None:
    line = hints.to_paste([sys.executable, "-c", "import sys; print(ascii(sys.argv[1:]))", *ODD])
    result = subprocess.run(line, shell=True, capture_output=True, text=True, check=True)  # noqa: S602 - what is tested
    assert result.stdout == f"{ODD!a}\n"


def test_windows_gets_its_own_quotes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "name", "nt")
    line = hints.to_paste(["tinygpt2", "--out", r"C:\a b\c", r"C:\c", "it's", "a&b", "a&\\", 'a "b"', "運行", ""])
    monkeypatch.undo()
    assert line == r'''tinygpt2 --out "C:\a b\c" C:\c "it's" "a&b" "a&\\" "a \"b\"" 運行 ""'''


def test_a_value_may_begin_with_a_dash() -> None:
    assert hints.option("--out", Path("-x")) == ["--out=-x"]
    assert hints.option("--out", Path("x-y")) == ["--out", "x-y"]
    assert hints.positional("-x") == ["--", "-x"]
    assert hints.positional("x") == ["x"]


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("The quick brown fox", "The quick brown fox"),
        ("one\n two", "one"),
        ("\n\t\u3000 deep", "deep"),
        ("-\nnot standard input", "not standard input"),
        ("-dash", "-dash"),
        ("a\x1b[31mred", "a"),
        ("word " * 20, " ".join(["word"] * 8)),
        ("人" * 70, "人" * 40),
        (" \n\n", ""),
        ("-", ""),
    ],
)
def test_a_prompt_is_one_line_of_the_texts_own_characters(text: str, prompt: str) -> None:
    assert hints.short_prompt(text) == prompt
    assert set(prompt) <= set(text)


@POSIX
def test_the_program_is_named_as_it_was_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "gpt"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")

    def named(called: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", [called, "train"])
        return hints.program()

    assert named("bin/gpt") == ["bin/gpt"]
    assert named(str(script)) == [str(script)]
    monkeypatch.setenv("PATH", str(script.parent))
    assert named(str(script)) == ["gpt"]
    assert named("-c") == ["tinygpt2"]
    assert named("a program that was removed") == ["tinygpt2"]
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "gpt").symlink_to(script)  # as the python of a virtual environment is
    assert named("venv/gpt") == ["venv/gpt"]
    package = str(tmp_path / "tinygpt2" / "__main__.py")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert named(package) == [str(tmp_path / "python"), "-m", "tinygpt2"]
    monkeypatch.setattr(sys, "executable", str(script))
    assert named(package) == ["gpt", "-m", "tinygpt2"]
