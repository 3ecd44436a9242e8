"""Updates of token embeddings that tokens of similar spelling share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.tokenizers.spelling import Spelling
from tinygpt2.training.muon import Muon, WithGradient, adamw_step

_Lists = tuple[Tensor, Tensor]  # where each list begins, with the end of the last; and the items of all


@dataclass(frozen=True, eq=False)
class Incidence:
    """The matrix S, (V, features), that says which features a token's spelling has: 1/√n if the token has n of them.

    Its products are sums of rows. `F.embedding_bag` is 2 to 4 times as fast at that as a sparse matrix is, and gives
    the same bits each time, whatever the number of threads.

    Attributes:
        features: The features of each token.
        tokens: The tokens of each feature.
        scale: (V, 1), 1/√n.
        identity: Hash of the spellings.
    """

    features: _Lists
    tokens: _Lists
    scale: Tensor
    identity: str

    @classmethod
    def of(cls, spelling: Spelling, vocab_size: int, device: torch.device) -> Self:
        """Returns the matrix for an embedding that may have more rows than there are tokens."""
        starts = np.pad(spelling.starts, (0, vocab_size + 1 - len(spelling.starts)), mode="edge")
        sizes = np.diff(starts)
        order = np.argsort(spelling.features, kind="stable")
        tokens = np.repeat(np.arange(vocab_size), sizes)[order]
        ends = np.bincount(spelling.features, minlength=spelling.count).cumsum()
        parts = [torch.from_numpy(part) for part in (starts, spelling.features, np.append(0, ends), tokens)]
        scale = torch.from_numpy(sizes).clamp(min=1).rsqrt().unsqueeze(1)
        return cls((parts[0], parts[1]), (parts[2], parts[3]), scale, spelling.identity).to(device)

    def to(self, device: torch.device) -> Self:
        """Returns the matrix on a device."""
        features, tokens = ((starts.to(device), items.to(device)) for starts, items in (self.features, self.tokens))
        return type(self)(features, tokens, self.scale.to(device), self.identity)

    def times(self, matrix: Tensor) -> Tensor:
        """Returns S times a matrix, (features, C): (V, C)."""
        return _sums(self.features, matrix).mul_(self.scale.to(matrix.dtype))

    def transposed_times(self, matrix: Tensor) -> Tensor:
        """Returns Sᵀ times a matrix, (V, C): (features, C)."""
        return _sums(self.tokens, matrix * self.scale.to(matrix.dtype))


def _sums(lists: _Lists, rows: Tensor) -> Tensor:
    starts, items = lists
    return F.embedding_bag(items, rows, starts, mode="sum", include_last_offset=True)


def token_embeddings(model: nn.Module) -> list[Tensor]:
    """Returns the token embedding of a `GPT2Model`, and the weight of its head if that is another one.

    A head that is frozen or that an adapter has replaced is omitted.

    Raises:
        ValueError: If there is no such model, or its embedding is frozen or replaced.
    """
    gpt2 = next((module for module in model.modules() if isinstance(module, GPT2Model)), None)
    if gpt2 is None:
        raise ValueError(f"spelling=True is for a GPT2Model, got a {type(model).__name__}; pass spelling=False")
    if not _is_trained(gpt2.wte, nn.Embedding):
        replaced = not isinstance(gpt2.wte, nn.Embedding)
        reason = f"was replaced by a {type(gpt2.wte).__name__}" if replaced else "is frozen"
        raise ValueError(
            f"spelling=True is for a token embedding that is trained, but wte {reason}; pass spelling=False"
        )
    found = [gpt2.wte.weight]
    if gpt2.lm_head is not None and _is_trained(gpt2.lm_head, nn.Linear) and gpt2.lm_head.weight is not found[0]:
        found.append(gpt2.lm_head.weight)
    return found


def _is_trained(module: nn.Module, kind: type[nn.Module]) -> bool:
    return isinstance(module, kind) and isinstance(module.weight, nn.Parameter) and module.weight.requires_grad


class SharedUpdates(Muon):
    """Muon and AdamW, with updates that tokens of similar spelling share.

    An embedding W, (V, C), in a group with ``spelling`` is trained as E + SF, after fastText (Bojanowski et al. 2017):
    E has a row for each token, F one for each feature of the spellings, and S says which features a token has. AdamW
    updates both, with one rate and one decay. Then the decay of W is that of its parts, so neither is stored: the
    update of W is AdamW's, plus S times AdamW's for the gradient SᵀG of F. The state of W has the moments of both.

    Args:
        groups: As for `Muon`. In one with ``spelling``, the identity of ``incidence``, each parameter is (V, C).
        incidence: The matrix S.
        lr: Learning rate.
        betas: AdamW's decay rates of the first and second moments.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], incidence: Incidence, *, lr: float, betas: tuple[float, float]
    ) -> None:
        super().__init__([{"spelling": "", **group} for group in groups], lr=lr, betas=betas)
        self.incidence = incidence

    @override
    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"incidence": self.incidence}

    @override
    def _update_others(self, trained: Sequence[WithGradient], group: dict[str, Any]) -> None:
        super()._update_others(trained, group)
        if not group.get("spelling"):
            return
        if group["spelling"] != self.incidence.identity:
            raise ValueError(
                "the optimizer has the state of one for tokens of other spellings; make it with the tokenizer that the "
                "state is from"
            )
        for parameter, gradient in trained:
            self._update_together(parameter, gradient, group)

    def _update_together(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Adds S times the update of F, which is found as a step from zero without decay."""
        if self.incidence.scale.device != parameter.device:
            self.incidence = self.incidence.to(parameter.device)
        state, shared = self.state[parameter], self.incidence.transposed_times(gradient)
        for name in ("spelling_exp_avg", "spelling_exp_avg_sq"):
            if name not in state:
                state[name] = torch.zeros_like(shared)
        moments = {
            "step": state["step"] - 1,  # that of the parameter has been counted
            "exp_avg": state["spelling_exp_avg"],
            "exp_avg_sq": state["spelling_exp_avg_sq"],
        }
        update = torch.zeros_like(shared)
        adamw_step([update], [shared], [moments], group | {"weight_decay": 0.0})
        parameter.add_(self.incidence.times(update))
