"""Texts as tensors of token ids, and back."""

import torch
from torch import Tensor

from tinygpt2.kernels.cross_entropy import INTEGER_DTYPES
from tinygpt2.tokenizers.foreign import AnyTokenizer, as_tokenizer
from tinygpt2.tokenizers.protocol import encoded


def text_to_tensor(text: str, tokenizer: AnyTokenizer) -> Tensor:
    """Returns the ids of ``text`` as a batch of one, (1, T) int64.

    Raises:
        TypeError: If ``text`` is not a ``str``, or ``tokenizer`` not a tokenizer.
        ValueError: If it has a lone surrogate, or the tokenizer cannot encode it.

    >>> from tinygpt2 import gpt2_tokenizer
    >>> text_to_tensor("Hello, world", gpt2_tokenizer())
    tensor([[15496,    11,   995]])
    """
    tokenizer = as_tokenizer(tokenizer)
    return torch.tensor(encoded(tokenizer, text), dtype=torch.int64).unsqueeze(0)


def tensor_to_text(tokens: Tensor, tokenizer: AnyTokenizer) -> str:
    """Returns the text of a sequence of ids.

    Args:
        tokens: (T,) or (1, T), any integer dtype.
        tokenizer: The one that encoded the text.

    Raises:
        TypeError: If ``tokens`` is not a tensor of integers, or ``tokenizer`` not a tokenizer.
        ValueError: If it holds more than one sequence.

    >>> import torch
    >>> from tinygpt2 import gpt2_tokenizer
    >>> tensor_to_text(torch.tensor([[15496, 11, 995]]), gpt2_tokenizer())
    'Hello, world'
    """
    tokenizer = as_tokenizer(tokenizer)
    if not isinstance(tokens, Tensor):
        raise TypeError(
            f"tokens must be a tensor of ids, got {type(tokens).__name__}; for a list call tokenizer.decode"
        )
    if not (tokens.dim() == 1 or (tokens.dim() == 2 and tokens.shape[0] == 1)):
        raise ValueError(
            f"expected the ids of one text, of shape (T,) or (1, T), got {tuple(tokens.shape)}; "
            "for a batch, call this for each row"
        )
    if tokens.numel() and tokens.dtype not in INTEGER_DTYPES:
        raise TypeError(f"tokens must be a tensor of integers, got {tokens.dtype}")
    return tokenizer.decode(tokens.flatten().tolist())
