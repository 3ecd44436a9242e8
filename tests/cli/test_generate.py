"""``tinygpt2 generate``."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tinygpt2.cli.main import main


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


def test_a_prompt_that_is_not_utf8_is_one_line(
    run_directory: Path, standard_input: Callable[[bytes], None], fails: Callable[..., None]
) -> None:
    standard_input(b"\xff")
    fails(["generate", "--model", run_directory, "-"], "0xff")


def test_an_unknown_character_is_one_line(run_directory: Path, fails: Callable[..., None]) -> None:
    fails(["generate", "--model", run_directory, "你"], "'你'", "position 0")


def test_a_directory_that_holds_no_model_is_one_line(tmp_path: Path, fails: Callable[..., None]) -> None:
    fails(["generate", "--model", tmp_path / "none", "x"], "does not exist")
    fails(["generate", "--model", tmp_path, "x"], "has no config.json")


def test_a_model_without_its_tokenizer_is_one_line_with_the_fix(
    run_directory: Path, tmp_path: Path, fails: Callable[..., None]
) -> None:
    """It used to take GPT-2's, whose ids the model does not have."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((run_directory / name).read_bytes())
    fails(["generate", "--model", tmp_path, "x"], "has no tinygpt2_tokenizer.json", "save_tokenizer(tokenizer")
