"""Windows of a text among other sequences, such as ones that a model has written."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from tinygpt2._internal.checks import check_instance
from tinygpt2._internal.random import seeded_generator
from tinygpt2._internal.ranges import Number
from tinygpt2.data.batches import Batch
from tinygpt2.data.identity import sha256_of
from tinygpt2.data.loader import WindowLoader, as_it_is, without_noise
from tinygpt2.data.noise import TextNoise
from tinygpt2.data.noisy import NoisyDataset
from tinygpt2.data.order import EpochSampler, PassSampler
from tinygpt2.data.windows import JoinedTokenDataset, TokenDataset, places

_SHARE = Number(maximum=1, above_minimum=True, below_maximum=True)


class MixedDataset(NoisyDataset):
    """The windows of a text, in each pass from other places, and after them some of other sequences.

    The next pass continues with the sequences after those of the pass before, from the first again after the last.

    Args:
        clean: The windows of the text.
        sequences: The other sequences, (N, T + 1) int64.
        count: How many of them each pass has.
        seed: Seed of the places.
    """

    def __init__(self, clean: TokenDataset | JoinedTokenDataset, sequences: Tensor, count: int, *, seed: int) -> None:
        super().__init__(clean, TextNoise(), seed=seed)
        self.sequences, self.count = sequences, count

    @override
    def __len__(self) -> int:
        return len(self.clean) + self.count

    @override
    def __getitems__(self, indices: Sequence[int]) -> Batch:
        epochs, items = np.divmod(places(indices).astype(np.int64), len(self))
        real = items < len(self.clean)
        rows = torch.empty((2, len(items), self.sequences.shape[1] - 1), dtype=torch.int64, device="cpu")
        if real.any():
            windows = super().__getitems__(epochs[real] * len(self.clean) + items[real])  # type: ignore[arg-type]
            rows[:, torch.from_numpy(real)] = torch.stack(windows)
        numbers = epochs[~real] * self.count + items[~real] - len(self.clean)
        others = self.sequences[torch.from_numpy(numbers % len(self.sequences))]
        rows[:, torch.from_numpy(~real)] = torch.stack([others[:, :-1], others[:, 1:]])
        return rows[0], rows[1]

    @override
    def settings(self) -> dict[str, Any]:
        return {"sampled_per_pass": self.count, "sampled_sha256": sha256_of(self.sequences, whole=True)}


def mix_sequences(loader: DataLoader[Batch], sequences: Tensor, *, real_share: float) -> DataLoader[Batch]:
    """Returns a loader of windows of a text and of other sequences, shuffled together anew in each pass.

    A pass has as many windows of the text as the text has, from other places each time, and the sequences that are
    next. Whatever measures a loss on the loader, such as `evaluate` and the evaluations of `train`, reads the text
    alone.

    Args:
        loader: One that `make_dataloader` returned for the text, whose batch size and seed are kept; its noise is not.
        sequences: The others, (N, T + 1) int64, for windows of T tokens and their targets.
        real_share: Share of windows of the text, above 0 and below 1.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If the sequences have another length than the windows, or the share is out of range.

    >>> import torch
    >>> from tinygpt2 import make_dataloader
    >>> text = make_dataloader(range(9), batch_size=4, context_length=4)
    >>> zeros = torch.zeros((3, 5), dtype=torch.int64)
    >>> inputs, _ = next(iter(mix_sequences(text, zeros, real_share=0.5)))
    >>> (inputs == 0).all(dim=1).sum()
    tensor(2)
    """
    check_instance("loader", loader, DataLoader, "a DataLoader that make_dataloader returned")
    real_share = _SHARE.check("real_share", real_share)
    clean = without_noise(loader)
    if not (isinstance(clean.dataset, TokenDataset | JoinedTokenDataset) and isinstance(clean.sampler, EpochSampler)):
        raise TypeError("loader must be one that make_dataloader returned, without streaming=True")
    check_instance("sequences", sequences, Tensor, "a tensor, (N, T + 1)")
    width = clean.dataset[0][0].shape[0] + 1
    if sequences.dim() != 2 or not len(sequences) or sequences.shape[1] != width or sequences.dtype != torch.int64:
        raise ValueError(
            f"sequences must be (N, {width}) int64, a window and its last target, got {sequences.dtype} of "
            f"{tuple(sequences.shape)}"
        )
    seed, count = clean.sampler.seed, max(1, round(len(clean.dataset) * (1 - real_share) / real_share))
    dataset = MixedDataset(clean.dataset, sequences, count, seed=seed)
    return WindowLoader(
        dataset,
        batch_size=clean.batch_size,
        sampler=PassSampler(len(dataset), shuffle=True, seed=seed),
        drop_last=clean.drop_last,
        collate_fn=as_it_is,
        generator=seeded_generator(seed),
    )
