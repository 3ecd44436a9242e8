"""Weights as small integers, each row with a scale of its own: a quarter of the bytes, and hardly another model."""

from collections.abc import Mapping

import torch
from torch import Tensor

from tinygpt2.kernels.int8 import LEVELS, rounded

_SCALE = ".scale"  # ends the name of a matrix's scales


def rounded_weights(state: Mapping[str, Tensor], levels: int = LEVELS) -> dict[str, Tensor]:
    """Returns weights with each matrix as integers and a scale for each of its rows; vectors stay as they are.

    A weight becomes the nearest multiple of its row's scale, which is the row's largest weight divided by ``levels``.

    Args:
        state: Weights, matrices (N, M) or vectors (N,), floating point.
        levels: Integers on each side of zero, at most `LEVELS`; fewer are coarser, and compress better.

    Returns:
        For each matrix an int8 tensor (N, M) and, named with ``.scale``, a float32 tensor (N,); vectors as float32.

    >>> rounded_weights({"w": torch.tensor([[0.5, -1.0], [0.0, 0.0]])}, levels=4)
    {'w': tensor([[ 2, -4],
            [ 0,  0]], dtype=torch.int8), 'w.scale': tensor([0.2500, 1.0000])}
    """
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        values = tensor.detach().float().cpu()
        if values.dim() == 1:
            result[name] = values.clone()
            continue
        result[name], scale = rounded(values, levels)
        result[name + _SCALE] = scale.squeeze(1).masked_fill(~result[name].any(dim=1), 1.0)
    return result


def restored_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights that `rounded_weights` has made integers of, in float32.

    Raises:
        ValueError: If a matrix has no scales that fit it, or scales belong to none.

    >>> weights = {"w": torch.tensor([[0.5, -1.0]])}
    >>> restored_weights(rounded_weights(weights, levels=4))
    {'w': tensor([[ 0.5000, -1.0000]])}
    """
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(_SCALE) and name.removesuffix(_SCALE) in tensors:
            continue
        if tensor.dtype == torch.int8:
            scale = tensors.get(name + _SCALE)
            if scale is None or tensor.dim() != 2 or scale.shape != tensor.shape[:1]:
                raise ValueError(f"{name} has no scale for each of its {len(tensor):,} rows")
            tensor = tensor.float() * scale.float().unsqueeze(1)  # noqa: PLW2901
        result[name] = tensor
    return result
