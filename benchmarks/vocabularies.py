"""What a vocabulary is worth on held-out text: bits per byte of a tiny model, for several texts and vocabularies.

    python benchmarks/vocabularies.py [--chinese FILE] [--text FILE ...] [--only WORD ...] [--sizes N ...]

Vocabularies are learned from the training part alone; the last tenth of each text, or a random tenth of the names, is
held out. A model with 2 layers of width 128 and a context of 128 tokens is trained on each, with about the same number
of operations, but at most --epochs passes: AdamW, cosine to zero. Bits per byte are nats / (bytes x ln 2), with every
held-out token predicted from at least 64 tokens before it where there are so many; the end of a name is one byte.
FILE is UTF-8 text. A run takes half a minute on one thread. The table is Markdown.
"""

import argparse
import json
import math
import random
import sys
import sysconfig
import time
import warnings
import zoneinfo
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from _measure import facts
from tinygpt2 import (
    CharTokenizer,
    GPT2Config,
    GPT2Model,
    Tokenizer,
    TrainingConfig,
    evaluate,
    gpt2_tokenizer,
    make_dataloader,
    sample_text,
    train,
    train_tokenizer,
    trim_vocabulary,
)
from tinygpt2.data.encoding import encode_documents
from tinygpt2.losses import IGNORE_INDEX
from tinygpt2.tokenizers.identity import token_bytes

CONTEXT, WIDTH, LAYERS, BATCH = 128, 128, 2, 4
KINDS = ["char", "trimmed", "bpe"]
SIZES = [500, 1000, 2000, 4000]

Documents = list[str]
Ids = npt.NDArray[np.integer[Any]]
Corpus = tuple[Documents, Documents]  # to train on and held out


