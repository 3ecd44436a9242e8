"""``tinygpt2 evaluate``."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tinygpt2 import GPT2Model, evaluate, load_tokenizer, text_to_tensor
from tinygpt2.cli.main import main

TEXT = "The quick brown fox jumps over the lazy dog. " * 2


def test_it_predicts_every_token_but_the_first(
    run_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "some.txt"
    path.write_text(TEXT[:50], encoding="utf-8")
    assert main(["evaluate", "--model", str(run_directory), str(path), "--device", "cpu"]) == 0
    output = capsys.readouterr().out
    model = GPT2Model.from_pretrained(run_directory)
    tokens = text_to_tensor(TEXT[:50], load_tokenizer(run_directory))
    windows = [(tokens[:, i : min(i + 16, 49)], tokens[:, i + 1 : i + 17]) for i in range(0, 49, 16)]
    expected = evaluate(model, windows)
    assert expected.tokens == 49
    assert f"loss {expected.loss:.4f} nats per token, perplexity {expected.perplexity:.2f}, 49 tokens" in output


@pytest.mark.parametrize("text", ["", "T"])
def test_a_text_without_a_token_to_predict_is_one_line_with_its_name(
    run_directory: Path, tmp_path: Path, text: str, fails: Callable[..., None]
) -> None:
    path = tmp_path / "short.txt"
    path.write_text(text, encoding="utf-8")
    fails(["evaluate", "--model", run_directory, path], "short.txt: ")
