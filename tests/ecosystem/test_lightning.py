"""Lightning: training as `train` does, mixed precision with clipping, and resuming."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tinygpt2 import GPT2Model, TrainingConfig, cross_entropy_loss, make_dataloader, make_optimizer, train

lightning: Any = pytest.importorskip("lightning", minversion="2.5")

pytestmark = pytest.mark.ecosystem

CONFIG = TrainingConfig(epochs=2, learning_rate=1e-3, warmup_steps=0, schedule="constant", max_grad_norm=1.0)
TEXT = [(7 * i + i // 5) % 61 for i in range(200)]


def module_of(model: GPT2Model, *, fused: bool = True) -> Any:  # noqa: ANN401
    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            loss: Tensor = cross_entropy_loss(self.model(batch[0]), batch[1])
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return make_optimizer(self.model, CONFIG, fused=fused)

    return Module()


def trainer_of(directory: Path, **options: Any) -> Any:  # noqa: ANN401
    return lightning.Trainer(
        max_epochs=2, accelerator="cpu", gradient_clip_val=1.0, logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=directory, **{"enable_checkpointing": False, **options},
    )  # fmt: skip


def loader() -> Any:  # noqa: ANN401
    return make_dataloader(TEXT, batch_size=2, context_length=12)


def test_it_trains_as_train_does(
    new_model: Callable[..., GPT2Model], near: Callable[..., None], ids: Tensor, tmp_path: Path
) -> None:
    model, ours = new_model(), new_model()
    trainer_of(tmp_path).fit(module_of(model.train()), loader())
    train(ours, loader(), config=CONFIG, device="cpu", progress=False)
    with torch.no_grad():
        near(model.eval()(ids), ours.eval()(ids), 1e-3)


def test_mixed_precision_with_clipping_trains(new_model: Callable[..., GPT2Model], tmp_path: Path) -> None:
    """A fused optimizer is refused, with the reason; another one trains. On a CPU, Lightning takes bf16 for fp16."""
    model = new_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="fused"):
        trainer_of(tmp_path, precision="16-mixed").fit(module_of(model.train()), loader())
    trainer_of(tmp_path, precision="16-mixed").fit(module_of(model, fused=False), loader())
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert len(changed) == len(before)
    assert all(value.isfinite().all() for value in model.parameters())


def test_a_checkpoint_of_lightning_goes_on_as_it_would_have(
    new_model: Callable[..., GPT2Model], tmp_path: Path
) -> None:
    whole = new_model()
    keep = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}")
    trainer_of(tmp_path, enable_checkpointing=True, callbacks=[keep]).fit(module_of(whole.train()), loader())
    resumed = new_model()
    trainer_of(tmp_path).fit(module_of(resumed.train()), loader(), ckpt_path=tmp_path / "epoch=0.ckpt")
    for one, two in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)
    resumed.save_pretrained(tmp_path / "model")
    assert GPT2Model.from_pretrained(tmp_path / "model").config == whole.config
