"""Loaders of shuffled batches of windows."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from collections.abc import Set as AbstractSet
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from tinygpt2._internal.checks import LARGEST_SEED, can_be_iterated, check_bool, check_instance, check_int, of_type
from tinygpt2._internal.random import seeded_generator
from tinygpt2._internal.texts import is_table
from tinygpt2.data.batches import Batch
from tinygpt2.data.encoding import encode_documents
from tinygpt2.data.noise import TextNoise
from tinygpt2.data.noisy import NoisyDataset, with_noise, words_of
from tinygpt2.data.order import EpochSampler, PassSampler
from tinygpt2.data.streams import DocumentStream
from tinygpt2.data.token_file import TokenFile
from tinygpt2.data.windows import JoinedTokenDataset, TokenDataset
from tinygpt2.tokenizers.byte_pairs import gpt2_tokenizer
from tinygpt2.tokenizers.foreign import AnyTokenizer, as_tokenizer
from tinygpt2.tokenizers.protocol import Tokenizer, encoded, end_of_text

if TYPE_CHECKING:
    import numpy as np
    from torch.utils.data.dataloader import _BaseDataLoaderIter


class Loader(Protocol):
    """Batches that can be read repeatedly: a ``DataLoader``, or simply a list of (inputs, targets).

    A batch is (inputs, targets), both (B, T) int64, or a dict of ``input_ids`` and ``labels`` in the convention of
    Hugging Face. The rest is optional: ``len()``, without which `train` needs ``max_steps``; ``set_epoch(epoch)``, here
    or on ``sampler``, to choose an order; ``state_dict()`` and ``load_state_dict()``, JSON values from which the next
    ``iter()`` continues, so that resuming reads nothing twice; ``identity()``, JSON values that identify the data set.

    Without ``identity()``, a resumed run compares, beside the first batch and the length: the batches of a list; of a
    ``DataLoader`` its options, the kind and options of a sampler of PyTorch's or the first indices of another, the
    seeds of generators, and the content of a data set in memory: a list, a tensor, an array, or public attributes that
    are such, also in a ``Subset`` or a ``ConcatDataset``. An ``identity()`` of the data set replaces its content. Of
    more than 65,536 items of a list, or 2^27 elements of an array, as many are hashed. What a data set reads from
    elsewhere is not seen beyond the first batch, nor is what a function for collating or a worker does.
    """

    def __iter__(self) -> Iterator[Any]:
        """Begins a pass over the batches."""
        ...


def make_dataloader(
    source: "str | Tensor | np.ndarray | TokenFile | Iterable[Any] | Callable[[], Iterable[Any]]",
    *,
    batch_size: int,
    context_length: int,
    stride: int | None = None,
    shuffle: bool = False,
    drop_last: bool = False,
    tokenizer: AnyTokenizer | None = None,
    seed: int = 0,
    field: str = "text",
    streaming: bool = False,
    noise: TextNoise | None = None,
) -> DataLoader[Batch]:
    """Returns a PyTorch ``DataLoader`` of (inputs, targets), both (B, T) int64, the targets shifted by one token.

    The source is one of these; what a list or a column holds is decided by its first item.

    - **A text**, a ``str``, which is encoded as it is: nothing ends it.
    - **Documents**, several ``str``: a list, a column of a table or of a data set of Hugging Face; or a table or a data
      set, whose column ``field`` has the texts. The end-of-text token follows each document; empty ones are skipped.
    - **Token ids**, one-dimensional: a list, a tensor, a NumPy array (also a memory-mapped one) or a `TokenFile`.
    - **Several `TokenFile`**, in a list, made with one tokenizer. No window crosses from one file into the next, and a
      file too short for one is left out.
    - With ``streaming``, **documents that do not fit into memory**, which are encoded as they are read: any iterable,
      or a function without arguments that returns one. The windows are those of the same documents in a list.

    Args:
        source: The texts or the ids.
        batch_size: Windows per batch, B.
        context_length: Tokens per window, T.
        stride: Distance between the starts of successive windows; ``context_length`` by default.
        shuffle: Whether each epoch has its own order, a pure function of ``seed`` and the epoch. With ``streaming``,
            each window is drawn from the next 1,024 ones, so sorted documents need to be shuffled in the source, too.
        drop_last: Whether to leave out a last batch with fewer than B windows.
        tokenizer: Encodes texts, `gpt2_tokenizer` by default; if given with ids, they must be in its vocabulary.
        seed: Seed of the shuffling, and of the noise.
        field: Name of the column of texts, if the source is a table or a data set.
        streaming: Whether to encode documents while they are read. The loader then has no ``len()``, so that `train`
            needs ``max_steps``, and reads in one process. An iterator, such as a generator, can be read once, in a loop
            of one's own; `train` needs an iterable that begins anew, or a function.
        noise: Noise on the text, for training; each pass then has as many windows, but others.

    Raises:
        TypeError: If the source is none of these, its items are of several types, or an option is of the wrong type.
        ValueError: If there is no text, too little for one window (or, with ``drop_last``, for one batch), or a lone
            surrogate, an id is outside the vocabulary, a `TokenFile` was made with another tokenizer, a number is out
            of range, or noise does not go with the tokenizer, with ids or with ``streaming``.
            With ``streaming``, errors that concern the documents are raised during iteration.

    >>> loader = make_dataloader(range(9), batch_size=2, context_length=4)
    >>> inputs, targets = next(iter(loader))
    >>> inputs
    tensor([[0, 1, 2, 3],
            [4, 5, 6, 7]])
    >>> targets
    tensor([[1, 2, 3, 4],
            [5, 6, 7, 8]])

    Names, each followed by the end of a text:

    >>> loader = make_dataloader(["Emma", "Olivia"], batch_size=1, context_length=5)
    >>> next(iter(loader))[1]
    tensor([[ 2611, 50256,    46, 16017,   544]])
    """
    batch_size = check_int("batch_size", batch_size)
    seed = check_int("seed", seed, minimum=0, maximum=LARGEST_SEED)
    for name, value in {"shuffle": shuffle, "drop_last": drop_last, "streaming": streaming}.items():
        check_bool(name, value)
    check_instance("field", field, str, "a str, the name of a column")
    if not field:
        raise ValueError("field must be the name of a column, got ''")
    if noise is not None:
        check_instance("noise", noise, TextNoise, "a TextNoise")
    windows: dict[str, Any] = {"context_length": check_int("context_length", context_length), "stride": stride}
    if streaming:
        if noise is not None:
            raise ValueError(
                "noise needs all of the text, but with streaming=True it is encoded while it is read; omit one of "
                "the two"
            )
        tokenizer = as_tokenizer(gpt2_tokenizer() if tokenizer is None else tokenizer, ends=True)
        return WindowLoader(
            DocumentStream(source, tokenizer, field=field, shuffle=shuffle, seed=seed, **windows),
            batch_size=batch_size,
            drop_last=drop_last,
            collate_fn=_stacked,
            generator=seeded_generator(seed),
        )
    tokenizer = None if tokenizer is None else as_tokenizer(tokenizer)
    dataset = _dataset(source, tokenizer, field, windows, noise=noise, seed=seed)
    if drop_last and len(dataset) < batch_size:
        raise ValueError(
            f"the text has only {len(dataset)} windows of {context_length} tokens, fewer than a batch of {batch_size}, "
            "and drop_last=True leaves out smaller batches; pass a smaller batch_size, context_length or stride, "
            "or drop_last=False"
        )
    return WindowLoader(
        dataset,
        batch_size=batch_size,
        sampler=(EpochSampler if noise is None else PassSampler)(len(dataset), shuffle=shuffle, seed=seed),
        drop_last=drop_last,
        collate_fn=as_it_is,
        generator=seeded_generator(seed),  # a loader without one draws from the global state at each epoch
    )


def without_noise(loader: Any) -> Any:  # noqa: ANN401 - any loader
    """Returns the loader that `make_dataloader` returns without noise, if a loader has some; any other as it is."""
    if not (isinstance(loader, DataLoader) and isinstance(loader.dataset, NoisyDataset)):
        return loader
    sampler = loader.sampler
    if not isinstance(sampler, EpochSampler):  # of a loader that somebody else made
        return loader
    return WindowLoader(
        loader.dataset.clean,
        batch_size=loader.batch_size,
        sampler=EpochSampler(len(loader.dataset.clean), shuffle=sampler.shuffle, seed=sampler.seed),
        drop_last=loader.drop_last,
        collate_fn=as_it_is,
        generator=seeded_generator(sampler.seed),
    )


def _dataset(
    source: Any,  # noqa: ANN401 - what it is, is found out here
    tokenizer: Tokenizer | None,
    field: str,
    windows: dict[str, Any],
    *,
    noise: TextNoise | None,
    seed: int,
) -> TokenDataset | JoinedTokenDataset | NoisyDataset:
    """Returns the windows of a source that is in memory, or in files of tokens."""
    first = None if isinstance(source, str | TokenFile) else _first(source)
    if isinstance(source, TokenFile) or isinstance(first, TokenFile):
        files: list[Any] = [source] if isinstance(source, TokenFile) else list(source)
        _check_one_vocabulary(files, tokenizer)  # it made the ids: there is no need to read them all
        dataset = _of_files(files, windows)
        return dataset if noise is None else with_noise(dataset, noise, seed, files[0].eot_token, None)
    ids: Any = source
    words = None
    if isinstance(source, str) or isinstance(first, str | Mapping) or is_table(source):
        tokenizer = gpt2_tokenizer() if tokenizer is None else tokenizer
        if isinstance(source, str):
            ids = encoded(tokenizer, source)
        else:
            ids = encode_documents(source, tokenizer, field=field)
        words = partial(words_of, source, tokenizer, field)
    dataset = TokenDataset(ids, n_vocab=None if tokenizer is None else tokenizer.n_vocab, **windows)
    end = None if tokenizer is None else end_of_text(tokenizer)
    return dataset if noise is None else with_noise(dataset, noise, seed, end, words)


def _first(source: object) -> object:
    """Returns the first item, which tells documents, ids and files apart; ``None`` if there is none to look at.

    Raises:
        TypeError: If it could be read only to its end, and perhaps only once.
    """
    if isinstance(source, Tensor | Mapping | AbstractSet | bytes | bytearray) or hasattr(source, "read"):
        return None
    if isinstance(source, Iterable) and not isinstance(source, Sized):
        raise TypeError(
            f"source is a {type(source).__name__}, which has no length; pass streaming=True to encode its documents "
            "while they are read, or list(source) if all fit into memory"
        )
    if is_table(source) or not can_be_iterated(source):
        return None
    first: Any = next(iter(source), None)
    return first.as_py() if hasattr(first, "as_py") else first  # of pyarrow


def _check_one_vocabulary(files: Sequence[object], tokenizer: Tokenizer | None) -> None:
    """Raises an error if files were not all made with one tokenizer, or not with that which is given."""
    first: Any = files[0]
    for i, file in enumerate(files):
        if not isinstance(file, TokenFile):
            raise TypeError(f"source[{i}] must be a TokenFile, as source[0] is, got {of_type(file)}")
        if tokenizer is not None:
            file.check_tokenizer(tokenizer)
        if (file.n_vocab, file.tokenizer_sha256) != (first.n_vocab, first.tokenizer_sha256):
            sizes = "" if file.n_vocab == first.n_vocab else f", of {file.n_vocab} and {first.n_vocab} tokens"
            raise ValueError(
                f"{file.path} was made with another tokenizer than {first.path}{sizes}; tokenize all files with one"
            )


def _of_files(files: Sequence[TokenFile], windows: dict[str, Any]) -> TokenDataset | JoinedTokenDataset:
    """Returns the windows of files; one that is too short for a window is left out, as the tail of another is."""
    long_enough = [file for file in files if len(file) > windows["context_length"]]
    parts = [TokenDataset(file, **windows) for file in long_enough or [max(files, key=len)]]
    return parts[0] if len(parts) == 1 else JoinedTokenDataset(parts)


class WindowLoader(DataLoader[Batch]):
    """A ``DataLoader`` that works under ``torch.set_default_device``: it draws its seed on its generator's device."""

    @override
    def __iter__(self) -> "_BaseDataLoaderIter":
        with torch.device("cpu"):
            return super().__iter__()


def as_it_is(batch: Any) -> Batch:  # noqa: ANN401 - DataLoader's own type promises a list of samples
    """Returns the batch unchanged: `TokenDataset` gathers a whole batch at once."""
    inputs, targets = batch
    return inputs, targets


def _stacked(batch: Any) -> Batch:  # noqa: ANN401 - as above
    """Returns the windows of a stream as a batch."""
    inputs, targets = zip(*batch, strict=True)
    return torch.stack(inputs), torch.stack(targets)
