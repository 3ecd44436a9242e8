"""``tinygpt2 quantize``."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tinygpt2 import GPT2Model, evaluate_text, load_tokenizer
from tinygpt2.cli.main import main

TEXT = "The quick brown fox jumps over the lazy dog. " * 2
Fails = Callable[..., None]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "some.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_it_writes_a_model_that_every_command_reads_and_says_what_it_costs(
    run_directory: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small"
    assert main(["quantize", str(run_directory), str(out), str(text)]) == 0
    small, large = GPT2Model.from_pretrained(out), GPT2Model.from_pretrained(run_directory)
    assert small.is_quantized
    tokenizer = load_tokenizer(out)
    before, now = (evaluate_text(model, tokenizer, TEXT).bits_per_byte for model in (large, small))
    sizes = [sum(each.nbytes for each in model.state_dict().values()) / 1e6 for model in (large, small)]
    assert capsys.readouterr().out.splitlines() == [
        f"weights        {sizes[0]:.1f} MB before, {sizes[1]:.1f} MB now",
        f"bits per byte  {before:.4f} before, {now:.4f} now, of {len(TEXT):,} bytes",
    ]
    assert main(["evaluate", str(out), str(text), "--device", "cpu"]) == 0
    assert f"{now:.4f} bits per byte" in capsys.readouterr().out
    assert main(["generate", "--model", str(out), "The", "--max-new-tokens", "3", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith("The")
    assert main(["info", str(out)]) == 0


def test_generate_rounds_on_request_and_a_rounded_model_is_left_as_it_is(
    run_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small"
    assert main(["quantize", str(run_directory), str(small)]) == 0
    rest = ["The", "--greedy", "--max-new-tokens", "9", "--device", "cpu", "--json"]
    found = []
    for words in ([str(small)], [str(small), "--int8"], [str(run_directory), "--int8"]):
        capsys.readouterr()
        assert main(["generate", words[0], *rest, *words[1:]]) == 0
        found.append(json.loads(capsys.readouterr().out)["log_probabilities"])
    assert found[0] == found[1] == found[2]
    assert main(["generate", str(run_directory), *rest]) == 0
    assert json.loads(capsys.readouterr().out)["log_probabilities"] != found[0]


def test_without_text_it_does_not_know_what_it_costs(
    run_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quantize", str(run_directory), str(tmp_path / "small")]) == 0
    assert re.search("what that costs is not known; name files of text", capsys.readouterr().out)


def test_documents_are_measured_one_by_one(
    run_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "animals.txt"
    path.write_text("fox\ndog\nthe fox", encoding="utf-8")
    assert main(["quantize", str(run_directory), str(tmp_path / "small"), str(path), "--separator", "\\n"]) == 0
    model, tokenizer = GPT2Model.from_pretrained(run_directory), load_tokenizer(run_directory)
    expected = evaluate_text(model, tokenizer, ["fox", "dog", "the fox"])
    assert f"{expected.bits_per_byte:.4f} before" in capsys.readouterr().out


def test_what_is_there_is_not_replaced(run_directory: Path, tmp_path: Path, fails: Fails) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for out in (tmp_path / "file", tmp_path, run_directory):
        fails(["quantize", str(run_directory), str(out)], f"{out} exists already; name a new directory")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_a_copy_is_not_rounded_again_nor_trained(run_directory: Path, tmp_path: Path, text: Path, fails: Fails) -> None:
    small = str(tmp_path / "small")
    assert main(["quantize", str(run_directory), small]) == 0
    fails(["quantize", small, str(tmp_path / "smaller")], "have 8 bits already")
    assert not (tmp_path / "smaller").exists()
    fails(
        ["train", str(text), "--from-pretrained", small, "--out", str(tmp_path / "run"), "--device", "cpu"],
        f"the model in {small} has weights of 8 bits, which cannot be trained; pass the one that it was made from",
    )
