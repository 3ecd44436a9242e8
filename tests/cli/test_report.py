"""The report on a run: its lines follow from numbers, and come back from its file."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tinygpt2 import CharTokenizer, GPT2Config, GPT2Model, TrainingHistory, evaluate_text, load_tokenizer, split_text
from tinygpt2.cli import measurement
from tinygpt2.cli.main import main
from tinygpt2.cli.measurement import measured, standard_error
from tinygpt2.cli.report import advice, notes, report_lines, table
from tinygpt2.evaluation.baselines import Baselines, baselines
from tinygpt2.run.directory import RunDirectory
from tinygpt2.run.report import Report

WORSE = "It predicts new text worse than n-grams do"
FAST = ("--tokenizer", "char", "--context-length", "16", "--device", "cpu")
REPORT = Report(
    step=100,
    bits_per_byte=2.588,
    standard_error=0.041,
    pretrained=None,
    held_out_bytes=9369,
    copied_share=0.0312,
    generated_characters=2345,
    baselines=Baselines(
        ngram=2.763, order=4, xz=2.991, untrained=5.1, bytes=9369, training_bytes=84274, training_bytes_in_all=84274
    ),
)


def history_of(losses: list[tuple[float, float | None]], *, epochs: float = 10.0) -> TrainingHistory:
    """Returns a history of training and validation losses in even distances."""
    history, last = TrainingHistory(), len(losses) - 1
    for i, (training, validation) in enumerate(losses):
        history.append(step=1000 * i, epoch=epochs * i / last, tokens_seen=i, train_loss=training, val_loss=validation,
                       learning_rate=0.1, seconds=60.0 * i)  # fmt: skip
    return history


# --- lines ---


def test_the_table_has_the_model_beside_the_baselines() -> None:
    assert table(REPORT) == [
        "on held-out text                 bits per byte",
        "this model                       2.59 ± 0.04",
        "byte n-gram, 4 bytes of context  2.76",
        "xz                               2.99",
        "untrained model                  5.10",
    ]
    assert table(replace(REPORT, standard_error=None))[1] == "this model                       2.59"


def test_a_fine_tuned_model_is_beside_what_it_was_before(tmp_path: Path) -> None:
    before = replace(REPORT, pretrained=2.7)
    assert table(before)[2] == "before fine-tuning               2.70"
    run = RunDirectory(tmp_path)
    history_of([(3.0, 3.1), (2.0, 2.5)]).save(run.history)
    for pretrained, said in ((2.7, "more text would help"), (2.58, "no better than before fine-tuning")):
        replace(REPORT, pretrained=pretrained, step=1000).save(run.report)
        assert said in report_lines(tmp_path)[-1]


@pytest.mark.parametrize(
    ("change", "baseline", "expected"),
    [
        ({}, {}, ["measured on 9,369 bytes; ± is a standard error"]),
        ({"held_out_bytes": 10**6}, {}, ["measured on the first 9,369 of 1,000,000 bytes; ± is a standard error"]),
        (
            {"held_out_bytes": 900, "standard_error": None},
            {"bytes": 900},
            ["measured on 900 bytes, a short text, so the figures say little"],
        ),
        (
            {},
            {"training_bytes_in_all": 10**6},
            [
                "measured on 9,369 bytes; ± is a standard error",
                "the n-grams and xz know the last 84,274 of 1,000,000 bytes of the training text, the model all of it",
            ],
        ),
    ],
)
def test_the_notes_say_what_was_measured(change: dict[str, Any], baseline: dict[str, Any], expected: list[str]) -> None:
    report = replace(REPORT, **change, baselines=replace(REPORT.baselines, **baseline))
    assert list(notes(replace(report, copied_share=None))) == expected
    copied = "of 2,345 characters generated, 3% are in stretches of 50 or more copied from the training text"
    assert list(notes(report)) == [*expected, copied]


@pytest.mark.parametrize(
    ("losses", "epochs", "better", "worse"),
    [
        (
            [(5, 5), (3, 3.2), (2, 3.4)],
            10,
            "It overfitted from step 1,000 of 2,000 on: 5 epochs are enough, and more text would help.",
            f"{WORSE}, and overfitted from step 1,000 on: the text is too small for this model.",
        ),
        (
            [(5, 5), (3, 3.9), (2, math.nan)],
            10,
            "It overfitted from step 1,000 of 2,000 on: 5 epochs are enough, and more text would help.",
            f"{WORSE}, and overfitted from step 1,000 on: the text is too small for this model.",
        ),
        (
            [(5, 5), (3, 3.4), (2.8, 3.39)],
            0.25,
            "It has read 25% of the text: more minutes would help.",
            f"{WORSE} and has read 25% of the text: it needs more minutes, or should be smaller.",
        ),
        (
            [(5, 5), (3, 3.1), (2.8, 2.9)],
            10,
            "It predicts new text about as well as its training text: more minutes or a larger model would help.",
            f"{WORSE}, and its training text no better: it needs more minutes, or should be smaller.",
        ),
        (
            [(5, 5), (3, 3.5), (2.0, 3.4)],
            10,
            "It predicts its training text much better than new text: more text would help, not more minutes.",
            f"{WORSE}, and its training text much better: the text is too small for this model.",
        ),
        (
            [(5, 5), (3, 3.2), (2.8, 3.05)],
            10,
            "It predicts its training text better than new text: more text would help, more minutes a little.",
            f"{WORSE}: it needs more text and more minutes.",
        ),
        ([(5, None), (3, None)], 10, "", ""),
    ],
)
def test_the_advice_follows_from_the_figures(
    losses: list[tuple[float, float | None]], epochs: float, better: str, worse: str
) -> None:
    history = history_of(losses, epochs=epochs)
    assert (advice(2.5, 2.6, history), advice(2.7, 2.6, history)) == (better, worse)


def test_a_loss_that_hardly_rose_is_not_overfitting() -> None:
    history = history_of([(5, 5), (3, 3.5), (2.9, 3.49), (2.8, 3.51)])
    assert "overfitted" not in advice(2.5, 2.6, history)


# --- the file ---


def test_a_report_comes_back_from_its_file(tmp_path: Path) -> None:
    for report in (REPORT, replace(REPORT, standard_error=None, copied_share=None)):
        report.save(tmp_path / "report.json")
        assert Report.load(tmp_path / "report.json") == report


@pytest.mark.parametrize(
    "change", [{"step": -1}, {"bits_per_byte": None}, {"copied_share": 1.5}, {"baselines": {}}, {"more": 1}]
)
def test_a_file_of_anything_else_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(asdict(REPORT) | change), encoding="utf-8")
    with pytest.raises(ValueError, match=r"report\.json is not a report: "):
        Report.load(path)


# --- measurements ---


def test_the_standard_error_is_that_of_independent_parts() -> None:
    """Of tokens of one byte it is their deviation by the root of their number; 5 deviations: once in a million."""
    bits = np.random.default_rng(0).normal(3.0, 2.0, 100_000)
    error = standard_error(bits, np.ones(100_000))
    assert error is not None
    assert abs(error / (2 / math.sqrt(100_000)) - 1) < 5 / math.sqrt(2 * 19)
    assert standard_error(np.repeat([3.0, 6.0], 500), np.repeat([1.0, 2.0], 500)) == pytest.approx(0)
    assert standard_error(bits[:19], np.ones(19)) is None
    assert standard_error(bits, np.full(100_000, math.nan)) is None


@pytest.fixture(scope="module")
def small() -> tuple[GPT2Model, CharTokenizer]:
    torch.manual_seed(0)
    tokenizer = CharTokenizer("abc \n")
    shape = GPT2Config(vocab_size=tokenizer.n_vocab, context_length=8, n_layer=1, n_head=1, n_embd=8)
    return GPT2Model(shape).eval(), tokenizer


@pytest.mark.parametrize("documents", [False, True])
def test_the_model_and_the_baselines_are_measured_on_the_same_bytes(
    small: tuple[GPT2Model, CharTokenizer], documents: bool
) -> None:
    training: Any = ["abc " * 30] * 3 if documents else "abc " * 300
    held_out: Any = ["cab ", "bca b" * 9] if documents else "cab " * 50
    found = measured(*small, (training, held_out), history_of([(3, 3), (2, 2)]), prompt="", seed=0)
    assert found is not None
    expected = evaluate_text(*small, held_out, stride=4)
    assert found.bits_per_byte == pytest.approx(expected.bits_per_byte)
    assert found.baselines == baselines(training, held_out, tokenizer=small[1])
    assert found.held_out_bytes == found.baselines.bytes == expected.bytes
    assert found.generated_characters > 0


def test_of_a_long_held_out_text_the_beginning_is_measured(
    small: tuple[GPT2Model, CharTokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurement, "_HELD_OUT", (40, 60))
    monkeypatch.setattr(measurement, "_TRAINING", (70, 80))
    for held_out in ("cab " * 50, ["cab cab"] * 50):
        parts: Any = ("abc " * 300, held_out) if isinstance(held_out, str) else (["abc "] * 300, held_out)
        found = measured(*small, parts, history_of([(3, 3), (2, 2)]), prompt="ab", seed=0)
        assert found is not None
        assert (found.baselines.bytes, found.held_out_bytes) == (40, 200 if isinstance(held_out, str) else 400)
        assert found.baselines.training_bytes == 80
        assert "the first 40 of" in next(notes(found))


def test_a_copy_is_found_in_what_is_generated(small: tuple[GPT2Model, CharTokenizer]) -> None:
    """Of a model that always writes the same letter."""
    model = GPT2Model(small[0].config)
    for parameter in model.parameters():
        parameter.data.zero_()
    model.ln_f.bias.data.fill_(1.0)
    model.wte.weight.data[0] = 9.0
    shares = []
    for training in ("a" * 200, "ab" * 100):
        found = measured(model, small[1], (training, "ab" * 20), history_of([(3, 3), (2, 2)]), prompt="a", seed=0)
        assert found is not None
        shares.append(found.copied_share)
    assert shares == [1.0, 0.0]


def test_what_cannot_be_compared_is_not_reported(small: tuple[GPT2Model, CharTokenizer]) -> None:
    """A model that is damaged, or a tokenizer that loses a part of the text."""
    model = GPT2Model(small[0].config)
    model.wte.weight.data.fill_(math.nan)
    history = history_of([(3, 3), (2, 2)])
    assert measured(model, small[1], ("abc", "abc"), history, prompt="", seed=0) is None

    class Lower(CharTokenizer):
        def encode_ordinary(self, text: str) -> list[int]:
            return super().encode_ordinary(text.lower())

    assert measured(small[0], Lower("abc \n"), ("abc", "ABC"), history, prompt="", seed=0) is None


# --- runs ---


def test_a_run_prints_the_report_that_info_shows(
    text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "run"
    assert main(["train", str(text_file), "--out", str(directory), "--max-steps", "5", *FAST]) == 0
    lines = report_lines(directory)
    assert lines[0].startswith("on held-out text")
    assert capsys.readouterr().out.splitlines()[: len(lines)] == lines
    assert main(["info", str(directory)]) == 0
    assert capsys.readouterr().out.splitlines()[-len(lines) :] == lines
    held_out = split_text(text_file.read_text(encoding="utf-8"), 0.9)[1]
    model, tokenizer = GPT2Model.from_pretrained(directory), load_tokenizer(directory)
    bits = evaluate_text(model, tokenizer, held_out, stride=8).bits_per_byte
    assert Report.load(directory / "report.json").bits_per_byte == pytest.approx(bits)


def test_a_quiet_run_writes_its_report(run_directory: Path) -> None:
    assert Report.load(run_directory / "report.json").step > 0


def test_a_run_without_a_report_or_with_an_older_one_shows_none(
    run_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "run"
    shutil.copytree(run_directory, directory)
    report = Report.load(directory / "report.json")
    replace(report, step=report.step - 1).save(directory / "report.json")
    assert report_lines(directory) == []
    (directory / "report.json").unlink()
    for command in ("info", "plot"):
        assert main([command, str(directory)]) == 0
    assert "held-out" not in capsys.readouterr().out


def test_a_damaged_report_is_one_line(run_directory: Path, tmp_path: Path, fails: Callable[..., None]) -> None:
    directory = tmp_path / "run"
    shutil.copytree(run_directory, directory)
    (directory / "report.json").write_text("{}", encoding="utf-8")
    fails(["info", directory], "report.json is not a report: expected an object with step")


def test_a_run_on_tokens_has_no_report(text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokens, directory = tmp_path / "fox.tokens", tmp_path / "run"
    assert main(["tokenize", str(text_file), "--out", str(tokens)]) == 0
    options = ("--max-steps", "1", "--eval-batches", "1", "--context-length", "16", "--device", "cpu")
    assert main(["train", str(tokens), "--out", str(directory), *options]) == 0
    assert not (directory / "report.json").exists()
    assert "held-out" not in capsys.readouterr().out


def test_a_student_has_teachers_that_have_read_the_text() -> None:
    history = history_of([(5, 5), (3, 3.5), (2.0, 3.4)], epochs=0.25)
    assert "has read 25% of the text" in advice(2.5, 2.6, history)
    assert "more text would help, not more minutes" in advice(2.5, 2.6, history, taught=True)
