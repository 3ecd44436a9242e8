"""A model with the calling convention of transformers' causal language models."""

import json
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from tinygpt2._internal.checks import check_instance, check_int
from tinygpt2.data.batches import as_batch
from tinygpt2.formats.huggingface import config_to_huggingface
from tinygpt2.losses import IGNORE_INDEX
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.model.objective import NextTokenLoss


class CausalLM(nn.Module):
    """A `GPT2Model` that programs for transformers can call and train: its ``Trainer``, and peft's ``CAUSAL_LM``.

    The wrapped model is trained in place; save it with ``causal_lm.model.save_pretrained(...)``.

    Args:
        model: The model.

    Attributes:
        model: The model.
        config: The values of transformers' ``config.json`` as attributes, which such programs read and set; setting
            them does not change the model.

    Raises:
        TypeError: If it is not a `GPT2Model`.

    >>> import torch
    >>> from tinygpt2 import GPT2Config
    >>> shape = GPT2Config(
    ...     vocab_size=9, context_length=8, n_layer=1, n_head=2, n_embd=4
    ... )
    >>> ids = torch.tensor([[1, 2, 3]])
    >>> output = CausalLM(GPT2Model(shape)).eval()(ids, labels=ids)
    >>> output["logits"].shape, output["loss"].shape
    (torch.Size([1, 3, 9]), torch.Size([]))
    """

    def __init__(self, model: GPT2Model) -> None:
        super().__init__()
        check_instance("model", model, GPT2Model, "a GPT2Model")
        self.model = model
        self.config = CausalLMConfig(**config_to_huggingface(model.config), use_cache=False)

    @override
    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **others: Any,
    ) -> dict[str, Tensor]:
        """Returns the ``logits``, (B, T, V), and with ``labels`` the ``loss``; in training with labels, the loss alone.

        Args:
            input_ids: (B, T) int64.
            labels: (B, T) int64, unshifted: label t is token t itself, or -100 if it does not count.
            attention_mask: (B, T), 0 where there is padding, which must be on the right.
            num_items_in_batch: Number of labels to divide the summed loss by; by default those of this batch.
            **others: Other arguments of transformers' models, such as ``position_ids``; only ``None`` is possible,
                but for ``use_cache``, ``return_dict`` and ``output_*``, which change nothing.

        Raises:
            TypeError: If another argument is given, or one is of the wrong type.
            ValueError: If shapes do not match, padding is on the left, or an id is outside the vocabulary.
        """
        unknown = [name for name, value in others.items() if value is not None and not _changes_nothing(name)]
        if unknown:
            raise TypeError(f"CausalLM has no {unknown[0]}; omit it, or use the GPT2Model itself")
        batch = {"input_ids": input_ids, "labels": input_ids if labels is None else labels}
        inputs, targets = as_batch(batch | {"attention_mask": attention_mask}, vocab_size=self.model.config.vocab_size)
        output = dict[str, Tensor]()
        if labels is not None:
            count: Tensor | int = (targets != IGNORE_INDEX).sum()
            if num_items_in_batch is not None:
                is_tensor = isinstance(num_items_in_batch, Tensor) and num_items_in_batch.numel() == 1
                count = num_items_in_batch if is_tensor else check_int("num_items_in_batch", num_items_in_batch)
            output["loss"] = NextTokenLoss(self.model)(inputs, targets) / count
        if labels is None or not self.training:
            output["logits"] = self.model(inputs)
        return output

    def prepare_inputs_for_generation(self, input_ids: Tensor, **_: Any) -> dict[str, Tensor]:  # noqa: ANN401
        """Returns the arguments of a call, as peft expects it of a causal language model."""
        return {"input_ids": input_ids}

    def get_input_embeddings(self) -> nn.Module:
        """Returns the embedding of tokens."""
        return self.model.wte

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Switches activation checkpointing on; see `GPT2Model`."""
        self.model.activation_checkpointing = True

    def gradient_checkpointing_disable(self) -> None:
        """Switches it off."""
        self.model.activation_checkpointing = False


class CausalLMConfig(SimpleNamespace):
    """What programs for transformers read of a model's configuration, and set."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the values by their names."""
        return dict(vars(self))

    def to_json_string(self) -> str:
        """Returns them as JSON."""
        return json.dumps(self.to_dict(), indent=2, default=str) + "\n"


def _changes_nothing(name: str) -> bool:
    return name in {"use_cache", "return_dict"} or name.startswith("output_")
