"""``tinygpt2 generate``."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tinygpt2.cli.main import main

Fails = Callable[..., None]


def test_it_streams_the_prompt_and_its_continuation(run_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_it_takes_all_sampler_flags_and_a_prompt_from_standard_input(
    run_directory: Path, standard_input: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--top-k", "5", "--top-p", "0.9", "--min-p", "0.05", "--temperature", "1.4", "--max-new-tokens", "5"]
    standard_input(b"The fox")
    assert main(["generate", "--model", str(run_directory), "-", *flags]) == 0
    assert capsys.readouterr().out.startswith("The fox")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"The \xff", ["is not UTF-8: byte 0xff at offset 4", "iconv"]),
        ("The fox".encode("utf-16"), ["is not UTF-8: byte 0xff at offset 0; it is UTF-16"]),
        ("The fox".encode("utf-16-le"), ["it looks like UTF-16LE"]),
        (b"The fox " * 9 + b"\0", ["has a NUL byte at offset 72"]),
        (b"\x1f\x8b\x08", ["is compressed with gzip"]),
    ],
)
def test_a_prompt_that_is_no_text_is_told_as_a_file_is(
    content: bytes, parts: list[str], run_directory: Path, standard_input: Callable[[bytes], None], fails: Fails
) -> None:
    standard_input(content)
    fails(["generate", "--model", run_directory, "-"], "standard input ", *parts)


def test_a_prompt_from_windows_has_no_mark_and_no_carriage_returns(
    run_directory: Path, standard_input: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    standard_input(b"\xef\xbb\xbfThe fox")
    assert main(["generate", "--model", str(run_directory), "-", "--max-new-tokens", "0"]) == 0
    assert capsys.readouterr().out == "The fox\n"


@pytest.mark.parametrize(
    ("prompt", "parts"), [("你", ["'你' (U+4F60) at position 0"]), ("The 飞x", ["'飞'", "position 4"])]
)
def test_an_unknown_character_is_one_line_before_anything_is_printed(
    prompt: str, parts: list[str], run_directory: Path, fails: Fails, capsys: pytest.CaptureFixture[str]
) -> None:
    fails(["generate", "--model", run_directory, prompt], *parts, "leave it out of the prompt, or train without --tok")
    assert main(["generate", "--model", str(run_directory), prompt]) == 1
    assert capsys.readouterr().out == ""


def test_a_directory_that_holds_no_model_is_one_line(tmp_path: Path, fails: Fails) -> None:
    fails(["generate", "--model", tmp_path / "none", "x"], "does not exist")
    fails(["generate", "--model", tmp_path, "x"], "has no config.json")


def test_a_model_without_its_tokenizer_is_one_line_with_the_fix(
    run_directory: Path, tmp_path: Path, fails: Fails
) -> None:
    """It used to take GPT-2's, whose ids the model does not have."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((run_directory / name).read_bytes())
    fails(["generate", "--model", tmp_path, "x"], "has no tinygpt2_tokenizer.json", "save_tokenizer(tokenizer")


@pytest.mark.parametrize(
    "option",
    [["--temperature", "0.8"], ["--temperature", "0"], ["--top-k", "0"], ["--top-p", "1"], ["--min-p", "0.5"],
     ["--seed", "1"]],
)  # fmt: skip
def test_greedy_refuses_what_has_no_effect_on_it(run_directory: Path, fails: Fails, option: list[str]) -> None:
    """Even with the default as its value: it was given."""
    fails(["generate", "--model", run_directory, "The", "--greedy", *option], f"so {option[0]} has no effect; omit one")


def test_a_temperature_of_zero_goes_with_all_that_holds_then(
    run_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that one command line serves for several temperatures."""
    arguments = ["generate", "--model", str(run_directory), "The", "--max-new-tokens", "9", "--device", "cpu"]
    filters = ["--top-k", "3", "--top-p", "0.5", "--min-p", "0.1", "--seed", "7"]
    for extra in (["--greedy"], ["--temperature", "0", *filters]):
        assert main([*arguments, *extra]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(set(lines)) == 1


def test_no_new_tokens_is_the_prompt(run_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--model", str(run_directory), "The", "--max-new-tokens", "0"]) == 0
    assert capsys.readouterr().out == "The\n"


def test_a_prompt_that_begins_with_a_dash_goes_after_two(
    run_directory: Path, capsys: pytest.CaptureFixture[str], fails: Fails
) -> None:
    fails(["generate", "--model", run_directory, "--", "-x"], "'-'")  # which this model does not know
    assert main(["generate", "--model", str(run_directory), "-x"]) == 2
    assert "-- goes before an argument that begins with a dash" in capsys.readouterr().err


def test_a_closed_standard_input_is_one_line(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    fails(["generate", "--model", run_directory, "-"], "standard input, but that is closed")
