"""Command lines for a person to paste."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

_PROMPT = 40  # characters of a prompt at most, so that a line stays one


def program() -> list[str]:
    """Returns the words that call this program again, as it was called."""
    called = sys.argv[0]
    if Path(called).name == "__main__.py":
        return [_shortest(sys.executable) or sys.executable, "-m", "tinygpt2"]
    return [_shortest(called) or "tinygpt2"]


def launched_by(processes: int) -> list[str]:
    """Returns the words that call this program again in so many processes of this machine."""
    here = os.environ.get("LOCAL_WORLD_SIZE", str(processes))
    return ["torchrun", "--nproc-per-node", here, "-m", "tinygpt2"]


def _shortest(path: str) -> str | None:
    """Returns the name of a program if a shell finds it by that, or else its path; ``None`` if it is no program."""
    import shutil

    this, found = shutil.which(path), shutil.which(Path(path).name)
    if this is None:
        return None
    # By the directories: a virtual environment's python is a link to that of the system, but not the same program.
    return Path(path).name if found is not None and Path(found).parent.samefile(Path(this).parent) else path


def to_paste(words: Sequence[str]) -> str:
    """Returns the line that gives a shell these words."""
    if os.name == "nt":
        return " ".join(map(_quoted_on_windows, words))
    import shlex

    return shlex.join(words)


def _quoted_on_windows(word: str) -> str:
    import subprocess

    quoted = subprocess.list2cmdline([word])
    plain = all(character.isalnum() or character in "-_./\\:=+@" for character in word)
    if plain or quoted.startswith('"'):
        return quoted
    return f'"{quoted}{quoted[len(quoted.rstrip(chr(92))) :]}"'  # a backslash before the quote would escape it


def option(flag: str, value: object) -> list[str]:
    """Returns the words that give an option a value, which may begin with a dash."""
    return [f"{flag}={value}"] if str(value).startswith("-") else [flag, str(value)]


def positional(value: object) -> list[str]:
    """Returns the words that give the last argument of a command, which may begin with a dash."""
    return ["--", str(value)] if str(value).startswith("-") else [str(value)]


def short_prompt(text: str) -> str:
    """Returns the first words of a text that fit into a line, made of its characters alone; empty if it has none.

    A space in place of a line break would not do: a tokenizer of characters may not know it.
    """
    printable = "".join(character if character.isprintable() else "\n" for character in text)
    pieces = (piece.strip() for piece in printable.split("\n"))
    piece = next((piece for piece in pieces if piece not in ("", "-")), "")  # - is standard input
    if len(piece) <= _PROMPT:
        return piece
    return piece[: _PROMPT + 1].rpartition(" ")[0] or piece[:_PROMPT]