def cut(text: str, size: int) -> Corpus:
    """Returns the first ``size`` bytes of a text, of which a tenth, but at least 10 kB, is held out."""
    text = text.encode()[:size].decode(errors="ignore")
    held = max(len(text) // 10, min(len(text) // 2, 10_000 * len(text) // len(text.encode())))
    return [text[:-held]], [text[-held:]]


def names(number: int = 30_000) -> Corpus:
    """Returns names such as a chain of letters makes of those of the world's cities, each a document."""
    cities = sorted({zone.rpartition("/")[2] for zone in zoneinfo.available_timezones()})
    follow: defaultdict[str, list[str]] = defaultdict(list)
    for city in cities:
        for i, letter in enumerate(city + "\n"):
            follow[city[max(0, i - 2) : i]].append(letter)
    rng = random.Random(0)  # noqa: S311
    found: dict[str, None] = {}
    while len(found) < number:
        name = ""
        while not name.endswith("\n"):
            name += rng.choice(follow[name[-2:]])
        if 4 < len(name) < 16 and name.strip().isalpha():
            found[name.strip()] = None
    every = rng.sample(list(found), number)
    return every[number // 10 :], every[: number // 10]


def code() -> str:
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    random.Random(0).shuffle(files)  # noqa: S311
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def corpora(chinese: Path | None, texts: list[Path]) -> dict[str, Corpus]:
    english, python = " ".join(topics.values()), code()
    found = {}
    if chinese:
        text = chinese.read_text(encoding="utf-8")
        mixed = (english[3 * i : 3 * i + 1500] + "\n" + text[i : i + 500] + "\n" for i in range(0, 33_000, 500))
        found["Chinese, 100 KB"] = cut(text, 100_000)
        found["Chinese, 15 KB"] = cut(text[300_000:], 15_000)
        found["English and Chinese, 200 KB"] = cut("".join(mixed), 200_000)
        found["Chinese, 400 KB"] = cut(text, 400_000)
    found |= {
        "English, 100 KB": cut(english, 100_000),
        "English, 15 KB": cut(english[200_000:], 15_000),
        "names": names(),
        "code, 100 KB": cut(python, 100_000),
        "code, 400 KB": cut(python, 400_000),
        "English, 460 KB": cut(english, 500_000),
        "sample text": cut(sample_text(), 100_000),
    }
    for path in texts:
        found[path.name] = cut(path.read_text(encoding="utf-8"), 100_000)
    return found


def vocabularies(documents: Documents, kinds: list[str], sizes: list[int]) -> Iterator[tuple[str, Tokenizer]]:
    if "char" in kinds:
        yield "char", CharTokenizer.from_text(documents, byte_fallback=True)
    if "trimmed" in kinds:
        yield "trimmed", trim_vocabulary(gpt2_tokenizer(), documents)
    for size in sizes if "bpe" in kinds else []:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                tokenizer = train_tokenizer(documents, size)
        except UserWarning:  # the text has not so many pairs
            break
        yield "bpe", tokenizer


def ids_of(documents: Documents, tokenizer: Tokenizer) -> Ids:
    """Returns the ids of several documents, each with its end, or of a text."""
    if len(documents) > 1:
        return encode_documents(documents, tokenizer)
    return np.array(tokenizer.encode_ordinary(documents[0]))


def trained(ids: Ids, tokenizer: Tokenizer, operations: float, most: float) -> tuple[GPT2Model, int]:
    """Returns a model, and the steps of its training."""
    torch.manual_seed(0)
    shape = GPT2Config(vocab_size=tokenizer.n_vocab, context_length=CONTEXT, n_layer=LAYERS, n_head=4, n_embd=WIDTH)
    model = GPT2Model(shape)
    per_token = 12 * LAYERS * WIDTH**2 + WIDTH * tokenizer.n_vocab  # multiplications, forwards
    steps = int(min(operations / per_token, most * len(ids)) / (BATCH * CONTEXT))
    loader = make_dataloader(ids, batch_size=BATCH, context_length=CONTEXT, stride=CONTEXT, shuffle=True)
    config = TrainingConfig(
        max_steps=steps,
        learning_rate=3e-3,
        min_learning_rate=0.0,
        schedule="cosine",
        warmup_steps=steps // 20,
        weight_decay=1.0,
        eval_every=steps,
        eval_batches=1,
    )
    train(model, loader, config=config, device="cpu", progress=False)
    return model, steps


def bits_per_byte(model: GPT2Model, ids: Ids, tokenizer: Tokenizer) -> float:
    sizes = torch.tensor(token_bytes(tokenizer))
    batches, total = [], 0
    for begin in range(0, len(ids) - 1, CONTEXT // 2):
        window = torch.tensor(ids[begin : begin + CONTEXT + 1].astype(np.int64))
        inputs, targets = window[:-1], window[1:].clone()
        if begin:
            targets[: CONTEXT // 2] = IGNORE_INDEX  # the window before has them
        counted = targets[targets != IGNORE_INDEX]
        if len(counted):
            batches.append((inputs[None], targets[None]))
            total += int(sizes[counted].sum())
    result = evaluate(model, batches)
    return result.loss * result.tokens / (total * math.log(2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chinese", type=Path, metavar="FILE")
    parser.add_argument("--text", type=Path, nargs="*", default=[], metavar="FILE")
    parser.add_argument("--only", nargs="*", default=[], metavar="WORD", help="texts whose name has one of these in it")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N", help="of byte-pair vocabularies")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--operations", type=float, default=1.5e11, help="multiplications of a run's forward passes")
    parser.add_argument("--epochs", type=float, default=10)
    options = parser.parse_args()
    rows = []
    print("| text | vocabulary | tokens | tokens a byte | bits per byte |\n|---|---|--:|--:|--:|")
    for name, (documents, held) in corpora(options.chinese, options.text).items():
        if options.only and not any(word in name for word in options.only):
            continue
        size = sum(len(text.encode()) for text in documents)
        for kind, tokenizer in vocabularies(documents, options.kinds, options.sizes):
            began = time.perf_counter()
            ids = ids_of(documents, tokenizer)
            model, steps = trained(ids, tokenizer, options.operations, options.epochs)
            bits = bits_per_byte(model, ids_of(held, tokenizer), tokenizer)
            ratio = len(ids) / (size + len(documents) * (len(documents) > 1))
            print(f"| {name} | {kind} | {tokenizer.n_vocab:,} | {ratio:.3f} | {bits:.3f} |", flush=True)
            epochs, seconds = steps * BATCH * CONTEXT / len(ids), time.perf_counter() - began
            print(f"{steps} steps, {epochs:.1f} epochs, {seconds:.0f} s", file=sys.stderr, flush=True)
            rows.append({"text": name, "bytes": size, "kind": kind, "tokens": tokenizer.n_vocab,
                         "tokens_a_byte": ratio, "bits_per_byte": bits})  # fmt: skip
    print(f"\n{json.dumps({'results': rows, 'operations': options.operations, 'epochs': options.epochs, **facts()})}")


if __name__ == "__main__":
    main()
