"""peft: adapters that are trained, merged, saved and read back, on a model and behind `CausalLM`."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tinygpt2 import CausalLM, GPT2Model, TrainingConfig, make_dataloader, train

peft = pytest.importorskip("peft", minversion="0.17")

pytestmark = pytest.mark.ecosystem


def logits_of(model: Any, ids: Tensor) -> Tensor:  # noqa: ANN401
    with torch.no_grad():
        output = model.eval()(ids)
    logits: Tensor = output["logits"] if isinstance(output, dict) else output
    return logits


def plain(model: GPT2Model) -> nn.Module:
    return model


@pytest.mark.parametrize(
    ("wrap", "options", "tied"),
    [
        (plain, {"target_modules": ["c_attn", "c_proj", "c_fc"]}, True),
        (plain, {}, True),  # peft's own choice for GPT-2
        (plain, {"target_modules": "all-linear"}, True),
        (CausalLM, {"task_type": "CAUSAL_LM"}, True),
        (CausalLM, {"task_type": "CAUSAL_LM", "target_modules": ["c_attn", "c_proj", "c_fc"]}, True),
        (plain, {"target_modules": ["lm_head"]}, False),
        (CausalLM, {"task_type": "CAUSAL_LM", "target_modules": ["lm_head"]}, False),
        (plain, {"target_modules": ["wte"]}, True),  # which is the head, too
        (plain, {"target_modules": ["wte"]}, False),
    ],
)
def test_an_adapter_has_an_effect_which_merging_keeps(
    new_model: Callable[..., GPT2Model],
    near: Callable[..., None],
    ids: Tensor,
    *,
    wrap: Callable[[GPT2Model], nn.Module],
    options: dict[str, object],
    tied: bool,
) -> None:
    """An adapter of an untied head had none, and one of tied embeddings had another after merging."""
    before = logits_of(new_model(tie_weights=tied), ids)
    adapted = peft.get_peft_model(
        wrap(new_model(tie_weights=tied)), peft.LoraConfig(r=4, init_lora_weights=False, **options)
    )
    after = logits_of(adapted, ids)
    assert (after - before).abs().max() > 1
    near(logits_of(adapted.merge_and_unload(), ids), after, 1e-4)


def test_tinygpt2_trains_an_adapter_alone_and_the_rest_is_read_back(
    new_model: Callable[..., GPT2Model], near: Callable[..., None], ids: Tensor, tmp_path: Path
) -> None:
    """Trained by `train`, saved as peft does, read back, merged into a model that is a directory like any other."""
    model = new_model()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["c_attn", "c_fc"]))
    loader = make_dataloader(ids.flatten().repeat(4).tolist(), batch_size=4, context_length=12)
    config = TrainingConfig(epochs=4, learning_rate=1e-2)
    losses = train(model, loader, config=config, device="cpu", progress=False).train_losses
    assert losses[-1] < losses[0]
    found = {re.sub(r"\.base_layer", "", name): value for name, value in model.state_dict().items()}
    assert all(torch.equal(found[name], value) for name, value in kept.items())
    after = logits_of(adapted, ids)

    with pytest.raises(ValueError, match=r"Merge adapters into the model first \(peft: merge_and_unload\(\)\)"):
        model.save_pretrained(tmp_path / "unmerged")
    adapted.save_pretrained(tmp_path / "adapter")
    with pytest.raises(FileNotFoundError, match=r"adapter of peft"):
        GPT2Model.from_pretrained(tmp_path / "adapter")
    near(logits_of(peft.PeftModel.from_pretrained(new_model(), tmp_path / "adapter"), ids), after, 0.0)

    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    near(logits_of(GPT2Model.from_pretrained(tmp_path / "merged"), ids), after, 1e-4)


def test_an_adapter_of_ours_is_one_of_transformers_gpt2(
    new_model: Callable[..., GPT2Model], near: Callable[..., None], ids: Tensor, tmp_path: Path
) -> None:
    """The weights of the base have transformers' names under another prefix; only theirs are transposed."""
    transformers = pytest.importorskip("transformers")
    new_model().save_pretrained(tmp_path / "base")
    options = {"r": 4, "target_modules": ["c_attn"], "init_lora_weights": False}
    ours = peft.get_peft_model(new_model(), peft.LoraConfig(**options))
    ours.save_pretrained(tmp_path / "adapter")
    theirs = transformers.GPT2Model.from_pretrained(tmp_path / "base")
    there = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter")
    with torch.no_grad():
        hidden = there.eval()(ids).last_hidden_state
        expected = ours.base_model.model.eval().hidden_states(ids)
    near(hidden, expected, 1e-4)


def test_causal_lm_on_a_bare_model_says_what_is_missing(new_model: Callable[..., GPT2Model]) -> None:
    """`CausalLM` is the road; this fails, and does not give other numbers."""
    with pytest.raises(AttributeError, match="prepare_inputs_for_generation"):
        peft.get_peft_model(new_model(), peft.LoraConfig(task_type="CAUSAL_LM"))
