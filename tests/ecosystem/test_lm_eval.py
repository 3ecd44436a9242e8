"""The evaluation harness lm-eval: our directory as transformers opens it, and a model by a class of its own."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinygpt2 import GPT2Config, GPT2Model, Tokenizer, evaluate_text, sample_text

lm_eval = pytest.importorskip("lm_eval", minversion="0.4.8")
HFLM: Any = pytest.importorskip("lm_eval.models.huggingface").HFLM

pytestmark = pytest.mark.ecosystem


def task(path: Path, rows: list[dict[str, Any]], **options: Any) -> dict[str, Any]:  # noqa: ANN401
    """Writes rows as JSON lines, and returns a task over them."""
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return {
        "task": path.stem, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(path)}},
        "test_split": "test", **options,
    }  # fmt: skip


def results(model: Any, tasks: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: ANN401
    found = lm_eval.simple_evaluate(model, tasks=tasks, bootstrap_iters=0, log_samples=True)
    assert found is not None
    values: dict[str, Any] = found
    return values


def texts(tokenizer: Tokenizer, config: GPT2Config) -> list[str]:
    """Documents of less than a context length, and one of two: of others, lm-eval's last window overlaps."""
    tokens = tokenizer.encode_ordinary("".join(char for char in sample_text() if char.isascii()))
    pieces = [tokens[:20], tokens[100:130], tokens[200 : 200 + 2 * config.context_length]]
    found = [tokenizer.decode(piece) for piece in pieces]
    for text, piece in zip(found, pieces, strict=True):
        assert len(tokenizer.encode_ordinary(text)) == len(piece)
    return found


@pytest.fixture
def models(directory: Path, tokenizer: Tokenizer, recipe: Callable[..., dict[str, Any]]) -> list[Any]:
    """The directory as transformers opens it, and the model by the class on the page on the ecosystem."""
    theirs = HFLM(pretrained=str(directory), device="cpu", batch_size=4)
    return [theirs, recipe("class TinyLM")["TinyLM"](GPT2Model.from_pretrained(directory), tokenizer)]


def test_bits_per_byte_are_those_of_evaluate_text(
    models: list[Any], directory: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = GPT2Model.from_pretrained(directory)
    documents = texts(tokenizer, model.config)
    losses = [evaluate_text(model, tokenizer, text) for text in documents]
    nats = sum(result.loss * result.tokens for result in losses)
    expected = nats / math.log(2) / sum(len(text) for text in documents)
    rolling = task(
        tmp_path / "rolling.jsonl", [{"text": text} for text in documents], output_type="loglikelihood_rolling",
        doc_to_text="", doc_to_target="{{text}}", metric_list=[{"metric": "bits_per_byte"}],
    )  # fmt: skip
    for each in models:
        found = results(each, [rolling])["results"]["rolling"]["bits_per_byte,none"]
        assert found == pytest.approx(expected, rel=1e-5)


def test_choices_and_texts_are_the_same_both_ways(models: list[Any], tmp_path: Path) -> None:
    rows = [
        {"question": "The war began in", "choices": [" 1914", " the summer", " June and"], "answer": 0},
        {"question": "It ended", "choices": [" in November", " at last", " with a peace"], "answer": 1},
    ]
    choices = task(
        tmp_path / "choices.jsonl", rows, output_type="multiple_choice", doc_to_text="{{question}}",
        doc_to_target="answer", doc_to_choice="{{choices}}", target_delimiter="", metric_list=[{"metric": "acc"}],
    )  # fmt: skip
    written = task(
        tmp_path / "written.jsonl", rows, output_type="generate_until", doc_to_text="{{question}}",
        doc_to_target="{{choices[0]}}", generation_kwargs={"until": ["e"], "max_gen_toks": 12, "do_sample": False},
        metric_list=[{"metric": "exact_match"}],
    )  # fmt: skip
    theirs, ours = (results(each, [choices, written])["samples"] for each in models)
    for one, other in zip(theirs["choices"], ours["choices"], strict=True):
        for (logs, greedy), (its_logs, its_greedy) in zip(one["filtered_resps"], other["filtered_resps"], strict=True):
            assert float(logs) == pytest.approx(float(its_logs), abs=1e-3)
            assert greedy == its_greedy
    for one, other in zip(theirs["written"], ours["written"], strict=True):
        assert one["resps"] == other["resps"]
