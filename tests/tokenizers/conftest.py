"""Tokenizers of other libraries, trained on a few sentences when a test asks for one."""

import io
import json
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest

tokenizers = pytest.importorskip("tokenizers")
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers  # noqa: E402

SENTENCES = [
    *["The quick brown fox, it's 12 o'clock. don't do not  stop ! 你好，世界。 naïve 🦊"] * 20,
    *["from the sea to the sea the seas"] * 5,
]
UNKNOWN = "<unk>"
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]
Maker = Callable[[str], Any]


def trained(model: Any, trainer: Any, **parts: Any) -> Any:  # noqa: ANN401 - not a dependency
    made = tokenizers.Tokenizer(model)
    for name, part in parts.items():
        setattr(made, name, part)
    made.train_from_iterator(SENTENCES, trainer)
    return made


def byte_level(special: list[str]) -> Any:  # noqa: ANN401
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    splitting = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return trained(models.BPE(), trainer, pre_tokenizer=splitting, decoder=decoders.ByteLevel())


def unigram(scheme: str) -> Any:  # noqa: ANN401
    trainer = trainers.UnigramTrainer(
        vocab_size=80, special_tokens=["</s>", "<unk>"], unk_token=UNKNOWN, show_progress=False
    )
    splitting, decoder = (part.Metaspace(prepend_scheme=scheme) for part in (pre_tokenizers, decoders))
    return trained(models.Unigram(), trainer, pre_tokenizer=splitting, decoder=decoder)


def word_pieces() -> Any:  # noqa: ANN401
    trainer = trainers.WordPieceTrainer(vocab_size=100, special_tokens=[UNKNOWN, "[CLS]", "[SEP]"], show_progress=False)
    parts = {"normalizer": normalizers.BertNormalizer(), "pre_tokenizer": pre_tokenizers.BertPreTokenizer()}
    return trained(models.WordPiece(unk_token=UNKNOWN), trainer, decoder=decoders.WordPiece(), **parts)


def byte_fallback(*, prefix: bool) -> Any:  # noqa: ANN401
    """As Llama's: a space before the text, and bytes for characters without a token."""
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=270, special_tokens=[*special, *BYTE_TOKENS], show_progress=False, limit_alphabet=9
    )
    spaces = normalizers.Replace(" ", "▁")
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefix else spaces
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    model = models.BPE(byte_fallback=True, unk_token=UNKNOWN)
    parts = json.loads(trained(model, trainer, normalizer=normalizer, decoder=decoder).to_str())
    parts["added_tokens"] = parts["added_tokens"][: len(special)]  # the bytes are ordinary tokens
    return tokenizers.Tokenizer.from_str(json.dumps(parts))


def sentence_pieces(**options: Any) -> Any:  # noqa: ANN401
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=model, hard_vocab_limit=False, minloglevel=2, **options
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


@pytest.fixture(scope="session")
def foreign() -> Maker:
    """Returns a function that returns a tokenizer of each kind, by name."""

    makers: dict[str, Callable[[], Any]] = {
        "byte-level": partial(byte_level, ["<|endoftext|>"]),
        "byte-level, another end": partial(byte_level, ["</s>"]),
        "unigram, prefix always": partial(unigram, "always"),
        "unigram, prefix never": partial(unigram, "never"),
        "unigram, prefix first": partial(unigram, "first"),
        "word pieces": word_pieces,
        "byte fallback": partial(byte_fallback, prefix=True),
        "byte fallback, no prefix": partial(byte_fallback, prefix=False),
        "sentencepiece": partial(sentence_pieces, vocab_size=80),
        "sentencepiece, byte fallback": partial(sentence_pieces, vocab_size=360, byte_fallback=True, model_type="bpe"),
    }
    return cache(lambda kind: makers[kind]())
