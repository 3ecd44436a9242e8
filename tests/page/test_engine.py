"""The page's model and samplers: the numbers of Python's."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from tinygpt2 import (
    GPT2Config,
    GPT2Model,
    GreedySampler,
    TemperatureSampler,
    TopKSampler,
    TopPSampler,
    generate,
)
from tinygpt2.model.rounding import restored_weights, rounded_weights
from tinygpt2.page.document import packed
from tinygpt2.page.weights import page_config, page_shapes, page_weights

SHAPE = GPT2Config(vocab_size=61, context_length=16, n_layer=2, n_head=3, n_embd=24)

SHAPES = {
    "plain": SHAPE,
    "untied": replace(SHAPE, tie_weights=False, n_inner=20),
    "no bias": replace(SHAPE, qkv_bias=False, layer_norm_epsilon=1e-3),
    "scales": replace(SHAPE, scale_attn_by_inverse_layer_idx=True),
    "no scale": replace(SHAPE, scale_attn_weights=False),
    "one head": replace(SHAPE, n_layer=1, n_head=1, n_embd=7),
    "gelu": replace(SHAPE, activation_function="gelu"),
    "relu": replace(SHAPE, activation_function="relu"),
    "silu": replace(SHAPE, activation_function="silu"),
}

ENGINE = """const engine = new web.engine.Engine(given.engine);
const all = async (results) => { const found = []; for await (const each of results) found.push(each); return found; };
"""


def with_large_weights(shape: GPT2Config) -> GPT2Model:
    """Returns a model whose logits differ clearly."""
    model = GPT2Model(shape).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1).mul_(3)
    return model


def given(model: GPT2Model, **others: object) -> dict[str, object]:
    """Returns what an engine is made of, with other values; the last id is the end of text."""
    state = model.state_dict()
    vocabulary = model.config.vocab_size
    engine = {
        "config": page_config(model.config, vocabulary),
        "shapes": page_shapes(state),
        "end": vocabulary - 1,
        "weights": packed(page_weights(state)),
        "snapshots": [],
    }
    return {"engine": engine, **others}


def as_on_the_page(model: GPT2Model) -> GPT2Model:
    """Returns a model with the weights that a page has."""
    same = GPT2Model(model.config).eval()
    same.load_state_dict(restored_weights(rounded_weights(model.state_dict())))
    return same


@pytest.mark.parametrize("name", SHAPES)
def test_the_logits_are_those_of_python(javascript: Callable[..., Any], name: str) -> None:
    model = with_large_weights(SHAPES[name])
    rows = [torch.randint(61, (length,)) for length in (1, 2, 16)]
    found = javascript(
        ENGINE + "const next = async (ids) => Object.values((await all(engine.next({ ids })))[0].logits);"
        "return [await next(given.rows[0]), await next(given.rows[1]), await next(given.rows[2])];",
        given(model, rows=[row.tolist() for row in rows]),
    )
    with torch.no_grad():
        for row, logits in zip(rows, found, strict=True):
            expected = as_on_the_page(model)(row.unsqueeze(0))[0, -1]
            torch.testing.assert_close(torch.tensor(logits), expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("name", SHAPES)
def test_greedy_text_is_that_of_python_token_for_token(javascript: Callable[..., Any], name: str) -> None:
    model = with_large_weights(SHAPES[name])
    found = javascript(
        ENGINE + "const write = engine.write({ ids: [5, 3], count: 14, dials: { temperature: 0, seed: 0 } });"
        "return (await all(write)).map(({ token }) => token);",
        given(model),
    )
    expected = generate(as_on_the_page(model), torch.tensor([[5, 3]]), max_new_tokens=14, eos_id=60)
    assert found == expected[0, 2:].tolist()


@pytest.mark.parametrize("context_length", [1, 2, 15, 16])
def test_a_full_context_keeps_its_newest_half(javascript: Callable[..., Any], context_length: int) -> None:
    """As in Python, where that is one of two ways; the other would be many times slower."""
    model = with_large_weights(replace(SHAPE, context_length=context_length))
    found = javascript(
        ENGINE + "const write = engine.write({ ids: given.ids, count: 40, dials: { temperature: 0, seed: 0 } });"
        "return (await all(write)).map(({ token }) => token);",
        given(model, ids=[(7 * i) % 60 for i in range(20)]),
    )
    tokens = torch.tensor([[(7 * i) % 60 for i in range(20)]])
    expected = generate(as_on_the_page(model), tokens, max_new_tokens=40, eos_id=60, overflow="restart")
    assert found == expected[0, 20:].tolist()


def test_a_text_without_tokens_begins_after_an_end_of_text(javascript: Callable[..., Any]) -> None:
    found = javascript(
        ENGINE + "const next = async (ids) => Object.values((await all(engine.next({ ids })))[0].logits);"
        "return [await next([]), await next([60])];",
        given(with_large_weights(SHAPE)),
    )
    assert found[0] == found[1]


def test_an_end_of_text_ends_what_is_written(javascript: Callable[..., Any]) -> None:
    model = with_large_weights(SHAPE)
    with torch.no_grad():
        model.ln_f.weight.zero_()
        model.wte.weight[60] = 100 * model.ln_f.bias  # then always the likeliest
    found = javascript(
        ENGINE + "const write = engine.write({ ids: [1], count: 9, dials: { temperature: 0, seed: 0 } });"
        "return (await all(write)).map(({ token }) => token);",
        given(model),
    )
    assert found == [60]


def test_what_was_read_before_changes_nothing(javascript: Callable[..., Any]) -> None:
    """The keys and values of a common beginning stay."""
    texts = [[1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 9], [1], [1, 2, 3], [*range(30)], [*range(1, 31)], [4]]
    found = javascript(
        ENGINE + "const next = async (ids) => Object.values((await all(engine.next({ ids })))[0].logits);"
        "const rows = []; for (const ids of given.texts) rows.push(await next(ids)); return rows;",
        given(model := with_large_weights(SHAPE), texts=texts),
    )
    with torch.no_grad():
        for text, logits in zip(texts, found, strict=True):
            expected = as_on_the_page(model)(torch.tensor([text[-16:]]))[0, -1]
            torch.testing.assert_close(torch.tensor(logits), expected, atol=1e-3, rtol=1e-4)


def test_the_largest_are_those_of_a_stable_sort(javascript: Callable[..., Any]) -> None:
    rows = [torch.randn(50).tolist(), torch.randint(4, (50,)).tolist(), [1.0]]
    found = javascript("return given.map((row) => [1, 8, 99].map((count) => web.sampling.largest(row, count)));", rows)
    for row, each in zip(rows, found, strict=True):
        order = sorted(range(len(row)), key=lambda i: -row[i])
        assert each == [order[:1], order[:8], order]


def test_a_snapshot_is_used_where_it_is_asked_for(javascript: Callable[..., Any]) -> None:
    models = [with_large_weights(SHAPE) for _ in range(3)]
    asked = given(models[0])
    asked["engine"]["snapshots"] = [packed(page_weights(model.state_dict())) for model in models[1:]]  # type: ignore[index]
    found = javascript(
        ENGINE
        + "const next = async (snapshot) => Object.values((await all(engine.next({ ids: [4], snapshot })))[0].logits);"
        "return [await next(null), await next(0), await next(1), await next(0), await next(null)];",
        asked,
    )
    assert found[0] == found[4] != found[1] == found[3] != found[2] != found[0]
    with torch.no_grad():
        for model, logits in zip(models, found, strict=False):
            expected = as_on_the_page(model)(torch.tensor([[4]]))[0, -1]
            torch.testing.assert_close(torch.tensor(logits), expected, atol=1e-3, rtol=1e-4)


def test_the_past_is_seen_beside_the_present(javascript: Callable[..., Any]) -> None:
    models = [with_large_weights(SHAPE) for _ in range(2)]
    asked = given(models[0])
    asked["engine"]["snapshots"] = [packed(page_weights(models[1].state_dict()))]  # type: ignore[index]
    found = javascript(
        ENGINE + "const dials = { temperature: 0, seed: 0 };"
        "const seen = await all(engine.learned({ ids: [4, 2], count: 3, dials, snapshot: 0 }));"
        "const tokens = seen.slice(2).map((each) => each.token);"
        "return [Object.values(seen[0].trained), Object.values(seen[1].logits), tokens];",
        asked,
    )
    with torch.no_grad():
        for model, logits in zip(models, found, strict=False):
            expected = as_on_the_page(model)(torch.tensor([[4, 2]]))[0, -1]
            torch.testing.assert_close(torch.tensor(logits), expected, atol=1e-3, rtol=1e-4)
    expected = generate(as_on_the_page(models[1]), torch.tensor([[4, 2]]), max_new_tokens=3, eos_id=60)
    assert found[2] == expected[0, 2:].tolist()


def test_what_is_seen_inside_is_what_was_computed(javascript: Callable[..., Any]) -> None:
    model = with_large_weights(SHAPE)
    found = javascript(
        ENGINE + "const [seen] = await all(engine.inside({ ids: [3, 1, 4, 1, 5] }));"
        "return { ...seen, embeddings: seen.embeddings.map((row) => Object.values(row)) };",
        given(model),
    )
    python = as_on_the_page(model)
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    with torch.no_grad():
        embedded = (python.wte(tokens) + python.wpe(torch.arange(5)))[0]
        logits = python(tokens)[0, -1]
    torch.testing.assert_close(torch.tensor(found["embeddings"]), embedded, atol=1e-5, rtol=1e-5)
    assert [len(row) for row in found["attention"][1][2]] == [1, 2, 3, 4, 5]
    for layer in found["attention"]:
        for head in layer:
            assert all(sum(row) == pytest.approx(1) for row in head)
    assert len(found["guesses"]) == 3  # before the first block, and after each
    best, share = found["guesses"][-1][0]
    assert best == int(logits.argmax())
    assert share == pytest.approx(float(logits.softmax(-1).max()), abs=1e-4)


class Noted:
    """A sampler that notes the probabilities that it would draw from."""

    seen: torch.Tensor

    def __call__(self, logits: torch.Tensor, /, **_: object) -> torch.Tensor:
        self.seen = torch.softmax(logits[0], -1)
        return logits.argmax(-1)


SETTINGS = [
    {"temperature": temperature, "topK": k, "topP": p}
    for temperature in (0.05, 0.8, 1, 2)
    for k in (1, 3, 50, 1000)
    for p in (0.05, 0.5, 0.9, 1)
]


def test_the_dials_leave_the_probabilities_that_the_samplers_draw_from(javascript: Callable[..., Any]) -> None:
    rows = [torch.randn(90) * 3, torch.zeros(90), torch.randint(4, (90,)).float()]  # also with many ties
    found = javascript(
        """const shares = (row, dials) => Array.from(web.sampling.probabilities(row, dials));
        return given.rows.map((row) => given.settings.map((dials) => shares(row, dials)));""",
        {"rows": [row.tolist() for row in rows], "settings": SETTINGS},
    )
    for row, shares in zip(rows, found, strict=True):
        for setting, share in zip(SETTINGS, shares, strict=True):
            noted = Noted()
            sampler = TopKSampler(
                int(setting["topK"]),
                then=TopPSampler(setting["topP"], then=TemperatureSampler(setting["temperature"], then=noted)),
            )
            sampler(row.unsqueeze(0))
            torch.testing.assert_close(torch.tensor(share, dtype=torch.float32), noted.seen, atol=1e-6, rtol=1e-5)


def test_a_temperature_of_zero_is_greedy(javascript: Callable[..., Any]) -> None:
    row = torch.tensor([0.0, 2.0, 2.0, 1.0])
    found = javascript("return Array.from(web.sampling.probabilities(given, { temperature: 0 }));", row.tolist())
    assert found == [0, 1, 0, 0]
    assert int(GreedySampler()(row.unsqueeze(0))) == 1


def test_a_draw_has_the_probabilities_and_a_seed_repeats_it(javascript: Callable[..., Any]) -> None:
    """Of 20,000 draws each share is within five standard deviations: fewer than one run in 10^5 fails by chance."""
    shares = [0.5, 0.0, 0.3, 0.2]
    found = javascript(
        """const { draw, uniformAt } = web.sampling;
        const counts = [0, 0, 0, 0];
        for (let place = 0; place < 20000; place++) counts[draw(given, uniformAt(7, place))] += 1;
        return [counts, draw(given, 0), draw(given, 1), uniformAt(7, 3) === uniformAt(7, 3), uniformAt(8, 3)];""",
        shares,
    )
    for count, share in zip(found[0], shares, strict=True):
        assert abs(count - 20000 * share) <= 5 * (20000 * share * (1 - share)) ** 0.5
    assert found[1:4] == [0, 3, True]


def test_copied_stretches_are_found(javascript: Callable[..., Any]) -> None:
    training = "The quick brown fox jumps over the lazy dog. A second sentence stands here, too."
    text = "So quick brown fox jumps over a wall. A second sentence stands there, and quick brown f"
    found = javascript(
        "return [6, 20, 200].map((length) => web.copies.copiedStretches(given.text, given.training, length));",
        {"text": text, "training": training},
    )
    stretches = [[text[begin:end] for begin, end in each] for each in found]
    assert stretches[1] == [" quick brown fox jumps over ", ". A second sentence stands "]
    assert stretches[2] == []
    marked = {i for begin, end in found[0] for i in range(begin, end)}
    every = {
        i for begin in range(len(text) - 5) if text[begin : begin + 6] in training for i in range(begin, begin + 6)
    }
    assert marked == every
