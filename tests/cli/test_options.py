"""Saved options, which may have been edited: each is what the parser would accept, or is refused by file and name."""

import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tinygpt2.cli.main import main
from tinygpt2.cli.options import Escaped, read_options, save_options
from tinygpt2.cli.train_options import RANGES, TrainOptions, to_save

WHOLE = TrainOptions(files=("a.txt", "书.txt"), max_steps=7, dropout=0.0, compile=True, sample_prompt="从前")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_options(tmp_path / "options.json", to_save(WHOLE))
    return tmp_path / "options.json"


def edit(path: Path, **changes: Any) -> None:  # noqa: ANN401 - whatever JSON holds
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def test_what_was_saved_comes_back(path: Path) -> None:
    assert TrainOptions(**read_options(path, RANGES)) == WHOLE


def test_an_edited_value_counts_and_a_missing_one_is_the_default(path: Path) -> None:
    edit(path, epochs=3, learning_rate=1, compile=False)
    assert TrainOptions(**read_options(path, RANGES)) == replace(WHOLE, epochs=3, learning_rate=1.0, compile=False)
    path.write_text("{}", encoding="utf-8")
    assert TrainOptions(**read_options(path, RANGES)) == TrainOptions()


def test_the_name_of_a_file_that_is_not_utf8_comes_back(path: Path) -> None:
    edit(path, files=[os.fsdecode(b"caf\xe9.txt")] if sys.platform != "win32" else ["café.txt"])
    assert len(read_options(path, RANGES)["files"]) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compile": "no"}, "compile must be True or False, got 'no' (str)"),
        ({"compile": "false"}, "compile must be True or False, got 'false' (str)"),
        ({"compile": 0}, "compile must be True or False, got 0 (int)"),
        ({"epochs": "3"}, "epochs must be an integer, got '3' (str)"),
        ({"epochs": 3.0}, "epochs must be an integer, got 3.0 (float)"),
        ({"epochs": True}, "epochs must be an integer, got True (bool)"),
        ({"epochs": 10**30}, "epochs must be at most 9223372036854775807, got 1" + "0" * 30),
        ({"seed": 10**400}, "seed must be at most 18446744073709551615, got about 10**400"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"batch_size": 2**63}, "batch_size must be at most 9223372036854775807"),
        ({"context_length": 2**31 + 1}, "context_length must be at most 2147483648"),
        ({"dropout": "0.1"}, "dropout must be a number, got '0.1' (str)"),
        ({"dropout": float("nan")}, "dropout must be a finite number at least 0 and less than 1, got nan"),
        ({"learning_rate": float("inf")}, "learning_rate must be a finite number greater than 0, got inf"),
        ({"weight_decay": 10**400}, "weight_decay must be a finite number at least 0, got about 10**400"),
        ({"files": "a.txt"}, "files must be a list, got 'a.txt' (str)"),
        ({"files": [1]}, "each of files must be a string, got 1"),
        ({"preset": "gpt3"}, "preset must be one of"),
        ({"schedule": ["cosine"]}, "schedule must be one of"),
        ({"sample_prompt": {"a": "x" * 10**5}}, "sample_prompt must be a string, got {'a': 'xxx"),
        ({"keep": 1}, "keep must be at least 2, got 1"),
        ({"resume": True}, "there is no option 'resume'; expected files, field"),
        ({"x" * 10**5: 1}, "there is no option 'xxx"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_value_is_told_by_the_names_of_file_and_option(
    path: Path, changes: dict[str, Any], message: str
) -> None:
    """A flag that was the string "no" used to count as given, in programs of this kind."""
    edit(path, **changes)
    with pytest.raises(ValueError, match=r"options\.json does not hold the options of a run: ") as caught:
        read_options(path, RANGES)
    assert message in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 400


@pytest.mark.parametrize(
    "content", ["", "[]", "null", '{"epochs": 1, "epochs": 2}', "[" * 10**5, '{"seed": ' + "9" * 5000 + "}"]
)
def test_anything_else_is_told_by_the_name_of_the_file(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"options\.json does not hold the options of a run: options\.json "):
        read_options(path, RANGES)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes, devices, and links without a privilege")
def test_pipes_devices_and_links_are_not_read(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match=r"options\.json is not a regular file"):
        read_options(path, RANGES)
    for target in ("/dev/zero", "elsewhere"):
        path.unlink()
        path.symlink_to(target)
        with pytest.raises(ValueError, match=r"options\.json is not a regular file"):
            read_options(path, RANGES)


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--seed", "9" * 23, "argument --seed: expected an integer of at most 18446744073709551615, got"),
        ("--seed", "1e3", "argument --seed: expected an integer"),
        ("--seed", "1_000", "argument --seed: expected an integer"),
        ("--seed", "٣", "argument --seed: expected an integer"),
        (
            "--epochs",
            "1" + "0" * 30,
            "argument --epochs: expected an integer of at most 9223372036854775807, got '1000",
        ),
        ("--epochs", "9" * 5000, "argument --epochs: expected an integer of at most 9223372036854775807, got '999"),
        ("--context-length", "4294967296", "argument --context-length: expected an integer of at least 1 and at most"),
        ("--batch-size", "9" * 400, "argument --batch-size: expected an integer of at most"),
        ("--dropout", "nan", "argument --dropout: expected a number"),
        ("--learning-rate", "1e400", "argument --learning-rate: expected a number greater than 0, got '1e400'"),
        ("--train-ratio", "0_1.5", "argument --train-ratio: expected a number"),
    ],
)
def test_a_wrong_number_on_the_command_line_is_told_in_one_line(
    flag: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", flag, value]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in line
    assert len(line) < 250


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        (r"\n", "\n"),
        (r"\n\n", "\n\n"),
        (r"\t|\\n", "\t|\\n"),
        (r"\x41\x4a", "AJ"),
        (r"\u4f60\U0001f98a", "你🦊"),
        (r"\101\060", "A0"),
        (r"\"\'", "\"'"),
        ("<|endoftext|>", "<|endoftext|>"),
        ("。", "。"),
        ("\n", "\n"),  # as a shell gives $'\n'
    ],
)
def test_a_separator_has_the_escapes_of_printf(word: str, meant: str) -> None:
    assert Escaped().parse(word) == meant
    assert Escaped().check("separator", meant) == meant


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("", "expected a string that is not empty, got an empty one"),
        (r"\q", r"there is no escape \q; expected \n, \t"),
        ("a\\", "there is no escape"),
        (r"\U00110000", "there is no escape"),
    ],
)
def test_a_separator_that_is_none_says_what_is_expected(word: str, part: str) -> None:
    with pytest.raises(ValueError, match=re.escape(part)):
        Escaped().parse(word)
