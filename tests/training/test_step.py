"""One update of the weights, alone and in a loop of one's own."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tinygpt2._internal.cpu
from tinygpt2 import (
    GPT2Config,
    GPT2Model,
    NextTokenLoss,
    NonFiniteLossError,
    TrainingConfig,
    cross_entropy_loss,
    evaluate,
    learning_rate_at,
    make_dataloader,
    make_optimizer,
    train,
    training_step,
)
from tinygpt2.kernels.dropout import Dropout
from tinygpt2.training.step import seeded_dropout

SHAPE = GPT2Config(vocab_size=61, context_length=16, n_layer=2, n_head=3, n_embd=24, dropout=0.0)
DROPPING = GPT2Config(vocab_size=61, context_length=16, n_layer=2, n_head=3, n_embd=24, dropout=0.3)


def new_model(config: GPT2Config = SHAPE) -> GPT2Model:
    torch.manual_seed(0)
    return GPT2Model(config)


def batch_of(seed: int, rows: int = 4, n: int = 16) -> tuple[Tensor, Tensor]:
    tokens = torch.randint(61, (rows, n + 1), generator=torch.Generator().manual_seed(seed))
    return tokens[:, :-1], tokens[:, 1:].clone()


def stepped(model: GPT2Model, *batches: object, seed: int | None = None, rate: float = 0.1) -> dict[str, Tensor]:
    """Returns the weights after a step of plain gradient descent, which shows a gradient as it is."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    training_step(NextTokenLoss(model), optimizer, list(batches), max_grad_norm=None, seed=seed)
    return model.state_dict()


