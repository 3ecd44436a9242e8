"""The evaluation harness lm-eval: our directory as transformers opens it, and a model by a class of its own."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tinygpt2 import GPT2Model, Tokenizer, evaluate_text, generate_text, sample_text
from tinygpt2.config import GPT2Config

lm_eval = pytest.importorskip("lm_eval", minversion="0.4.8")
LM: Any = pytest.importorskip("lm_eval.api.model").LM
HFLM: Any = pytest.importorskip("lm_eval.models.huggingface").HFLM

pytestmark = pytest.mark.ecosystem


class TinyLM(LM):  # type: ignore[misc]
    """The class on the page on the ecosystem."""

    def __init__(self, model: GPT2Model, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        encode, found = self.tokenizer.encode_ordinary, []
        for context, text in (request.args for request in requests):
            ids = encode(context + text)
            n = len(ids) - len(encode(context))  # those of the text
            ids = ids if context else [self.tokenizer.eot_token, *ids]
            inputs = torch.tensor([ids[:-1]])[:, -self.model.config.context_length :]
            with torch.no_grad():
                logs = self.model(inputs)[0, -n:].log_softmax(-1)
            right = torch.tensor(ids[-n:])
            likeliest = bool((logs.argmax(-1) == right).all())
            found.append((float(logs.gather(1, right[:, None]).sum()), likeliest))
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        texts = [request.args[0] for request in requests]
        results = [evaluate_text(self.model, self.tokenizer, text) for text in texts]
        return [-result.loss * result.tokens for result in results]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        written = []
        for context, options in (request.args for request in requests):
            n = options.get("max_gen_toks", 64)
            text = generate_text(self.model, self.tokenizer, context, max_new_tokens=n)
            text = text[len(context) :]
            for end in options.get("until", ()):
                text = text.partition(end)[0]
            written.append(text)
        return written


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


def models(directory: Path, tokenizer: Tokenizer) -> list[Any]:
    """The directory as transformers opens it, and the model by the class above."""
    theirs = HFLM(pretrained=str(directory), device="cpu", batch_size=4)
    return [theirs, TinyLM(GPT2Model.from_pretrained(directory), tokenizer)]


def test_bits_per_byte_are_those_of_evaluate_text(directory: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = GPT2Model.from_pretrained(directory)
    documents = texts(tokenizer, model.config)
    losses = [evaluate_text(model, tokenizer, text) for text in documents]
    nats = sum(result.loss * result.tokens for result in losses)
    expected = nats / math.log(2) / sum(len(text) for text in documents)
    rolling = task(
        tmp_path / "rolling.jsonl", [{"text": text} for text in documents], output_type="loglikelihood_rolling",
        doc_to_text="", doc_to_target="{{text}}", metric_list=[{"metric": "bits_per_byte"}],
    )  # fmt: skip
    for each in models(directory, tokenizer):
        found = results(each, [rolling])["results"]["rolling"]["bits_per_byte,none"]
        assert found == pytest.approx(expected, rel=1e-5)


def test_choices_and_texts_are_the_same_both_ways(directory: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
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
    theirs, ours = (results(each, [choices, written])["samples"] for each in models(directory, tokenizer))
    for one, other in zip(theirs["choices"], ours["choices"], strict=True):
        for (logs, greedy), (its_logs, its_greedy) in zip(one["filtered_resps"], other["filtered_resps"], strict=True):
            assert float(logs) == pytest.approx(float(its_logs), abs=1e-3)
            assert greedy == its_greedy
    for one, other in zip(theirs["written"], ours["written"], strict=True):
        assert one["resps"] == other["resps"]
