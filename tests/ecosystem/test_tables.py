"""Columns of polars, pandas and datasets as training data, token files, texts to evaluate, and prompts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinygpt2 import (
    GPT2Model,
    Tokenizer,
    evaluate_text,
    generate_text,
    make_dataloader,
    tokenize_to_file,
    train_tokenizer,
)

pytestmark = pytest.mark.ecosystem

TEXTS = ["In the summer of 1914", "the war began.", "Österreich, 奥地利 🙂"] * 4
KINDS = ["polars", "pandas", "datasets"]


def frame_of(kind: str, texts: list[str]) -> Any:  # noqa: ANN401
    library = pytest.importorskip(kind)
    columns = {"number": range(len(texts)), "text": texts}
    if kind == "datasets":
        return library.Dataset.from_dict(columns)
    return library.DataFrame(columns)


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_trains_a_vocabulary_and_a_model(kind: str, tokenizer: Tokenizer) -> None:
    frame = frame_of(kind, TEXTS)
    assert train_tokenizer(frame["text"], 270)._mergeable_ranks == train_tokenizer(TEXTS, 270)._mergeable_ranks
    expected = [batch[0].tolist() for batch in loader_of(TEXTS, tokenizer)]
    assert [batch[0].tolist() for batch in loader_of(frame["text"], tokenizer)] == expected


def loader_of(source: Any, tokenizer: Tokenizer) -> Any:  # noqa: ANN401
    return make_dataloader(source, batch_size=2, context_length=8, tokenizer=tokenizer)


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_with_a_column_of_texts_is_its_texts(
    kind: str, new_model: Callable[..., GPT2Model], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """It became the names of its columns, without a word."""
    frame = frame_of(kind, TEXTS)
    expected = [batch[0].tolist() for batch in loader_of(TEXTS, tokenizer)]
    assert [batch[0].tolist() for batch in loader_of(frame, tokenizer)] == expected
    with pytest.raises((KeyError, TypeError, ValueError), match="content"):
        make_dataloader(frame, batch_size=2, context_length=8, tokenizer=tokenizer, field="content")
    files = [
        tokenize_to_file(source, tmp_path / f"{i}.tokens", tokenizer=tokenizer, documents=True)
        for i, source in enumerate((TEXTS, frame["text"]))
    ]
    assert files[0].tokens.tolist() == files[1].tokens.tolist()
    model = new_model()
    assert evaluate_text(model, tokenizer, frame) == evaluate_text(model, tokenizer, TEXTS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_holds_prompts(kind: str, new_model: Callable[..., GPT2Model], tokenizer: Tokenizer) -> None:
    """`if not prompts` failed on a column."""
    model, column = new_model(), frame_of(kind, TEXTS)["text"]
    expected = generate_text(model, tokenizer, TEXTS, max_new_tokens=4)
    assert list(generate_text(model, tokenizer, column, max_new_tokens=4)) == expected
