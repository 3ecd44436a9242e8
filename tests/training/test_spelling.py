"""Updates that tokens of similar spelling share: those of an embedding that is a sum, in every kind of run."""

import copy
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.distributed.checkpoint.state_dict as dcp
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer
from typing_extensions import override

from tinygpt2 import (
    CharTokenizer,
    GPT2Config,
    GPT2Model,
    IncompatibleRunError,
    NextTokenLoss,
    TrainingConfig,
    TrainState,
    make_dataloader,
    make_optimizer,
    on_step,
    train,
    training_step,
)
from tinygpt2.tokenizers.spelling import spelling_of
from tinygpt2.training.muon import Muon
from tinygpt2.training.spelling import Incidence, SharedUpdates, token_embeddings

Name = Literal["adamw", "muon"]

TOKENIZER = CharTokenizer("aAbBcCdD éÉ好!?", byte_fallback=True)  # 14 characters, 256 bytes and the end of text
ROWS = TOKENIZER.n_vocab + 2  # the model has two more
SHAPE = GPT2Config(vocab_size=ROWS, context_length=8, n_layer=1, n_head=2, n_embd=16, dropout=0.0)
CONFIG = TrainingConfig(spelling=True, learning_rate=0.01, weight_decay=0.5, max_steps=6, schedule="cosine")
both = pytest.mark.parametrize("optimizer", ["adamw", "muon"])


def incidence(vocab_size: int = ROWS) -> Incidence:
    spelling = spelling_of(TOKENIZER)
    assert spelling is not None
    return Incidence.of(spelling, vocab_size, torch.device("cpu"))


def dense(dtype: torch.dtype = torch.float64) -> Tensor:
    """Returns S, (V, features)."""
    spelling = spelling_of(TOKENIZER)
    assert spelling is not None
    matrix = torch.zeros(ROWS, spelling.count, dtype=dtype)
    for token in range(TOKENIZER.n_vocab):
        for feature in spelling.features[spelling.starts[token] : spelling.starts[token + 1]]:
            matrix[token, feature] = 1
    return matrix / matrix.sum(1, keepdim=True).clamp(min=1).sqrt()


def new_model(**changes: Any) -> GPT2Model:  # noqa: ANN401 - any of the shape
    torch.manual_seed(3)
    return GPT2Model(replace(SHAPE, **changes))


def batch(seed: int, rows: int = 3) -> tuple[Tensor, Tensor]:
    ids = torch.randint(ROWS - 2, (rows, 9), generator=torch.Generator().manual_seed(seed))
    return ids[:, :-1], ids[:, 1:]


# --- the mathematics ---


