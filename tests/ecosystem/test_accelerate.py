"""accelerate: training with what `prepare` returns, saving and resuming it, and dispatching a model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tinygpt2 import GPT2Model, TrainingConfig, cross_entropy_loss, generate, make_dataloader, make_optimizer, train

accelerate = pytest.importorskip("accelerate", minversion="1.0")

pytestmark = pytest.mark.ecosystem

CONFIG = TrainingConfig(epochs=1, learning_rate=1e-3, warmup_steps=0, schedule="constant", max_grad_norm=1.0)
TEXT = [(7 * i + i // 5) % 61 for i in range(200)]


def parts(model: GPT2Model) -> tuple[Any, Any, Any, Any]:
    """Returns an accelerator, and the model, its optimizer and a loader as it prepares them."""
    accelerator = accelerate.Accelerator(cpu=True)
    loader = make_dataloader(TEXT, batch_size=2, context_length=12)
    return accelerator, *accelerator.prepare(model, make_optimizer(model, CONFIG), loader)


def step(accelerator: Any, model: Any, optimizer: Any, batch: tuple[Tensor, Tensor]) -> None:  # noqa: ANN401
    loss = cross_entropy_loss(model(batch[0]), batch[1])
    optimizer.zero_grad()
    accelerator.backward(loss)
    accelerator.clip_grad_norm_(model.parameters(), CONFIG.max_grad_norm)
    optimizer.step()


def test_it_trains_as_train_does(new_model: Callable[..., GPT2Model], near: Callable[..., None], ids: Tensor) -> None:
    accelerator, model, optimizer, loader = parts(new_model())
    model.train()
    for batch in loader:
        step(accelerator, model, optimizer, batch)
    ours = new_model()
    train(ours, make_dataloader(TEXT, batch_size=2, context_length=12), config=CONFIG, device="cpu", progress=False)
    with torch.no_grad():
        near(accelerator.unwrap_model(model).eval()(ids), ours.eval()(ids), 1e-3)


def test_a_saved_state_goes_on_as_it_would_have(new_model: Callable[..., GPT2Model], tmp_path: Path) -> None:
    accelerator, model, optimizer, loader = parts(new_model())
    model.train()
    batches = list(loader)
    for batch in batches[:4]:
        step(accelerator, model, optimizer, batch)
    accelerator.save_state(str(tmp_path / "state"))
    for batch in batches[4:]:
        step(accelerator, model, optimizer, batch)
    again, other, its_optimizer, _ = parts(new_model())
    again.load_state(str(tmp_path / "state"))
    other.train()
    for batch in batches[4:]:
        step(again, other, its_optimizer, batch)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_model_that_is_read_can_be_dispatched(directory: Path, ids: Tensor, tmp_path: Path) -> None:
    """`from_pretrained` is the road; accelerate reads no file of ours by itself, since its weights are transposed."""
    model = GPT2Model.from_pretrained(directory)
    with torch.no_grad():
        expected = model(ids), generate(model, ids, max_new_tokens=5)
        device_map = {name: "cpu" for name, _ in model.named_children()} | {"h": "disk"}
        dispatched = accelerate.dispatch_model(
            model, device_map, main_device="cpu", offload_dir=str(tmp_path / "offload")
        )
        assert {value.device.type for value in model.h.parameters()} == {"meta"}
        assert torch.equal(dispatched(ids), expected[0])
        assert torch.equal(generate(dispatched, ids, max_new_tokens=5), expected[1])
    with accelerate.init_empty_weights():
        empty = GPT2Model(model.config)
    with pytest.raises((ValueError, RuntimeError, KeyError)):
        accelerate.load_checkpoint_and_dispatch(empty, str(directory / "model.safetensors"), strict=True)
