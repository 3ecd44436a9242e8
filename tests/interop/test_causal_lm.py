"""A model as programs for transformers call it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tinygpt2 import CausalLM, GPT2Config, GPT2Model, TrainingConfig, make_dataloader, train

transformers = pytest.importorskip("transformers")

SHAPE = GPT2Config(vocab_size=61, context_length=16, n_layer=2, n_head=3, n_embd=24, dropout=0.0)
IDS = torch.randint(61, (4, 16), generator=torch.Generator().manual_seed(0))


def new_model(**changes: Any) -> GPT2Model:  # noqa: ANN401
    torch.manual_seed(0)
    return GPT2Model(GPT2Config(**{**vars(SHAPE), **changes}))


def test_loss_and_logits_are_those_of_transformers(tmp_path: Path) -> None:
    model = new_model().eval()
    model.save_pretrained(tmp_path)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, local_files_only=True).eval()
    labels, mask = IDS.clone(), torch.ones_like(IDS)
    labels[:, :3] = -100
    mask[0, 12:] = 0
    labels[0, 12:] = -100
    with torch.no_grad():
        expected = theirs(IDS, labels=labels, attention_mask=mask)
        found = CausalLM(model).eval()(IDS, labels=labels, attention_mask=mask)
        scaled = CausalLM(model).eval()(IDS, labels=labels, num_items_in_batch=torch.tensor(7))
    torch.testing.assert_close(found["loss"], expected.loss, rtol=0, atol=1e-5)
    read = mask.bool()  # at padding, transformers' have seen less
    torch.testing.assert_close(found["logits"][read], expected.logits[read], rtol=0, atol=1e-5)
    counted = int((labels[:, 1:] != -100).sum())
    torch.testing.assert_close(scaled["loss"] * 7, found["loss"] * counted, rtol=1e-5, atol=0)


def test_in_training_it_returns_the_loss_alone() -> None:
    output = CausalLM(new_model())(IDS, labels=IDS)
    assert set(output) == {"loss"}
    assert set(CausalLM(new_model())(IDS)) == {"logits"}


def test_other_arguments_are_told() -> None:
    model = CausalLM(new_model())
    assert set(model(IDS, use_cache=True, output_attentions=False, position_ids=None)) == {"logits"}
    with pytest.raises(TypeError, match="CausalLM has no position_ids"):
        model(IDS, position_ids=IDS)
    with pytest.raises(ValueError, match="padding on the left"):
        model(IDS, attention_mask=torch.arange(16).expand(4, 16).clamp(max=1))
    with pytest.raises(TypeError, match="model must be a GPT2Model"):
        CausalLM(model)  # type: ignore[arg-type]


def trained_by_trainer(tmp_path: Path, model: Any, **options: Any) -> float:  # noqa: ANN401
    """Trains a model by transformers' Trainer, and returns the loss that it reports."""
    ids = torch.randint(61, (32, 16), generator=torch.Generator().manual_seed(1))
    items = [{"input_ids": row, "labels": row} for row in ids]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=6, per_device_train_batch_size=4, per_device_eval_batch_size=3,
        report_to=[], use_cpu=True, save_steps=3, logging_steps=3, learning_rate=1e-3, disable_tqdm=True,
        weight_decay=0.1, lr_scheduler_type="constant", **options,
    )  # fmt: skip
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=items, eval_dataset=items[:8])
    trainer.train()
    loss: float = trainer.evaluate()["eval_loss"]
    return loss


def test_transformers_trainer_trains_it_as_its_own(tmp_path: Path) -> None:
    model = new_model()
    model.save_pretrained(tmp_path / "before")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(
        tmp_path / "before", local_files_only=True, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
    )
    loss = trained_by_trainer(tmp_path / "ours", CausalLM(model))
    assert loss == pytest.approx(trained_by_trainer(tmp_path / "theirs", theirs), rel=1e-4)
    saved = sorted(path.name for path in (tmp_path / "ours").glob("checkpoint-*"))
    assert saved == ["checkpoint-3", "checkpoint-6"]
    model.save_pretrained(tmp_path / "model")
    assert torch.equal(GPT2Model.from_pretrained(tmp_path / "model")(IDS), model.eval()(IDS))


def test_trainers_activation_checkpointing_gives_the_same_model(tmp_path: Path) -> None:
    plain, saving = new_model(), new_model()
    torch.manual_seed(1)
    trained_by_trainer(tmp_path / "a", CausalLM(plain))
    torch.manual_seed(1)
    causal = CausalLM(saving)
    causal.gradient_checkpointing_enable()
    assert saving.activation_checkpointing
    trained_by_trainer(tmp_path / "b", causal)
    for one, other in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    causal.gradient_checkpointing_disable()
    assert not saving.activation_checkpointing


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_activation_checkpointing_gives_the_same_run(dropout: float) -> None:
    """Dropout, too: the second computation of a block drops what the first did."""
    models = new_model(dropout=dropout), new_model(dropout=dropout)
    models[1].activation_checkpointing = True
    loader = make_dataloader(torch.arange(200).remainder(61), batch_size=4, context_length=16)
    histories = [
        train(model, loader, config=TrainingConfig(epochs=2, learning_rate=1e-3), device="cpu", progress=False)
        for model in models
    ]
    assert histories[0].train_losses == histories[1].train_losses
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_activation_checkpointing_keeps_less() -> None:
    """Of the tensors that the backward pass needs, only what each block reads is kept."""

    def kept(*, saving: bool) -> int:
        model = new_model(n_layer=6)
        model.activation_checkpointing = saving
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(IDS).sum()
        loss.backward()
        return sum(sizes.values())

    assert kept(saving=True) < 0.5 * kept(saving=False)


def test_the_configuration_is_what_such_programs_read() -> None:
    config = CausalLM(new_model()).config
    config.use_cache = False
    assert config.to_dict()["model_type"] == "gpt2"
    assert '"n_positions": 16' in config.to_json_string()
