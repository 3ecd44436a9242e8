"""Counts of the tokens in a text."""

from torch import Tensor


def counted(ids: Tensor, n_vocab: int) -> Tensor:
    """Returns how often each token is in each row.

    Args:
        ids: (B, N) int64. What is not in the vocabulary is not counted, such as padding.
        n_vocab: Size of the vocabulary, V.

    Returns:
        (B, V) int64.

    >>> import torch
    >>> counted(torch.tensor([[2, 0, 2], [-1, -1, 1]]), 3)
    tensor([[1, 0, 2],
            [0, 1, 0]])
    """
    inside = (ids >= 0) & (ids < n_vocab)
    return ids.new_zeros(len(ids), n_vocab).scatter_add_(1, ids.where(inside, 0), inside.to(ids.dtype))
