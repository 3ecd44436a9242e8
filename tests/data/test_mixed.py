"""Windows of a text among other sequences."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tinygpt2 import TextNoise, evaluate, make_dataloader, mix_sequences
from tinygpt2.data.batches import Batch
from tinygpt2.data.passes import Passes

T = 4
OTHERS = torch.arange(100, 100 + 7 * (T + 1)).view(7, T + 1)


def mixed(share: float = 0.5, noise: TextNoise | None = None, others: Tensor = OTHERS) -> DataLoader[Batch]:
    text = make_dataloader(range(23), batch_size=3, context_length=T, shuffle=True, seed=5, noise=noise)
    return mix_sequences(text, others, real_share=share)


def rows(batches: Iterator[Batch] | DataLoader[Batch]) -> list[list[int]]:
    found = []
    for inputs, targets in batches:
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        found += torch.cat([inputs, targets[:, -1:]], dim=1).tolist()
    return found


def test_a_pass_has_both_in_their_shares_in_an_order_of_its_own() -> None:
    loader = mixed()
    passes = [rows(loader) for _ in range(3)]
    for found in passes:
        assert sum(row[0] < 100 for row in found) == 5
        assert sum(row[0] >= 100 for row in found) == 5
    orders = [[row[0] >= 100 for row in found] for found in passes]
    assert orders[0] != orders[1]
    windows = [sorted(row[0] for row in found if row[0] < 100) for found in passes]
    assert len({tuple(each) for each in windows}) > 1  # from other places
    for epoch, found in enumerate(passes):  # each once, before any is read again
        others = sorted(row for row in found if row[0] >= 100)
        assert others == sorted(OTHERS[(epoch * 5 + i) % 7].tolist() for i in range(5))


@pytest.mark.parametrize(("share", "count"), [(0.3, 12), (0.9, 1), (0.99, 1)])
def test_shares(share: float, count: int) -> None:
    assert sum(row[0] >= 100 for row in rows(mixed(share))) == count


def test_a_pass_can_be_begun_in_the_middle() -> None:
    whole = Passes(mixed(0.3), name="loader", seed=0)
    for epoch in range(2):
        expected = rows(whole.read(epoch))
        assert rows(Passes(mixed(0.3), name="loader", seed=0).read(epoch, items=4)) == expected[4:]


def test_evaluations_read_the_text_alone() -> None:
    clean = make_dataloader(range(23), batch_size=3, context_length=T, shuffle=True, seed=5)
    with Passes(mixed(), name="loader", seed=0).evaluation() as batches:
        assert rows(batches) == rows(clean)

    class Uniform(torch.nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            assert tokens.max() < 100
            return torch.zeros(*tokens.shape, 200)

    assert evaluate(Uniform(), mixed()).tokens == 20


def test_noise_is_left_out() -> None:
    noisy = rows(mixed(noise=TextNoise(token_noise=0.9)))
    assert all(b == a + 1 for row in noisy if row[0] < 100 for a, b in pairwise(row))


def test_its_identity_has_the_sequences_and_their_share() -> None:
    one, other, share = (
        Passes(each, name="", seed=0).identity() for each in (mixed(), mixed(others=OTHERS + 1), mixed(0.4))
    )
    assert {name for name in one if one[name] != other[name]} == {"sampled_sha256"}
    assert {name for name in one if one[name] != share[name]} == {"sampled_per_pass", "sequences"}


def test_wrong_arguments() -> None:
    text = make_dataloader(range(23), batch_size=3, context_length=T)
    with pytest.raises(ValueError, match=r"sequences must be \(N, 5\) int64, .* got torch.int64 of \(7, 4\)"):
        mix_sequences(text, OTHERS[:, 1:], real_share=0.5)
    with pytest.raises(ValueError, match="real_share must be"):
        mix_sequences(text, OTHERS, real_share=1.0)
    with pytest.raises(TypeError, match="without streaming=True"):
        mix_sequences(DataLoader([(OTHERS[0], OTHERS[0])]), OTHERS, real_share=0.5)  # type: ignore[arg-type]
