"""N-gram models of tokens."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinygpt2 import NextTokenLoss, NGramModel

V = 5

texts = st.lists(st.integers(0, V - 1), max_size=40)


def witten_bell(documents: Sequence[Sequence[int]], context: tuple[int, ...], token: int) -> float:
    """Returns a probability by the definition, from scratch."""
    n = len(context)
    counts = Counter(
        document[i] for document in documents for i in range(n, len(document)) if tuple(document[i - n : i]) == context
    )
    shorter = witten_bell(documents, context[1:], token) if context else 1 / V
    total = counts.total() + len(counts)
    return (counts[token] + len(counts) * shorter) / total if total else shorter


@given(
    st.lists(texts, min_size=1, max_size=3).filter(any),
    st.lists(st.lists(st.integers(0, V - 1), min_size=4, max_size=4), min_size=1, max_size=3),
    st.integers(1, 5),
)
def test_probabilities_are_those_of_the_definition(
    documents: list[list[int]], rows: list[list[int]], order: int
) -> None:
    model = NGramModel([np.array(document, dtype=np.uint16) for document in documents], V, order)
    found = model.probabilities(torch.tensor(rows))
    for row, probabilities in zip(rows, found, strict=True):
        for i, of_position in enumerate(probabilities):
            context = tuple(row[max(0, i + 2 - order) : i + 1]) if order > 1 else ()
            expected = [witten_bell(documents, context, token) for token in range(V)]
            assert of_position.tolist() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(model.last_probabilities(torch.tensor(rows)), found[:, -1])


def test_a_list_of_ids_is_one_text_and_an_array_too() -> None:
    rows = torch.tensor([[0, 1, 2], [2, 0, 1]])
    text = [0, 1, 2, 0, 2, 1]
    of_list = NGramModel(text, 3)(rows)
    for other in (np.array(text), torch.tensor(text), [np.array(text)], [text, []]):
        assert torch.equal(NGramModel(other, 3)(rows), of_list)
    assert not torch.equal(NGramModel([text[:3], text[3:]], 3)(rows), of_list)


def test_long_contexts_of_large_ids() -> None:
    text = [50_256, 0, 50_255, 50_256, 0, 1, 50_256]
    probabilities = NGramModel(text, 50_257, order=7).probabilities(torch.tensor([[50_256, 0]]))
    assert probabilities.sum(dim=-1).tolist() == [pytest.approx([1, 1], abs=1e-4)]
    assert probabilities[0, 1].topk(2).indices.sort().values.tolist() == [1, 50_255]


def test_sums_to_one_and_learns() -> None:
    text = np.arange(3000) % 7 * 100
    model = NGramModel(text, 700)
    inputs, targets = (torch.from_numpy(part.astype(np.int64)).view(1, -1) for part in (text[:64], text[1:65]))
    torch.testing.assert_close(model.probabilities(inputs).sum(dim=-1), torch.ones(1, 64))
    assert NextTokenLoss(model)(inputs, targets, 1 / 64) < 0.1


def test_its_state_has_its_counts() -> None:
    model = NGramModel([0, 1, 2, 0, 2, 1], 3)
    other = NGramModel([0, 1, 2, 0, 2, 2], 3)
    assert not list(model.parameters())
    assert any(
        not torch.equal(value, other.state_dict()[name]) if value.shape == other.state_dict()[name].shape else True
        for name, value in model.state_dict().items()
    )


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([], "there are no tokens to count"),
        ([[], []], "there are no tokens to count"),
        ([0, 3], "ids 0 to 2, but the tokens go from 0 to 3"),
        ([-1], "from -1 to -1"),
        (np.zeros((2, 2), dtype=np.int64), r"in one dimension, \(N,\), got shape \(2, 2\)"),
    ],
)
def test_wrong_tokens(tokens: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NGramModel(tokens, 3)


def test_wrong_types() -> None:
    with pytest.raises(TypeError, match="encode a text with its tokenizer"):
        NGramModel("abc", 3)
    with pytest.raises(TypeError, match="must be integers, got float64"):
        NGramModel([0.5], 3)
    model = NGramModel([0, 1], 3)
    with pytest.raises(TypeError, match="got list"):
        model([[0]])
    with pytest.raises(ValueError, match=r"shape \(B, T\), int64, got torch.int64 of \(1,\)"):
        model(torch.tensor([0]))
    with pytest.raises(ValueError, match="the tokens go from 0 to 3"):
        model(torch.tensor([[0, 3]]))
