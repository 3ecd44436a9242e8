"""The key-value cache, held against the full forward.

Everything is in double precision, where rounding is 1e-15 and any mistake is larger than ``TOLERANCE``.
"""

import copy
import functools
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from tinygpt2 import GPT2Config, GPT2Model, KVCache

TOLERANCE = 1e-10
CONFIG = GPT2Config(vocab_size=61, context_length=16, n_layer=2, n_head=3, n_embd=24)


@functools.cache
def model() -> GPT2Model:
    """A model in which no weight and no bias is zero, or one."""
    torch.manual_seed(0)
    model = GPT2Model(CONFIG).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model.requires_grad_(requires_grad=False)


def random_tokens(seed: int, *shape: int) -> Tensor:
    return torch.randint(CONFIG.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def make_cache(batch_size: int, padding: Tensor | None = None, capacity: int | None = None) -> KVCache:
    return KVCache(CONFIG, batch_size, padding=padding, capacity=capacity, dtype=torch.float64)


def in_pieces(tokens: Tensor, cache: KVCache, cuts: set[int]) -> Tensor:
    """Returns the logits of tokens that are fed to the model in pieces, cut where ``cuts`` says."""
    width = tokens.shape[1]
    bounds = [0, *sorted(cut for cut in cuts if cut < width), width]
    return torch.cat([model()(tokens[:, start:end], cache) for start, end in pairwise(bounds)], dim=1)


def assert_equal(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE)


batches = st.integers(1, 4)
widths = st.integers(1, CONFIG.context_length)
cut_points = st.sets(st.integers(1, CONFIG.context_length - 1))
seeds = st.integers(0, 2**32)
one_by_one = set(range(1, CONFIG.context_length))


@given(batches, widths, cut_points, seeds)
@example(3, 1, set(), 0)
@example(3, CONFIG.context_length, set(), 0)
@example(3, CONFIG.context_length, one_by_one, 0)
@example(2, CONFIG.context_length, {7}, 0)
def test_a_sequence_in_pieces_gives_the_logits_of_the_whole(batch: int, width: int, cuts: set[int], seed: int) -> None:
    tokens = random_tokens(seed, batch, width)
    cache = make_cache(batch)
    assert_equal(in_pieces(tokens, cache, cuts), model()(tokens))
    assert cache.length == width


@given(st.lists(widths, min_size=1, max_size=4), cut_points, seeds)
@example([1, CONFIG.context_length, 5], one_by_one, 0)
@example([3, 2, 1], set(), 0)
@example([2, 2], {1}, 0)
def test_padded_rows_equal_each_row_alone(lengths: list[int], cuts: set[int], seed: int) -> None:
    width = max(lengths)
    padding = torch.tensor([width - length for length in lengths])
    tokens = random_tokens(seed, len(lengths), width)
    logits = in_pieces(tokens, make_cache(len(lengths), padding), cuts)
    for row, unused in enumerate(padding.tolist()):
        alone = model()(tokens[row : row + 1, unused:])
        assert_equal(logits[row, unused:], alone[0])


@given(st.lists(widths, min_size=1, max_size=4), cut_points, seeds, seeds)
@example([1, CONFIG.context_length], one_by_one, 1, 2)
def test_what_stands_in_the_padding_is_never_seen(
    lengths: list[int], cuts: set[int], seed: int, other_seed: int
) -> None:
    width = max(lengths)
    padding = torch.tensor([width - length for length in lengths])
    is_padding = torch.arange(width) < padding.unsqueeze(1)
    tokens = random_tokens(seed, len(lengths), width)
    others = torch.where(is_padding, random_tokens(other_seed, len(lengths), width), tokens)
    first = in_pieces(tokens, make_cache(len(lengths), padding), cuts)
    second = in_pieces(others, make_cache(len(lengths), padding), cuts)
    assert_equal(first[~is_padding], second[~is_padding])
    assert first.isfinite().all()  # NaN in the padding would reach the others as NaN times 0


def test_no_padding_equals_padding_of_nothing() -> None:
    tokens = random_tokens(0, 2, CONFIG.context_length)
    nothing = torch.zeros(2, dtype=torch.int64)
    assert_equal(in_pieces(tokens, make_cache(2, nothing), {4, 5}), in_pieces(tokens, make_cache(2), {4, 5}))


def test_slots_that_are_not_filled_are_never_seen() -> None:
    tokens = random_tokens(0, 2, 9)
    cache = make_cache(2)
    cache.keys.fill_(torch.nan)
    cache.values.fill_(torch.nan)
    assert_equal(in_pieces(tokens, cache, {3, 4, 7}), model()(tokens))


def test_reset_forgets_everything_and_keeps_the_memory() -> None:
    cache = make_cache(2, padding=torch.tensor([3, 0]))
    in_pieces(random_tokens(0, 2, CONFIG.context_length), cache, {5})
    memory = cache.keys.data_ptr(), cache.values.data_ptr()
    tokens = random_tokens(1, 2, 8)

    cache.reset()
    assert cache.length == 0
    assert_equal(in_pieces(tokens, cache, {2}), model()(tokens))

    cache.reset(torch.tensor([0, 6]))
    logits = in_pieces(tokens, cache, {2})
    assert_equal(logits[:1], model()(tokens[:1]))
    assert_equal(logits[1:, 6:], model()(tokens[1:, 6:]))
    assert (cache.keys.data_ptr(), cache.values.data_ptr()) == memory


@pytest.mark.parametrize("capacity", [1, 5, CONFIG.context_length])
def test_a_token_past_the_capacity_is_an_error_and_changes_nothing(capacity: int) -> None:
    tokens = random_tokens(0, 2, capacity)
    cache = make_cache(2, capacity=capacity)
    first = model()(tokens[:, :-1], cache) if capacity > 1 else model()(tokens)[:, :0]
    with pytest.raises(ValueError, match=rf"{capacity} slots and {capacity - 1} are filled, so 2 more.* reset"):
        model()(tokens[:, :1].repeat(1, 2) if capacity > 1 else random_tokens(0, 2, 2), cache)
    last = model()(tokens[:, -1:], cache)  # exactly full is no error
    assert_equal(torch.cat([first, last], dim=1), model()(tokens))
    with pytest.raises(ValueError, match=f"{capacity} are filled"):
        model()(tokens[:, -1:], cache)


def test_a_call_that_fails_leaves_the_cache_as_it_was() -> None:
    tokens = random_tokens(0, 2, 6)
    cache = make_cache(2)
    first = model()(tokens[:, :4], cache)
    with pytest.raises(ValueError, match="vocabulary"):
        model()(torch.full((2, 1), CONFIG.vocab_size), cache)
    with pytest.raises(ValueError, match="batch of 2, but 3"):
        model()(random_tokens(0, 3, 1), cache)
    assert cache.length == 4
    assert_equal(torch.cat([first, model()(tokens[:, 4:], cache)], dim=1), model()(tokens))


def test_hidden_states_continue_a_cache_too() -> None:
    tokens = random_tokens(0, 2, 6)
    cache = make_cache(2)
    first = model().hidden_states(tokens[:, :4], cache)
    assert_equal(torch.cat([first, model().hidden_states(tokens[:, 4:], cache)], 1), model().hidden_states(tokens))


def test_shapes_and_defaults() -> None:
    cache = KVCache(CONFIG, 5)
    assert cache.keys.shape == cache.values.shape == (2, 5, 3, 16, 8)
    assert (cache.batch_size, cache.capacity, cache.length) == (5, 16, 0)
    assert cache.keys.dtype == torch.get_default_dtype()
    assert KVCache(CONFIG, 1, capacity=3, dtype=torch.bfloat16).values.dtype == torch.bfloat16


@given(st.integers(0, 6), st.integers(1, 6), st.none() | st.lists(st.integers(0, 8), min_size=1, max_size=3))
def test_masks_and_positions_are_what_they_are_defined_as(length: int, n: int, padding: list[int] | None) -> None:
    rows = padding or [0, 0]
    cache = make_cache(len(rows), None if padding is None else torch.tensor(padding))
    cache.advance(length)
    mask = cache.attention_mask(n)
    if mask is None:  # only where the model's own causal mask, or none, is right
        assert padding is None
        assert n == 1 or length == 0
    else:
        allowed = mask.expand(len(rows), 1, n, length + n)
        for row, unused in enumerate(rows):
            for query in range(length, length + n):
                seen = list(range(unused, query + 1)) or [query]  # padding sees itself, lest it be NaN
                assert allowed[row, 0, query - length].nonzero().flatten().tolist() == seen
    positions = cache.positions(n).expand(len(rows), n).tolist()
    assert positions == [[max(0, slot - unused) for slot in range(length, length + n)] for unused in rows]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"capacity": 0}, "capacity must be at least 1, got 0"),
        ({"capacity": 17}, "capacity is 17, but .* context_length=16"),
        ({"padding": torch.tensor([0, 0, 0])}, r"padding must have shape \(2,\), got \(3,\)"),
        ({"padding": torch.tensor([[0, 0]])}, r"padding must have shape \(2,\), got \(1, 2\)"),
    ],
)
def test_wrong_arguments_are_told(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KVCache(CONFIG, **({"batch_size": 2} | options))  # type: ignore[arg-type]


def test_reset_checks_the_padding_and_keeps_what_it_has() -> None:
    tokens = random_tokens(0, 2, 6)
    cache = make_cache(2)
    first = model()(tokens[:, :4], cache)
    with pytest.raises(ValueError, match=r"padding must have shape \(2,\), got \(1,\)"):
        cache.reset(torch.tensor([1]))
    assert_equal(torch.cat([first, model()(tokens[:, 4:], cache)], dim=1), model()(tokens))


@pytest.mark.parametrize("padding", [[-1, 0], [1.0, 0.0], [True, False]])
def test_padding_is_a_count(padding: list[float]) -> None:
    """A negative one would shift the row's positions, and be seen by nobody until they run out."""
    with pytest.raises(ValueError, match="padding"):
        make_cache(2, torch.tensor(padding))


@pytest.mark.parametrize(
    "other",
    [
        replace(CONFIG, n_layer=1),
        replace(CONFIG, n_layer=3),
        replace(CONFIG, n_head=4),
        replace(CONFIG, n_embd=48),
        replace(CONFIG, context_length=32),
    ],
    ids=["fewer layers", "more layers", "other heads", "wider", "longer"],
)
def test_a_cache_of_another_shape_is_an_error(other: GPT2Config) -> None:
    """Else it is an obscure error from deep inside, perhaps only once the positions run out, or goes unseen."""
    cache = KVCache(other, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="cache"):
        model()(random_tokens(0, 2, 5), cache)


# dtype


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_cache_takes_the_dtype_of_the_first_keys(dtype: torch.dtype) -> None:
    """A model of another dtype than PyTorch's default one used to fail inside of the attention."""
    typed = copy.deepcopy(model()).to(dtype)
    cache = KVCache(CONFIG, 2)
    tokens = random_tokens(0, 2, 6)
    logits = torch.cat([typed(tokens[:, :4], cache), typed(tokens[:, 4:], cache)], dim=1)
    assert cache.keys.dtype == cache.values.dtype == logits.dtype == dtype
    room = {torch.float64: TOLERANCE, torch.float32: 1e-4}.get(dtype, 0.3)
    torch.testing.assert_close(logits, typed(tokens), rtol=0, atol=room)


def test_a_dtype_that_was_asked_for_stays_and_the_model_gets_its_own_back() -> None:
    cache = KVCache(CONFIG, 2, dtype=torch.float32)
    tokens = random_tokens(0, 2, 6)
    logits = in_pieces(tokens, cache, {2, 5})
    assert cache.keys.dtype == torch.float32
    assert logits.dtype == torch.float64
    torch.testing.assert_close(logits, model()(tokens), rtol=0, atol=1e-4)


def test_the_dtype_is_taken_once() -> None:
    cache = KVCache(CONFIG, 2)
    in_pieces(random_tokens(0, 2, 3), cache, set())
    cache.reset()
    copy.deepcopy(model()).float()(random_tokens(0, 2, 3), cache)
    assert cache.keys.dtype == torch.float64


def test_a_cache_goes_on_when_autocast_begins() -> None:
    single = copy.deepcopy(model()).float()
    tokens, cache = random_tokens(0, 2, 6), KVCache(CONFIG, 2)
    first = single(tokens[:, :4], cache)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        last = single(tokens[:, 4:], cache)
    torch.testing.assert_close(torch.cat([first, last.float()], dim=1), single(tokens), rtol=0, atol=0.3)


# Gradients


def gradients_of(loss: Tensor, trained: GPT2Model) -> list[Tensor]:
    """Returns the gradients of the weights, of which the last positions have none."""
    return list(torch.autograd.grad(loss, list(trained.parameters())))


@given(batches, widths, cut_points, seeds)
@example(2, CONFIG.context_length, one_by_one, 0)
@example(2, CONFIG.context_length, set(), 0)
def test_gradients_flow_through_a_cache_as_through_the_whole(batch: int, width: int, cuts: set[int], seed: int) -> None:
    """In PyTorch's words a tensor that they need "has been modified by an inplace operation"."""
    trained = copy.deepcopy(model()).requires_grad_()
    tokens = random_tokens(seed, batch, width)
    cache = make_cache(batch)
    bounds = [0, *sorted(cut for cut in cuts if cut < width), width]
    logits = torch.cat([trained(tokens[:, start:end], cache) for start, end in pairwise(bounds)], dim=1)
    for actual, expected in zip(
        gradients_of(logits.sin().sum(), trained), gradients_of(trained(tokens).sin().sum(), trained), strict=True
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def test_padded_rows_have_the_gradients_of_each_row_alone() -> None:
    trained = copy.deepcopy(model()).requires_grad_()
    tokens = random_tokens(0, 2, 6)
    cache = make_cache(2, torch.tensor([2, 0]))
    logits = torch.cat([trained(tokens[:, :4], cache), trained(tokens[:, 4:], cache)], dim=1)
    alone = trained(tokens[:1, 2:]).sin().sum() + trained(tokens[1:]).sin().sum()
    together = logits[0, 2:].sin().sum() + logits[1].sin().sum()
    for actual, expected in zip(gradients_of(together, trained), gradients_of(alone, trained), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def test_what_was_cached_without_gradients_is_a_constant() -> None:
    trained = copy.deepcopy(model()).requires_grad_()
    tokens = random_tokens(0, 2, 9)
    cache = make_cache(2)
    with torch.no_grad():
        trained(tokens[:, :4], cache)
    first = trained(tokens[:, 4:6], cache)
    with torch.no_grad():
        trained(tokens[:, 6:8], cache)
    last = trained(tokens[:, 8:], cache)
    assert_equal(torch.cat([first, last], dim=1).detach(), model()(tokens)[:, [4, 5, 8]])
    torch.cat([first, last], dim=1).sum().backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in trained.parameters())


def test_positions_that_are_given_up_leave_nothing_behind() -> None:
    """Whoever decodes speculatively takes back the last positions."""
    trained = copy.deepcopy(model()).requires_grad_()
    tokens, others = random_tokens(0, 2, 8), random_tokens(1, 2, 8)
    cache = make_cache(2)
    trained(torch.cat([tokens[:, :3], others[:, 3:6]], dim=1), cache)
    cache.length = 3
    with torch.no_grad():
        trained(tokens[:, 3:5], cache)
    assert_equal(trained(tokens[:, 5:], cache).detach(), model()(tokens)[:, 5:])
    cache.reset()
    assert_equal(trained(others, cache).detach(), model()(others))


@pytest.mark.parametrize("trainable", [True, False])
def test_no_graph_is_kept_where_nobody_wants_gradients(trainable: bool) -> None:
    frozen = copy.deepcopy(model()).requires_grad_(trainable)
    cache = make_cache(2)
    with torch.set_grad_enabled(not trainable):
        frozen(random_tokens(0, 2, 4), cache)
    assert not cache._graphs
    assert not cache.keys.requires_grad


# Inference mode, devices


@pytest.mark.parametrize("made", [True, False])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("explicit", [True, False])
def test_inference_mode_may_begin_and_end_while_a_cache_is_in_use(
    made: bool,
    first: bool,
    explicit: bool,
) -> None:
    tokens = random_tokens(0, 2, 6)
    with torch.inference_mode(made):
        cache = KVCache(CONFIG, 2, dtype=torch.float64 if explicit else None)
    with torch.inference_mode(first), torch.no_grad():
        before = model()(tokens[:, :4], cache)
    with torch.inference_mode(not first), torch.no_grad():
        after = model()(tokens[:, 4:], cache)
    assert_equal(torch.cat([before.clone(), after.clone()], dim=1), model()(tokens))


def test_all_lies_where_the_cache_does() -> None:
    cache = KVCache(CONFIG, 2, device="cpu", padding=torch.tensor([1, 0]))
    with torch.device("meta"):
        mask, positions = cache.attention_mask(3), cache.positions(3)
        keys, _ = cache.update(0, torch.ones(2, 3, 4, 8, device="cpu"), torch.ones(2, 3, 4, 8, device="cpu"))
    assert mask is not None
    assert {mask.device.type, positions.device.type, keys.device.type, cache.keys.device.type} == {"cpu"}


NEW = torch.zeros(2, 3, 4, 8)  # of four positions


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"config": None}, TypeError, r"config must be a GPT2Config, such as model\.config, got None \(NoneType\)"),
        ({"config": model}, TypeError, "config must be a GPT2Config"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"batch_size": 2**31}, ValueError, "batch_size must be at most 2147483647"),
        ({"batch_size": 10**30}, ValueError, "batch_size must be at most 2147483647"),
        ({"capacity": 2.0}, TypeError, "capacity must be an integer"),
        ({"padding": [0, 1]}, TypeError, r"padding must be a tensor, \(2,\), got \[0, 1\] \(list\)"),
        ({"padding": torch.zeros(2)}, ValueError, "padding must hold integers"),
        ({"device": "gpu"}, ValueError, "there is no device 'gpu' here; available: .*cpu"),
        ({"device": True}, TypeError, "device must be a torch.device or the name of one"),
        ({"dtype": "bf16"}, TypeError, "dtype must be a torch.dtype, got 'bf16'"),
        ({"dtype": torch.int64}, ValueError, "dtype must be floating point, such as torch.bfloat16, got torch.int64"),
    ],
)
def test_what_makes_no_cache_is_told(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        KVCache(**{"config": CONFIG, "batch_size": 2, **arguments})


@pytest.mark.parametrize("method", ["positions", "attention_mask", "advance"])
@pytest.mark.parametrize(
    ("n", "error", "message"),
    [
        (-1, ValueError, "n must be at least 0, got -1"),
        (5, ValueError, "n must be at most 4, got 5"),
        (2**63, ValueError, "n must be at most 4"),
        (1.5, TypeError, r"n must be an integer, got 1\.5"),
        (None, TypeError, "n must be an integer, got None"),
        (True, TypeError, "n must be an integer, got True"),
    ],
)
def test_only_free_slots_can_be_filled(method: str, n: Any, error: type[Exception], message: str) -> None:  # noqa: ANN401
    cache = make_cache(2, capacity=7)
    cache.advance(3)
    with pytest.raises(error, match=message):
        getattr(cache, method)(n)
    assert cache.length == 3


@pytest.mark.parametrize(
    ("layer", "keys", "values", "error", "message"),
    [
        (2, NEW, NEW, ValueError, "layer must be at most 1, got 2"),
        (-1, NEW, NEW, ValueError, "layer must be at least 0, got -1"),
        (None, NEW, NEW, TypeError, "layer must be an integer"),
        (0, None, NEW, TypeError, "keys must be a tensor"),
        (0, NEW, [0.0], TypeError, "values must be a tensor"),
        (0, NEW, NEW[:1], ValueError, r"shape \(2, 3, n, 8\), got \(2, 3, 4, 8\) and \(1, 3, 4, 8\)"),
        (0, NEW[0], NEW[0], ValueError, r"shape \(2, 3, n, 8\), got \(3, 4, 8\)"),
        (0, NEW[..., :7], NEW[..., :7], ValueError, r"shape \(2, 3, n, 8\), got \(2, 3, 4, 7\)"),
        (0, torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8), ValueError, "n must be at most 7, got 8"),
    ],
)
def test_keys_and_values_that_do_not_fit_are_told(
    layer: Any,  # noqa: ANN401
    keys: Any,  # noqa: ANN401
    values: Any,  # noqa: ANN401
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        make_cache(2, capacity=7).update(layer, keys, values)


@pytest.mark.parametrize("cache", [3, "cache", {}, KVCache], ids=repr)
def test_what_is_no_cache_is_told(cache: Any) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match="cache must be a KVCache or None, got"):
        model()(torch.tensor([[1]]), cache)


def test_a_cache_on_another_device_is_told() -> None:
    with pytest.raises(ValueError, match=r"the cache is on meta, but the tokens are on cpu; .* device=model\.device"):
        model()(torch.tensor([[1]]), KVCache(CONFIG, 1, device="meta"))
