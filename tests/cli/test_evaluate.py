"""``tinygpt2 evaluate``."""

import csv
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from tinygpt2 import GPT2Config, GPT2Model, evaluate_text, gpt2_tokenizer, load_tokenizer, score, tokenize_to_file
from tinygpt2.cli.main import main

TEXT = "The quick brown fox jumps over the lazy dog. " * 2
Fails = Callable[..., None]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "some.txt"
    path.write_text(TEXT[:50], encoding="utf-8")
    return path


def rows(table: str) -> list[dict[str, str]]:
    return list(csv.DictReader(table.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.mark.parametrize("stride", [None, 3])
@pytest.mark.parametrize("flag", [[], ["--model"]])
def test_it_prints_all_figures_of_a_text(
    run_directory: Path, text: Path, capsys: pytest.CaptureFixture[str], stride: int | None, flag: list[str]
) -> None:
    options = [] if stride is None else ["--stride", str(stride)]
    assert main(["evaluate", *flag, str(run_directory), str(text), "--device", "cpu", *options]) == 0
    model, tokenizer = GPT2Model.from_pretrained(run_directory), load_tokenizer(run_directory)
    expected = evaluate_text(model, tokenizer, TEXT[:50], stride=stride)
    assert capsys.readouterr().out.splitlines() == [
        f"loss         {expected.loss:.4f} nats per token, {expected.bits_per_byte:.4f} bits per byte",
        f"perplexity   {expected.perplexity:,.2f} per token, {expected.word_perplexity:,.2f} per word",
        "measured on  50 tokens, 50 bytes, 11 words",
    ]


@pytest.mark.parametrize("separator", ["\n", r"\n", "<|end|>", r"\\"])
def test_what_stands_between_separators_is_a_document(
    run_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], separator: str
) -> None:
    path = tmp_path / "animals.txt"
    sign = {r"\n": "\n", r"\\": "\\"}.get(separator, separator)
    path.write_text(sign.join(["fox", "dog", "", "the fox", ""]), encoding="utf-8")
    assert main(["evaluate", str(run_directory), str(path), "--separator", separator, "--device", "cpu"]) == 0
    model, tokenizer = GPT2Model.from_pretrained(run_directory), load_tokenizer(run_directory)
    expected = evaluate_text(model, tokenizer, ["fox", "dog", "the fox"])
    output = capsys.readouterr().out
    assert f"loss         {expected.loss:.4f} nats per token, {expected.bits_per_byte:.4f} bits per byte\n" in output
    assert "measured on  16 tokens, 16 bytes, 4 words, 3 documents\n" in output


def test_several_files_are_documents(
    run_directory: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.txt").write_text("fox", encoding="utf-8")
    assert main(["evaluate", str(run_directory), str(text), str(tmp_path / "other.txt"), "--device", "cpu"]) == 0
    assert "measured on  55 tokens, 55 bytes, 12 words, 2 documents\n" in capsys.readouterr().out


@pytest.mark.parametrize("options", [[], ["--separator", " ", "--stride", "2", "--batch-size", "1"]])
def test_a_table_has_a_row_for_each_token(
    run_directory: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    command = ["evaluate", str(run_directory), str(text), "--device", "cpu", *options]
    assert main(command) == 0
    summary = capsys.readouterr().out
    out = tmp_path / "out.tsv"
    assert main([*command, "--per-token", str(out)]) == 0
    assert capsys.readouterr().out == summary
    table = out.read_text(encoding="utf-8")
    assert main([*command, "--per-token", "-"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (table, summary)
    nats = -sum(float(row["log_probability"]) for row in rows(table))
    assert f"loss         {nats / len(rows(table)):.4f} nats per token" in summary


def test_a_row_is_the_score_of_its_token(run_directory: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "some.txt", tmp_path / "out.tsv"
    path.write_text("fox,the lazy dog", encoding="utf-8")
    table = ["--separator", ",", "--per-token", str(out)]
    assert main(["evaluate", str(run_directory), str(path), "--device", "cpu", *table]) == 0
    model, tokenizer = GPT2Model.from_pretrained(run_directory), load_tokenizer(run_directory)
    scores = {"0": score(model, tokenizer, "fox"), "1": score(model, tokenizer, "the lazy dog")}
    found = rows(out.read_text(encoding="utf-8"))
    assert [row["document"] for row in found] == ["0"] * 4 + ["1"] * 13
    assert [row["token"] for row in found] == [*"fox", "<|endoftext|>", *"the lazy dog", "<|endoftext|>"]
    for row in found:
        index = int(row["index"])
        if index == len(scores[row["document"]]):
            continue  # the end of text, which a single text does not have
        expected = scores[row["document"]][index]
        assert (int(row["id"]), int(row["byte"]), int(row["rank"])) == (expected.token, expected.start, expected.rank)
        assert float(row["log_probability"]) == pytest.approx(expected.log_probability, abs=1e-5)
        assert float(row["probability"]) == pytest.approx(math.exp(expected.log_probability), rel=1e-4)


def test_a_token_is_one_line_whatever_it_is(tmp_path: Path) -> None:
    """Line breaks, tabs, backslashes and parts of characters are written as Python writes them."""
    model = GPT2Model(GPT2Config(context_length=8, n_layer=1, n_head=2, n_embd=8))
    model.save_pretrained(tmp_path / "model", tokenizer=gpt2_tokenizer())
    text = "a\n\\n\t\x7f\u2028🦊 é\"'"
    (tmp_path / "some.txt").write_text(text, encoding="utf-8")
    out = tmp_path / "out.tsv"
    words = [str(tmp_path / "model"), str(tmp_path / "some.txt"), "--per-token", str(out), "--device", "cpu"]
    assert main(["evaluate", *words]) == 0
    found = [row["token"] for row in rows(out.read_text(encoding="utf-8"))]
    assert "".join(found).startswith(r"a\n\\n\t\x7f")
    assert r"\xf0" in "".join(found)
    assert "".join(found).endswith(" é\"'")


def test_a_table_that_fails_leaves_nothing(plain_characters: Path, text: Path, tmp_path: Path, fails: Fails) -> None:
    text.write_text("fox€", encoding="utf-8")
    out = tmp_path / "out.tsv"
    fails(["evaluate", plain_characters, text, "--per-token", out, "--device", "cpu"], "some.txt: the character '€'")
    assert not out.exists()


def test_a_text_without_a_token_to_predict_is_one_line_with_its_name(
    run_directory: Path, tmp_path: Path, fails: Fails
) -> None:
    path = tmp_path / "short.txt"
    path.write_text("", encoding="utf-8")
    fails(["evaluate", "--model", run_directory, path], "short.txt: ")


def test_wrong_words_are_one_line(run_directory: Path, text: Path, tmp_path: Path, fails: Fails) -> None:
    fails(["evaluate", text], f"expected RUN and FILE, got only {text}; for instance: tinygpt2 evaluate runs/novel")
    fails(["evaluate", run_directory, text, "--stride", "17", "--device", "cpu"], "stride must be at most 16, got 17")
    tokens = tokenize_to_file(["fox"], tmp_path / "a.tokens", tokenizer=load_tokenizer(run_directory)).path
    fails(["evaluate", run_directory, text, tokens, "--device", "cpu"], "is a file of tokens, but")
    fails(["evaluate", run_directory, tokens, tokens, "--device", "cpu"], "a file of tokens is evaluated alone")