@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize("slow_mkl", [False, True])
def test_a_loop_of_ones_own_ends_with_the_weights_of_train(
    accumulated: int, *, slow_mkl: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On processors where `train` has its products from another library, a step alone had them from MKL."""
    monkeypatch.setattr(tinygpt2._internal.cpu, "_mkl_is_slow", lambda _: slow_mkl)
    tokens = torch.randint(61, (16 * 24 + 1,))
    config = TrainingConfig(
        learning_rate=1e-2, epochs=2, schedule="cosine", warmup_steps=2, gradient_accumulation_steps=accumulated
    )

    def loader() -> "torch.utils.data.DataLoader[tuple[Tensor, Tensor]]":
        return make_dataloader(tokens, batch_size=4, context_length=16, shuffle=True)

    model, own = new_model(), new_model()
    history = train(model, loader(), config=config, device="cpu", progress=False)

    objective, optimizer, data = NextTokenLoss(own.train()), make_optimizer(own, config), loader()
    total, step = config.epochs * len(data) // accumulated, 0
    for _ in range(config.epochs):
        batches = list(data)
        for i in range(0, len(batches), accumulated):
            step += 1
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step, total, config)
            result = training_step(objective, optimizer, batches[i : i + accumulated])
    assert step == history.steps[-1] == total
    assert result.tokens == 4 * 16 * accumulated
    for name, weight in model.state_dict().items():
        assert torch.equal(own.state_dict()[name], weight), name
    assert evaluate(own, loader()).loss == evaluate(model, loader()).loss


def test_micro_batches_of_any_sizes_are_one_batch() -> None:
    inputs, targets = batch_of(1)
    targets[0, :9] = -100
    parts = [(inputs[:1], targets[:1]), (inputs[1:], targets[1:])]
    one, several = stepped(new_model(), (inputs, targets)), stepped(new_model(), *parts)
    torch.testing.assert_close(several, one, rtol=1e-5, atol=1e-6)


def test_what_it_found_is_what_plain_pytorch_finds() -> None:
    model, (inputs, targets) = new_model().double(), batch_of(1)
    loss = cross_entropy_loss(model(inputs), targets)
    norm = torch.nn.utils.get_total_norm(torch.autograd.grad(loss, list(model.parameters())))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    result = training_step(NextTokenLoss(model), optimizer, [(inputs, targets)])
    assert [result.loss, result.grad_norm, result.tokens] == pytest.approx([loss.item(), norm.item(), 64], rel=1e-12)


def test_a_step_is_no_longer_than_asked() -> None:
    model, batch = new_model(), batch_of(1)
    before = torch.cat([weight.flatten().clone() for weight in model.state_dict().values()])
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    assert training_step(NextTokenLoss(model), optimizer, [batch], max_grad_norm=0.01).grad_norm > 0.01
    after = torch.cat([weight.flatten() for weight in model.state_dict().values()])
    assert (after - before).norm().item() == pytest.approx(0.01, rel=1e-3)


class Failing(nn.Module):
    """A loss whose value or whose gradient is not a number, on the second micro-batch."""

    def __init__(self, model: nn.Module, *, value: float, gradient: float) -> None:
        super().__init__()
        self.model, self.value, self.gradient, self.calls = NextTokenLoss(model), value, gradient, 0

    def forward(self, inputs: Tensor, targets: Tensor, scale: float) -> Tensor:
        self.calls += 1
        loss: Tensor = self.model(inputs, targets, scale)
        if self.calls == 1:
            return loss
        loss.register_hook(lambda grad: grad * self.gradient)  # type: ignore[no-untyped-call]
        return loss + self.value


@pytest.mark.parametrize(
    ("value", "gradient"), [(float("nan"), 1.0), (float("inf"), 1.0), (0.0, float("nan")), (0.0, float("inf"))]
)
def test_a_loss_that_is_no_number_leaves_the_weights_alone(value: float, gradient: float) -> None:
    model = new_model()
    before = copy.deepcopy(model.state_dict())
    optimizer = make_optimizer(model, TrainingConfig())
    objective = Failing(model, value=value, gradient=gradient)
    with pytest.raises(NonFiniteLossError, match="the weights are unchanged"):
        training_step(objective, optimizer, [batch_of(1), batch_of(2)])
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert not optimizer.state
    # and the next step is as if it had never been
    training_step(NextTokenLoss(model), optimizer, [batch_of(1)])
    other = new_model()
    training_step(NextTokenLoss(other), make_optimizer(other, TrainingConfig()), [batch_of(1)])
    assert all(torch.equal(weight, other.state_dict()[name]) for name, weight in model.state_dict().items())


def test_a_seed_decides_dropout_and_leaves_the_global_numbers_alone() -> None:
    def weights(seed: int) -> Tensor:
        model = new_model(DROPPING).train()
        before = torch.get_rng_state()
        found = stepped(model, batch_of(1), batch_of(2), seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        return torch.cat([weight.flatten() for weight in found.values()])

    first = weights(1)
    torch.rand(7)
    assert torch.equal(weights(1), first)
    assert not torch.equal(weights(2), first)


def test_a_seed_decides_the_dropout_of_others_too() -> None:
    """A module of yours has no numbers but the global ones, which are seeded for it and then put back."""

    def weights() -> Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(61, 24), nn.Dropout(0.5), nn.Linear(24, 61))
        torch.rand(3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        torch.seed()
        training_step(NextTokenLoss(model), optimizer, [batch_of(1)], seed=1)
        return model.get_parameter("2.weight")

    assert torch.equal(weights(), weights())


def test_every_dropout_of_every_micro_batch_has_numbers_of_its_own() -> None:
    model = new_model(DROPPING)
    seen: list[int | None] = []
    modules = [module for module in model.modules() if isinstance(module, Dropout)]
    for seeds in ((1, 0), (1, 1), (2, 0)):
        with seeded_dropout(model, seeds, None):
            seen += [module.seed for module in modules]
    assert len(set(seen)) == 3 * len(modules) == 3 * 7
    assert all(module.seed is None for module in modules)


def test_a_seed_that_was_set_by_hand_is_there_afterwards() -> None:
    """It was forgotten."""
    model = new_model(DROPPING)
    model.drop.seed = 5
    with seeded_dropout(model, (1,), None):
        assert model.drop.seed != 5
    assert model.drop.seed == 5


def test_dicts_are_batches_with_unshifted_labels() -> None:
    ids = torch.randint(61, (4, 16))
    labels = ids.clone()
    labels[1, 10:] = -100
    mask = labels.ne(-100).long()
    targets = torch.cat([labels[:, 1:], torch.full((4, 1), -100)], dim=1)
    expected = stepped(new_model(), (ids, targets))
    for batch in ({"input_ids": ids, "labels": labels}, {"input_ids": ids, "labels": labels, "attention_mask": mask}):
        found = stepped(new_model(), batch)
        assert all(torch.equal(found[name], weight) for name, weight in expected.items())


@pytest.mark.parametrize("batches", [[], [(torch.zeros(2, 3).long(), torch.full((2, 3), -100))]], ids=["none", "-100"])
def test_nothing_to_learn_from_is_told_before_anything_is_forgotten(batches: list[tuple[Tensor, Tensor]]) -> None:
    model = new_model()
    model.wte.weight.grad = torch.ones_like(model.wte.weight)
    with pytest.raises(ValueError, match="nothing to learn from"):
        training_step(NextTokenLoss(model), make_optimizer(model, TrainingConfig()), batches)
    assert model.wte.weight.grad is not None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("micro_batches", {"input_ids": 1, "labels": 1}, "micro_batches must be a list of batches, got {"),
        ("micro_batches", [], "at least one micro-batch"),
        ("objective", torch.nn.functional.cross_entropy, r"objective must be a torch\.nn\.Module"),
        ("optimizer", torch.optim.SGD, r"optimizer must be a torch\.optim\.Optimizer, got <class"),
        ("max_grad_norm", 0, "max_grad_norm must be a finite number greater than 0, got 0"),
        ("max_grad_norm", "1", "max_grad_norm must be a number, got '1'"),
        ("precision", "fp16", "precision must be one of 'auto', 'fp32', 'bf16', got 'fp16'"),
        ("seed", -1, "seed must be at least 0, got -1"),
    ],
)
def test_a_wrong_argument_of_a_step_is_told_and_nothing_is_forgotten(name: str, value: object, message: str) -> None:
    """A precision of fp16 was that of fp32, and a seed of -1 failed after the gradients were cleared."""
    model = new_model()
    model.wte.weight.grad = torch.ones_like(model.wte.weight)
    given: dict[str, Any] = {"objective": NextTokenLoss(model), "micro_batches": [batch_of(0)]}
    given["optimizer"] = make_optimizer(model, TrainingConfig())
    with pytest.raises((TypeError, ValueError), match=message):
        training_step(**given | {name: value})
    assert model.wte.weight.grad is not None


def test_numbers_of_numpy_are_as_good_as_plain_ones() -> None:
    for plain, other in ((3, np.int64(3)), (0, np.uint8(0))):
        expected = stepped(new_model(DROPPING), batch_of(0), seed=plain)
        found = stepped(new_model(DROPPING), batch_of(0), seed=other)  # type: ignore[arg-type]
        assert all(torch.equal(found[name], weight) for name, weight in expected.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x, y.index_fill(1, torch.tensor(2), -1)), "targets of micro-batch 1 have -1; .* use -100"),
        (lambda x, y: (x, y.index_fill(1, torch.tensor(15), 61)), "ids 0 to 60, but the targets of micro-batch 1"),
        (lambda x, y: (x.index_fill(1, torch.tensor(0), 61), y), "ids 0 to 60, but the inputs of micro-batch 1"),
        (lambda x, y: (x, y.float()), r"the targets of micro-batch 1 should be \(B, T\) int64, got torch.float32"),
    ],
)
def test_a_target_that_is_none_is_told_before_anything_is_forgotten(
    change: Callable[[Tensor, Tensor], object], message: str
) -> None:
    model = new_model()
    model.wte.weight.grad = torch.ones_like(model.wte.weight)
    with pytest.raises(ValueError, match=message):
        training_step(
            NextTokenLoss(model), make_optimizer(model, TrainingConfig()), [batch_of(1), change(*batch_of(2))]
        )
    assert model.wte.weight.grad is not None


def test_a_weight_that_is_not_finite_is_named() -> None:
    model = new_model()
    with torch.no_grad():
        model.get_parameter("h.1.ln_2.bias")[5] = float("nan")
    with pytest.raises(NonFiniteLossError, match=r"unchanged: 1 of 24 values of the weight model\.h\.1\.ln_2\.bias is"):
        training_step(NextTokenLoss(model), make_optimizer(model, TrainingConfig()), [batch_of(1)])


def test_frozen_parameters_stay_and_have_no_gradient() -> None:
    model = new_model()
    model.wte.requires_grad_(requires_grad=False)
    before = model.wte.weight.clone()
    optimizer = make_optimizer(model, TrainingConfig())
    training_step(NextTokenLoss(model), optimizer, [batch_of(1)])
    assert torch.equal(model.wte.weight, before)
    assert model.wte.weight.grad is None


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_deterministic_algorithms_are_what_is_used(precision: str) -> None:
    config = TrainingConfig(precision=precision)  # type: ignore[arg-type]
    weights = []
    torch.use_deterministic_algorithms(mode=True)
    try:
        for _ in range(2):
            model = new_model(DROPPING).train()
            optimizer = make_optimizer(model, config)
            training_step(NextTokenLoss(model), optimizer, [batch_of(1)], precision=config.precision, seed=1)
            weights.append(torch.cat([weight.flatten() for weight in model.state_dict().values()]))
    finally:
        torch.use_deterministic_algorithms(mode=False)
    assert torch.equal(*weights)
    assert weights[0].isfinite().all()


def test_nothing_is_made_on_the_default_device() -> None:
    """Beside a default GPU, a step and a pass over a loader of a model on the CPU failed."""
    model, batch = new_model(DROPPING).train(), batch_of(1)
    tokens = torch.randint(61, (200,))
    expected = stepped(copy.deepcopy(model), batch, seed=1)
    with torch.device("meta"):
        found = stepped(copy.deepcopy(model), batch, seed=1)
        loader = make_dataloader(tokens, batch_size=2, context_length=16, shuffle=True)
        assert evaluate(model, loader).loss > 0
        optimizer = make_optimizer(model, TrainingConfig())
        training_step(NextTokenLoss(model), optimizer, [{"input_ids": batch[0], "labels": batch[0]}])
        config = TrainingConfig(max_steps=2, sample_prompt=None)
        history = train(model, loader, loader, config=config, device="cpu", progress=False)
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    assert history.steps == [0, 2]


@pytest.mark.parametrize("config", [SHAPE, DROPPING])
def test_copies_and_pickles_of_a_model_train_as_it_does(config: GPT2Config) -> None:
    model = new_model(config).train()
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]  # noqa: S301 - our own bytes
    expected = stepped(model, batch_of(1), seed=1)
    for other in copies:
        found = stepped(other, batch_of(1), seed=1)
        assert all(torch.equal(found[name], weight) for name, weight in expected.items())