class Sum(nn.Module):
    """Makes a weight the sum of its own and of the product of S and F."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = nn.Parameter(features)
        self.register_buffer("incidence", dense())

    @override
    def forward(self, own: Tensor) -> Tensor:
        product: Tensor = self.get_buffer("incidence") @ self.features
        return own + product


def as_sums(model: GPT2Model, scale: float) -> GPT2Model:
    """Returns a copy whose embeddings are explicit sums of the same value, with any F at first."""
    twin = copy.deepcopy(model)
    for module in filter(None, (twin.wte, twin.lm_head)):
        assert isinstance(module.weight, Tensor)
        before = module.weight.detach().clone()
        features = scale * torch.randn(dense().shape[1], before.shape[1], dtype=torch.float64)
        parametrize.register_parametrization(module, "weight", Sum(features))
        with torch.no_grad():
            module.parametrizations["weight"].original.copy_(before - dense() @ features)  # type: ignore[index, union-attr]
    return twin


@both
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_the_steps_are_those_of_an_embedding_that_is_a_sum(optimizer: Name, tied: bool, scale: float) -> None:
    """Whatever F is at first, which is why the optimizer need not have it."""
    model = new_model(tie_weights=tied).double()
    twin = as_sums(model, scale)
    config = replace(CONFIG, optimizer=optimizer)
    ours, plain = make_optimizer(model, config, TOKENIZER), make_optimizer(twin, replace(config, spelling=False))
    for step in range(8):
        for module, each in ((model, ours), (twin, plain)):
            for group in each.param_groups:
                group["lr"] = 0.01 / (step + 1)
            training_step(NextTokenLoss(module), each, [batch(step)], max_grad_norm=None, seed=step)
        torch.testing.assert_close(model.wte.weight, twin.wte.weight, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(model.head_weight, twin.head_weight, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(model.wpe.weight, twin.wpe.weight, rtol=1e-7, atol=1e-7)


def test_what_one_token_learns_those_like_it_learn_too() -> None:
    """Without decay a row without gradient has the shared update alone; the end of text and padding have none."""
    model = new_model(tie_weights=False)
    optimizer = make_optimizer(model, replace(CONFIG, weight_decay=0.0), TOKENIZER)
    before = model.wte.weight.detach().clone()
    model.wte.weight.grad = torch.zeros_like(before)
    model.wte.weight.grad[TOKENIZER.encode_ordinary("a")[0]] = 1
    optimizer.step()
    change = (model.wte.weight.detach() - before)[:, 0]
    a, capital, other = (change[i].item() for i in TOKENIZER.encode_ordinary("aA!"))
    assert a < capital < other < 0
    assert change[TOKENIZER.n_vocab - 1 :].tolist() == [0, 0, 0]
    assert model.lm_head is not None
    assert model.lm_head.weight not in optimizer.state  # it had no gradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_products_are_those_of_the_matrix(dtype: torch.dtype) -> None:
    matrix, sparse = dense(dtype), incidence()
    relative, absolute = (0.02, 0.2) if dtype == torch.bfloat16 else (1e-5, 1e-5)
    features, embedding = torch.randn(matrix.shape[1], 5).to(dtype), torch.randn(ROWS, 5).to(dtype)
    torch.testing.assert_close(sparse.times(features), matrix @ features, rtol=relative, atol=absolute)
    torch.testing.assert_close(sparse.transposed_times(embedding), matrix.T @ embedding, rtol=relative, atol=absolute)


def test_the_number_of_threads_changes_no_bit() -> None:
    sparse, features, embedding = incidence(), torch.randn(dense().shape[1], 33), torch.randn(ROWS, 33)
    expected = sparse.times(features), sparse.transposed_times(embedding)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(sparse.times(features), expected[0])
        assert torch.equal(sparse.transposed_times(embedding), expected[1])
    finally:
        torch.set_num_threads(threads)


def test_tokens_without_anything_in_common_are_trained_as_ever() -> None:
    tokenizer = CharTokenizer("好")  # and the end of text: one token with features, which it shares with none
    models = [GPT2Model(replace(SHAPE, vocab_size=2)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    for model, spelling in zip(models, (True, False), strict=True):
        optimizer = make_optimizer(model, replace(CONFIG, spelling=spelling), tokenizer)
        ids = torch.tensor([[0, 1, 0, 0]])
        training_step(NextTokenLoss(model), optimizer, [(ids[:, :-1], ids[:, 1:])], seed=0)
    torch.testing.assert_close(models[0].wte.weight, models[1].wte.weight)


@both
def test_micro_batches_are_one_batch(optimizer: Name) -> None:
    inputs, targets = batch(1, 4)
    weights = []
    for parts in ([(inputs, targets)], [(inputs[:1], targets[:1]), (inputs[1:], targets[1:])]):
        model = new_model().double()
        made = make_optimizer(model, replace(CONFIG, optimizer=optimizer), TOKENIZER)
        training_step(NextTokenLoss(model), made, parts, seed=0)
        weights.append(model.wte.weight.detach())
    torch.testing.assert_close(*weights, rtol=1e-9, atol=1e-9)


# --- the optimizer ---


def test_without_spelling_the_optimizers_are_as_before() -> None:
    assert TrainingConfig().spelling is False
    for tokenizer in (None, TOKENIZER):
        plain = replace(CONFIG, spelling=False)
        assert type(make_optimizer(new_model(), plain, tokenizer)) is torch.optim.AdamW
        assert type(make_optimizer(new_model(), replace(plain, optimizer="muon"), tokenizer)) is Muon


@both
@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_is_in_one_group_and_embeddings_have_their_own(optimizer: Name, tied: bool) -> None:
    model = new_model(tie_weights=tied)
    made = make_optimizer(model, replace(CONFIG, optimizer=optimizer), TOKENIZER)
    assert type(made) is SharedUpdates
    parameters = [parameter for group in made.param_groups for parameter in group["params"]]
    assert sorted(map(id, parameters)) == sorted(map(id, model.parameters()))
    (shared,) = [group for group in made.param_groups if group["spelling"]]
    assert [id(p) for p in shared["params"]] == [id(model.wte.weight), *([] if tied else [id(model.head_weight)])]
    assert shared["weight_decay"] == 0.5
    assert any(group["matrices"] for group in made.param_groups) == (optimizer == "muon")


def test_the_model_is_found_in_what_wraps_it() -> None:
    model = new_model(tie_weights=False)
    assert model.lm_head is not None
    for wrapper in (model, NextTokenLoss(model), nn.Sequential(NextTokenLoss(model))):
        found = token_embeddings(wrapper)
        assert [id(weight) for weight in found] == [id(model.wte.weight), id(model.lm_head.weight)]
    model.lm_head.requires_grad_(requires_grad=False)
    assert [id(weight) for weight in token_embeddings(model)] == [id(model.wte.weight)]
    model.lm_head.weight = model.wte.weight
    assert [id(weight) for weight in token_embeddings(model)] == [id(model.wte.weight)]


class Unknown:
    """A tokenizer that does not tell what its tokens are."""

    n_vocab, eot_token = 3, 2
    encode_ordinary = decode = print


def test_what_cannot_be_is_told_with_the_fix() -> None:
    with pytest.raises(ValueError, match=r"needs the tokenizer of the data; pass make_optimizer\(model, config, tok"):
        make_optimizer(new_model(), CONFIG)
    with pytest.raises(ValueError, match=r"needs the text of each token, which <.*Unknown.*> does not tell; pass a "):
        make_optimizer(new_model(), CONFIG, Unknown())
    with pytest.raises(TypeError, match="tokenizer must be an object with n_vocab"):
        make_optimizer(new_model(), CONFIG, "gpt2")
    with pytest.raises(ValueError, match="the tokenizer has 271 ids and the model 200; pass the tokenizer of its data"):
        make_optimizer(new_model(vocab_size=200), CONFIG, TOKENIZER)
    with pytest.raises(ValueError, match="spelling=True is for a GPT2Model, got a Linear; pass spelling=False"):
        make_optimizer(nn.Linear(3, 2), CONFIG, TOKENIZER)
    model = new_model()
    model.wte.requires_grad_(requires_grad=False)
    with pytest.raises(ValueError, match="a token embedding that is trained, but wte is frozen; pass spelling=False"):
        make_optimizer(model, CONFIG, TOKENIZER)
    model.wte = nn.Sequential(nn.Embedding(3, 16))  # type: ignore[assignment]
    with pytest.raises(ValueError, match="but wte was replaced by a Sequential; pass spelling=False"):
        make_optimizer(model, CONFIG, TOKENIZER)
    with pytest.raises(TypeError, match=r"spelling must be True or False, got 1 \(int\)"):
        TrainingConfig(spelling=1)  # type: ignore[arg-type]


def copied(optimizer: Optimizer, model: GPT2Model, how: str) -> tuple[GPT2Model, Optimizer]:
    """Returns copies of a model and its optimizer, in one of the ways in which programs do that."""
    if how == "deepcopy":
        return copy.deepcopy((model, optimizer))
    if how == "pickle":
        pair: tuple[GPT2Model, Optimizer] = pickle.loads(pickle.dumps((model, optimizer)))  # noqa: S301 - our own
        return pair
    twin = copy.deepcopy(model)
    other = make_optimizer(twin, CONFIG, TOKENIZER)
    if how == "state_dict":
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    else:
        flat = dcp.StateDictOptions(flatten_optimizer_state_dict=True)
        saved = copy.deepcopy(dcp.get_optimizer_state_dict(model, optimizer, options=flat))
        dcp.set_optimizer_state_dict(twin, other, saved, options=flat)
    return twin, other


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "state_dict", "flattened"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_copy_takes_the_same_steps(how: str, dtype: torch.dtype) -> None:
    model = new_model().to(dtype)
    optimizer = make_optimizer(model, CONFIG, TOKENIZER)
    for step in range(3):
        training_step(NextTokenLoss(model), optimizer, [batch(step)], seed=step)
    twin, other = copied(optimizer, model, how)
    for module, each in ((model, optimizer), (twin, other)):
        training_step(NextTokenLoss(module), each, [batch(3)], seed=3)
    assert all(map(torch.equal, model.parameters(), twin.parameters()))
    assert all(parameter.dtype == dtype for parameter in twin.parameters())


def test_a_state_for_other_spellings_is_refused() -> None:
    model = new_model()
    optimizer = make_optimizer(model, CONFIG, TOKENIZER)
    other = make_optimizer(new_model(), CONFIG, CharTokenizer("ab", byte_fallback=True))
    optimizer.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match="the state of one for tokens of other spellings; make it with the tokenizer"):
        training_step(NextTokenLoss(model), optimizer, [batch(0)])


def test_a_group_that_is_added_is_trained_without() -> None:
    model = new_model()
    optimizer = make_optimizer(model, CONFIG, TOKENIZER)
    extra = nn.Parameter(torch.ones(3))
    optimizer.add_param_group({"params": [extra]})
    extra.grad = torch.ones(3)
    optimizer.step()
    assert (extra < 1).all()


# --- runs ---


def run(
    directory: Path | None,
    *,
    config: TrainingConfig = CONFIG,
    tokenizer: CharTokenizer | None = TOKENIZER,
    stop: int | None = None,
    **options: Any,  # noqa: ANN401 - of train
) -> tuple[GPT2Model, Optimizer]:
    model, states = new_model(dropout=0.1), list[TrainState]()
    tokens = torch.randint(ROWS - 2, (300,), generator=torch.Generator().manual_seed(1))
    loader = make_dataloader(tokens, batch_size=4, context_length=8, shuffle=True)
    stopping = on_step(lambda state: state.stop() if state.step == stop else None)
    train(
        model,
        loader,
        config=config,
        tokenizer=tokenizer,
        callbacks=[states.append, stopping],
        device="cpu",
        checkpoint_dir=directory,
        resume=directory is not None,
        progress=False,
        **options,
    )
    return model, states[0].optimizer


@both
@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_run_that_was_stopped_ends_with_the_same_bits(tmp_path: Path, optimizer: Name, accumulated: int) -> None:
    config = replace(CONFIG, optimizer=optimizer, gradient_accumulation_steps=accumulated)
    model, whole = run(tmp_path / "whole", config=config)
    for stop in (2, 4):
        run(tmp_path / "broken", config=config, stop=stop)
    again, resumed = run(tmp_path / "broken", config=config)
    assert all(map(torch.equal, model.parameters(), again.parameters()))
    ours, theirs = whole.state[model.wte.weight], resumed.state[again.wte.weight]
    assert list(ours) == list(theirs) == ["step", "exp_avg", "exp_avg_sq", "spelling_exp_avg", "spelling_exp_avg_sq"]
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    files = [(tmp_path / name / "checkpoint-6" / "training_state.safetensors") for name in ("whole", "broken")]
    assert files[0].read_bytes() == files[1].read_bytes()
    plain, _ = run(None, config=replace(config, spelling=False))
    assert not torch.equal(plain.wte.weight, model.wte.weight)


@both
def test_another_tokenizer_is_refused_and_so_is_a_change_of_spelling(tmp_path: Path, optimizer: Name) -> None:
    config = replace(CONFIG, optimizer=optimizer)
    run(tmp_path, config=config, stop=3)
    other = CharTokenizer("aAbBcCdD éÈ好!?", byte_fallback=True)
    for allowed in (False, True):
        with pytest.raises(IncompatibleRunError) as caught:
            run(tmp_path, config=config, tokenizer=other, allow_changes=allowed)
        assert caught.value.differences == ("the tokenizer had tokens of other spellings",)
        with pytest.raises(IncompatibleRunError) as caught:
            run(tmp_path, config=replace(config, spelling=False), allow_changes=allowed)
        assert "optimizer was tinygpt2.training.spelling.SharedUpdates and is" in caught.value.differences[0]
        assert caught.value.differences[-1] == "the spelling was True and is False"


def test_an_optimizer_of_ones_own_is_not_affected() -> None:
    def sgd(model: nn.Module, config: TrainingConfig) -> Optimizer:
        return torch.optim.SGD(model.parameters(), lr=config.learning_rate)

    runs = [run(None, optimizer=sgd, config=replace(CONFIG, spelling=spelling)) for spelling in (True, False)]
    assert type(runs[0][1]) is torch.optim.SGD
    assert all(map(torch.equal, runs[0][0].parameters(), runs[1][0].parameters()))


def test_a_run_without_its_tokenizer_is_told_to_pass_it() -> None:
    with pytest.raises(ValueError, match=r"needs the tokenizer of the data; pass .* or tokenizer=\.\.\. to train"):
        run(None, tokenizer=None)
