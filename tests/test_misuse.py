"""Misuse: every public function is called with each of its arguments replaced by values of every wrong kind.

A value works, or it is refused: by an error that tinygpt2 raises itself, which says what was expected and what came, or
by one that the docstring promises. What works is written down for each kind of argument, so that nothing passes
unnoticed. A new public name, or a new argument, needs an entry.
"""

import builtins
import dis
import inspect
import math
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial, wraps
from pathlib import Path
from typing import Any, is_typeddict
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import tinygpt2
from tinygpt2 import (
    Callback,
    CharTokenizer,
    DocumentSplit,
    GPT2Config,
    GPT2Model,
    GreedySampler,
    KVCache,
    NextTokenLoss,
    TokenFile,
    TrainingConfig,
    TrainingHistory,
    TrainState,
    encode_documents,
    make_dataloader,
    make_optimizer,
    quantize,
    save_tokenizer,
    tokenize_to_file,
    tokenize_to_shards,
    train,
)
from tinygpt2.interop.checkpoints import _BOOKS_BLOCK, _BOOKS_REST

PACKAGE = Path(tinygpt2.__file__).parent

BAD: dict[str, Callable[[], object]] = {
    "None": lambda: None,
    "True": lambda: True,
    "'x'": lambda: "x",
    "''": lambda: "",
    "b'x'": lambda: b"x",
    "-1": lambda: -1,
    "0": lambda: 0,
    "1.5": lambda: 1.5,
    "nan": lambda: math.nan,
    "inf": lambda: math.inf,
    "2**31": lambda: 2**31,
    "2**63": lambda: 2**63,
    "10**30": lambda: 10**30,
    "10**400": lambda: 10**400,
    "[]": list,
    "{}": dict,
    "set": lambda: {1},
    "object": object,
    "class": lambda: int,
    "lambda": lambda: lambda: None,
    "empty tensor": lambda: torch.tensor([]),
    "0-d tensor": lambda: torch.tensor(1),
    "float tensor": lambda: torch.zeros(2, 3),
    "bool tensor": lambda: torch.zeros(2, 3, dtype=torch.bool),
    "meta tensor": lambda: torch.zeros(2, 3, dtype=torch.int64, device="meta"),
    "np.int64": lambda: np.int64(2),
    "np.float32": lambda: np.float32(0.5),
    "np.bool_": lambda: np.bool_(True),
    "np.array([])": lambda: np.array([]),
}
"""The values, made anew for each call."""

SHAPE = GPT2Config(vocab_size=5, context_length=8, n_layer=1, n_head=2, n_embd=8)
LETTERS = CharTokenizer("abcd")
IDS = [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([[0, 1, 2]]), torch.tensor([[1, 2, 3]])


def logits() -> torch.Tensor:
    return torch.arange(6.0).view(2, 3)


def ending(logits: torch.Tensor, /, *, generator: torch.Generator | None = None) -> torch.Tensor:
    """A sampler that ends the text at once, however many tokens may follow."""
    del generator
    return torch.full((len(logits),), LETTERS.eot_token)


def history() -> TrainingHistory:
    return TrainingHistory([0, 1], [0.0, 1.0], [0, 9], [3.0, 2.0], [3.0, None], [0.0, 1.0])


def marks() -> tinygpt2.Baselines:
    return tinygpt2.Baselines(
        ngram=1.0, order=4, xz=1.0, untrained=8.0, bytes=3, training_bytes=9, training_bytes_in_all=9
    )


def token_file() -> TokenFile:
    return tokenize_to_file(["abcdabcdab"], "abcd.tokens", tokenizer=LETTERS)


def checkpoint() -> str:
    if not Path("run").exists():
        train(GPT2Model(SHAPE), [pair()], progress=False, device="cpu", checkpoint_dir="run", tokenizer=LETTERS)
    return "run"


def state(model: GPT2Model | None = None) -> TrainState:
    model = model or GPT2Model(SHAPE)
    return TrainState(model, make_optimizer(model, TrainingConfig()), TrainingConfig(), total_steps=1)


@dataclass
class Call:
    """A call that works: the function, and all of its arguments."""

    function: Callable[..., Any]
    arguments: dict[str, Any] = field(default_factory=dict)

    def __call__(self, **replaced: object) -> object:
        """Calls the function with some arguments replaced, and uses up what it returns if that is an iterator."""
        given = self.arguments | replaced
        parameters = inspect.signature(self.function).parameters.values()
        first = [given.pop(p.name) for p in parameters if p.kind is p.POSITIONAL_ONLY]
        result = self.function(*first, **given)
        return list(result) if isinstance(result, Iterator | DataLoader) else result


def fields(made: object) -> dict[str, Any]:
    return {name: getattr(made, name) for name in inspect.signature(type(made)).parameters}


def sampler_call(sampler: Callable[..., Any]) -> Call:
    return Call(sampler, {"logits": logits(), "tokens": None, "generator": None})


def optimizer_of(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    return make_optimizer(model, config)


def training_step_call() -> Call:
    model = GPT2Model(SHAPE)
    optimizer = make_optimizer(model, TrainingConfig())
    options = {"max_grad_norm": 1.0, "precision": "fp32", "seed": 0}
    given = {"objective": NextTokenLoss(model), "optimizer": optimizer, "micro_batches": [pair()]}
    return Call(tinygpt2.training_step, given | options)


def cache_calls() -> dict[str, Callable[[], Call]]:
    def cache() -> KVCache:
        return KVCache(SHAPE, 1)

    new = torch.zeros(1, 2, 3, 4)
    given = {"config": SHAPE, "batch_size": 1, "capacity": 4, "padding": None, "device": "meta", "dtype": None}
    return {
        "KVCache": lambda: Call(KVCache, given),
        "KVCache.reset": lambda: Call(cache().reset, {"padding": torch.tensor([1])}),
        "KVCache.positions": lambda: Call(cache().positions, {"n": 2}),
        "KVCache.attention_mask": lambda: Call(cache().attention_mask, {"n": 2}),
        "KVCache.update": lambda: Call(cache().update, {"layer": 0, "keys": new, "values": new}),
        "KVCache.advance": lambda: Call(cache().advance, {"n": 2}),
    }


def model_calls() -> dict[str, Callable[[], Call]]:
    def model() -> GPT2Model:
        return GPT2Model(SHAPE)

    def saved() -> str:
        model().save_pretrained("saved")
        return "saved"

    tokens = {"tokens": torch.tensor([[1, 2, 3]]), "cache": None}
    hidden = torch.zeros(2, 8)
    return {
        "GPT2Model": lambda: Call(GPT2Model, {"config": SHAPE}),
        "GPT2Model.forward": lambda: Call(model().forward, tokens),
        "GPT2Model.last_logits": lambda: Call(model().last_logits, tokens),
        "GPT2Model.hidden_states": lambda: Call(model().hidden_states, tokens),
        "GPT2Model.splits": lambda: Call(model().splits),
        "GPT2Model.head": lambda: Call(model().head, {"hidden": hidden}),
        "GPT2Model.num_parameters": lambda: Call(model().num_parameters),
        "GPT2Model.from_pretrained": lambda: Call(
            GPT2Model.from_pretrained,
            {"path": saved(), "dtype": None, "context_length": None, "revision": None, "token": None},
        ),
        "GPT2Model.with_vocab_size": lambda: Call(model().with_vocab_size, {"vocab_size": 40}),
        "quantize": lambda: Call(quantize, {"model": model()}),
        "GPT2Model.save_pretrained": lambda: Call(
            model().save_pretrained, {"path": "out", "tokenizer": LETTERS, "max_shard_size": 100}
        ),
        "NGramModel": lambda: Call(tinygpt2.NGramModel, {"tokens": IDS, "vocab_size": 4, "order": 2}),
        **{
            f"NGramModel.{name}": partial(ngram_call, name)
            for name in ("forward", "probabilities", "last_probabilities")
        },
        "Mixture": lambda: Call(tinygpt2.Mixture, {"models": [model()], "weights": [1.0]}),
        "Mixture.forward": lambda: Call(tinygpt2.Mixture([model()]).forward, {"tokens": pair()[0]}),
        "Mixture.probabilities": lambda: Call(tinygpt2.Mixture([model()]).probabilities, {"tokens": pair()[0]}),
        "DistillationLoss": lambda: Call(tinygpt2.DistillationLoss, {"model": model(), "teacher": model()}),
        "DistillationLoss.forward": lambda: Call(
            tinygpt2.DistillationLoss(model(), model()).forward,
            {"inputs": pair()[0], "targets": pair()[1], "scale": 1.0},
        ),
        "NextTokenLoss": lambda: Call(NextTokenLoss, {"model": model()}),
        "NextTokenLoss.forward": lambda: Call(
            NextTokenLoss(model()).forward, {"inputs": pair()[0], "targets": pair()[1], "scale": 1.0}
        ),
    }


def ngram_call(name: str) -> Call:
    return Call(getattr(tinygpt2.NGramModel(IDS, 4, 2), name), {"tokens": pair()[0]})


def data_calls() -> dict[str, Callable[[], Call]]:
    loader = {"source": IDS, "batch_size": 2, "context_length": 3, "stride": 2, "shuffle": True, "drop_last": True}
    loader |= {"tokenizer": LETTERS, "seed": 0, "field": "text", "streaming": False, "noise": None}
    dataset = tinygpt2.TokenDataset(IDS, context_length=3)
    return {
        "make_dataloader": lambda: Call(make_dataloader, loader),
        "mix_sequences": lambda: Call(
            tinygpt2.mix_sequences,
            {
                "loader": make_dataloader(IDS, batch_size=2, context_length=3),
                "sequences": torch.zeros(2, 4, dtype=torch.int64),
                "real_share": 0.5,
            },
        ),
        "TextNoise": lambda: Call(tinygpt2.TextNoise, fields(tinygpt2.TextNoise())),
        "TokenDataset": lambda: Call(
            tinygpt2.TokenDataset, {"tokens": IDS, "context_length": 3, "stride": 2, "n_vocab": 4}
        ),
        "TokenDataset.__getitem__": lambda: Call(dataset.__getitem__, {"index": 1}),
        "TokenDataset.__getitems__": lambda: Call(dataset.__getitems__, {"indices": [0, 1]}),
        "TokenFile": lambda: Call(TokenFile, {"path": token_file().path}),
        "TokenFile.__getitem__": lambda: Call(token_file().__getitem__, {"part": slice(2)}),
        "TokenFile.check_tokenizer": lambda: Call(token_file().check_tokenizer, {"tokenizer": LETTERS}),
        "TokenFile.identity": lambda: Call(token_file().identity),
        "TokenFile.verify": lambda: Call(token_file().verify),
        "tokenize_to_file": lambda: Call(
            tokenize_to_file,
            {
                "source": ["abc"],
                "out": "a.tokens",
                "tokenizer": LETTERS,
                "threads": 1,
                "documents": True,
                "field": "text",
            },
        ),
        "encode_documents": lambda: Call(
            encode_documents, {"documents": ["abc"], "tokenizer": LETTERS, "field": "text"}
        ),
        "tokenize_to_shards": lambda: Call(
            tokenize_to_shards,
            {
                "source": ["abc"],
                "directory": tempfile.mkdtemp(dir="."),  # a finished corpus reads no source
                "shard_bytes": 2,
                "tokenizer": LETTERS,
                "threads": 1,
                "share": (1, 1),
                "documents": True,
                "field": "text",
            },
        ),
    }


def text_calls() -> dict[str, Callable[[], Call]]:
    def written() -> str:
        Path("a.txt").write_text("abc", encoding="utf-8")
        return "a.txt"

    def directory() -> str:
        Path("model").mkdir(exist_ok=True)
        save_tokenizer(LETTERS, "model")
        return "model"

    return {
        "CharTokenizer": lambda: Call(CharTokenizer, {"characters": "abc", "byte_fallback": False}),
        "CharTokenizer.from_text": lambda: Call(CharTokenizer.from_text, {"text": "abc", "byte_fallback": False}),
        "CharTokenizer.encode_ordinary": lambda: Call(LETTERS.encode_ordinary, {"text": "abc"}),
        "CharTokenizer.decode": lambda: Call(LETTERS.decode, {"tokens": [0, 1]}),
        "TokenizerChoice": lambda: Call(
            tinygpt2.TokenizerChoice,
            {"tokenizer": LETTERS, "name": "char", "reason": "short", "per_byte": 1.0, "alternatives": {}},
        ),
        "choose_tokenizer": lambda: Call(
            tinygpt2.choose_tokenizer, {"documents": "abcabc", "kind": "bpe", "vocab_size": 258}
        ),
        "clean_text": lambda: Call(tinygpt2.clean_text, {"text": "a\nb"}),
        "gpt2_tokenizer": lambda: Call(tinygpt2.gpt2_tokenizer),
        "load_tokenizer": lambda: Call(tinygpt2.load_tokenizer, {"path": directory(), "revision": None, "token": None}),
        "read_documents": lambda: Call(
            tinygpt2.read_documents, {"paths": written(), "field": "text", "separator": "b"}
        ),
        "read_text": lambda: Call(tinygpt2.read_text, {"path": written()}),
        "sample_text": lambda: Call(tinygpt2.sample_text),
        "save_tokenizer": lambda: Call(save_tokenizer, {"tokenizer": LETTERS, "directory": directory()}),
        "split_documents": lambda: Call(
            tinygpt2.split_documents, {"documents": ["abc", "bcd"], "train_ratio": 0.5, "seed": 0, "field": "text"}
        ),
        "DocumentSplit": lambda: Call(DocumentSplit, {"train": ["abc"], "val": ["bcd"], "duplicates": 0}),
        "split_text": lambda: Call(tinygpt2.split_text, {"text": "abcdef", "train_ratio": 0.5}),
        "tensor_to_text": lambda: Call(tinygpt2.tensor_to_text, {"tokens": torch.tensor([0, 1]), "tokenizer": LETTERS}),
        "text_to_tensor": lambda: Call(tinygpt2.text_to_tensor, {"text": "abc", "tokenizer": LETTERS}),
        "train_tokenizer": lambda: Call(
            tinygpt2.train_tokenizer, {"documents": "abcabc", "vocab_size": 259, "special_tokens": ["<a>"]}
        ),
        "add_special_tokens": lambda: Call(
            tinygpt2.add_special_tokens, {"tokenizer": tinygpt2.gpt2_tokenizer(), "special_tokens": ["<a>"]}
        ),
        "trim_vocabulary": lambda: Call(
            tinygpt2.trim_vocabulary, {"tokenizer": tinygpt2.gpt2_tokenizer(), "text": "abc"}
        ),
    }


def sampling_call() -> Call:
    numbers = {"count": 2, "length": 4, "prompt_tokens": 2, "batch_size": 2, "seed": 0}
    return Call(tinygpt2.sample_sequences, {"model": tinygpt2.NGramModel(IDS, 4), "tokens": IDS} | numbers)


def generation_calls() -> dict[str, Callable[[], Call]]:
    def options() -> dict[str, Any]:
        numbers = {"max_new_tokens": 2, "min_new_tokens": 0, "max_time": 9.0}
        return {"sampler": ending, "overflow": "restart", "generator": torch.Generator()} | numbers

    def tokens() -> dict[str, Any]:
        return {"model": GPT2Model(SHAPE), "tokens": torch.tensor([[1, 2]]), "eos_id": LETTERS.eot_token} | options()

    def scores() -> dict[str, Any]:
        return {"n": 2, "return_scores": True, "top": 2}

    def text() -> dict[str, Any]:
        return {"model": GPT2Model(SHAPE), "tokenizer": LETTERS, "prompt": "ab", "stop": "x"} | options()

    def samplers() -> Iterator[tuple[str, Callable[[], Call]]]:
        for made in (
            GreedySampler(),
            tinygpt2.MultinomialSampler(),
            tinygpt2.TopKSampler(3),
            tinygpt2.TemperatureSampler(0.7),
            tinygpt2.TopPSampler(0.9),
            tinygpt2.MinPSampler(0.1),
            tinygpt2.TypicalSampler(0.9),
            tinygpt2.EtaSampler(0.1),
            tinygpt2.RepetitionPenaltySampler(1.2),
            tinygpt2.PresencePenaltySampler(0.5),
            tinygpt2.FrequencyPenaltySampler(0.5),
            tinygpt2.NoRepeatNGramSampler(2),
            tinygpt2.LogitBiasSampler({1: 2.0}),
            tinygpt2.BannedTokensSampler([1]),
            tinygpt2.BannedStringsSampler("a", CharTokenizer("ab")),
        ):
            yield type(made).__name__, partial(Call, type(made), fields(made))
            yield f"{type(made).__name__}.__call__", partial(sampler_call, made)

    return {
        "sample_sequences": sampling_call,
        "generate": lambda: Call(tinygpt2.generate, tokens() | scores()),
        "stream": lambda: Call(tinygpt2.stream, tokens()),
        "generate_text": lambda: Call(tinygpt2.generate_text, text() | {"n": 2, "best_of": 2}),
        "stream_text": lambda: Call(tinygpt2.stream_text, text() | {"return_scores": True}),
        "Scored": lambda: Call(
            tinygpt2.Scored,
            vars(tinygpt2.generate(GPT2Model(SHAPE), pair()[0], max_new_tokens=1, return_scores=True)),
        ),
        "ScoredPiece": lambda: Call(tinygpt2.ScoredPiece, {"text": "a", "log_probability": -1.0}),
        **dict(samplers()),
    }


MIXED = ("first", "train_loader", "distillation")


def training_calls() -> dict[str, Callable[[], Call]]:
    def training() -> Call:
        given = {"model": GPT2Model(SHAPE), "train_loader": [pair()], "val_loader": [pair()]}
        config: dict[str, Any] = {
            "config": TrainingConfig(),
            "teacher": None,
            "optimizer": optimizer_of,
            "callbacks": [],
            "tokenizer": LETTERS,
        }
        saving = {"checkpoint_dir": None, "checkpoint_every": None, "checkpoint_keep": 2}
        return Call(
            train,
            given
            | config
            | saving
            | {"device": "cpu", "resume": False, "allow_changes": False, "keep_best": False}
            | {"progress": False},
        )

    def measuring() -> dict[str, Any]:
        return {"model": GPT2Model(SHAPE), "tokenizer": LETTERS, "stride": 1, "batch_size": 1}

    one = {"step": 1, "epoch": 1.0, "tokens_seen": 9, "train_loss": 2.0, "val_loss": 2.0, "learning_rate": 1.0}
    one |= {"train_bits_per_byte": 1.0, "val_bits_per_byte": 1.0, "seconds": 1.0}

    def saved() -> str:
        history().save("history.json")
        return "history.json"

    def distilling() -> Call:
        given: dict[str, Any] = {"student": GPT2Model(SHAPE), "first": GPT2Model(SHAPE), "val_loader": None}
        given |= {"train_loader": make_dataloader(IDS, batch_size=2, context_length=3), "config": TrainingConfig()}
        return Call(
            tinygpt2.distil,
            given | {"distillation": tinygpt2.Distillation(), "samples": None, "device": "cpu", "progress": False},
        )

    return {
        "train": training,
        "distil": distilling,
        "mixture_of": lambda: Call(
            tinygpt2.mixture_of,
            {name: value for name, value in distilling().arguments.items() if name in MIXED},
        ),
        "training_step": training_step_call,
        "evaluate": lambda: Call(
            tinygpt2.evaluate,
            {"model": GPT2Model(SHAPE), "loader": [pair()], "max_batches": 1, "tokenizer": LETTERS},
        ),
        "evaluate_text": lambda: Call(tinygpt2.evaluate_text, measuring() | {"source": ["ab"], "field": "text"}),
        "score": lambda: Call(tinygpt2.score, measuring() | {"text": "ab"}),
        "baselines": lambda: Call(
            tinygpt2.baselines,
            {"training": ["ab"], "held_out": ["ab"], "tokenizer": LETTERS, "order": 2, "most_bytes": 9},
        ),
        "Baselines": lambda: Call(tinygpt2.Baselines, fields(marks())),
        "Baselines.rows": lambda: Call(marks().rows),
        "Baselines.to_dict": lambda: Call(marks().to_dict),
        "Baselines.from_dict": lambda: Call(tinygpt2.Baselines.from_dict, {"content": fields(marks())}),
        "copied_share": lambda: Call(tinygpt2.copied_share, {"text": "ab", "training": "ab", "length": 2}),
        **recipe_calls(),
        "make_optimizer": lambda: Call(
            make_optimizer,
            {"model": GPT2Model(SHAPE), "config": TrainingConfig(), "tokenizer": LETTERS, "fused": True},
        ),
        "learning_rate_at": lambda: Call(
            tinygpt2.learning_rate_at, {"step": 1, "total_steps": 2, "config": TrainingConfig()}
        ),
        "newest_checkpoint": lambda: Call(tinygpt2.newest_checkpoint, {"directory": checkpoint()}),
        **{
            name: partial(Call, getattr(tinygpt2, name), {"function": print})
            for name in ("on_step", "on_evaluation", "on_epoch")
        },
        "Callback": lambda: Call(Callback),
        "EarlyStopping": lambda: Call(tinygpt2.EarlyStopping, {"patience": 2, "min_delta": 0.0}),
        "ProgressBar": lambda: Call(tinygpt2.ProgressBar),
        "TensorBoardLogger": lambda: Call(tinygpt2.TensorBoardLogger, {"directory": "board"}),
        "TextSamples": lambda: Call(
            tinygpt2.TextSamples,
            {"prompt": "ab", "tokenizer": LETTERS, "max_new_tokens": 2, "sampler": GreedySampler()},
        ),
        "TrainState": lambda: Call(TrainState, fields(state())),
        "TrainState.averaged": lambda: Call(state().averaged),
        "TrainState.interrupt": lambda: Call(state().interrupt),
        "TrainState.stop": lambda: Call(state().stop, {"reason": "good enough"}),
        "Progress": lambda: Call(tinygpt2.Progress, fields(tinygpt2.Progress())),
        "Progress.from_dict": lambda: Call(tinygpt2.Progress.from_dict, {"content": fields(tinygpt2.Progress())}),
        "TrainingHistory": lambda: Call(TrainingHistory, fields(history())),
        "TrainingHistory.append": lambda: Call(history().append, one),
        "TrainingHistory.save": lambda: Call(history().save, {"path": "saved.json"}),
        "TrainingHistory.load": lambda: Call(TrainingHistory.load, {"path": saved()}),
        "TrainingHistory.from_dict": lambda: Call(TrainingHistory.from_dict, {"content": fields(history())}),
        "TrainingHistory.plot": lambda: Call(history().plot, {"baselines": marks()}),
        "Evaluation": lambda: Call(
            tinygpt2.Evaluation, fields(tinygpt2.Evaluation(loss=1.0, perplexity=math.e, tokens=3, bytes=3))
        ),
        "TokenScore": lambda: Call(
            tinygpt2.TokenScore, fields(tinygpt2.TokenScore(0, "a", log_probability=-1.0, rank=1, start=0, end=1))
        ),
        "StepResult": lambda: Call(tinygpt2.StepResult, {"loss": 1.0, "grad_norm": 1.0, "tokens": 3}),
    }


def recipe_calls() -> dict[str, Callable[[], Call]]:
    text = tinygpt2.TextStatistics(bytes=9000)
    machine = {"minutes": 1.0, "speed": 1e9, "memory": 2**30, "spent": 0.0, "processes": 1}
    recipe = tinygpt2.recommend(text, minutes=1, speed=1e9, memory=2**30)
    return {
        "recommend": lambda: Call(
            tinygpt2.recommend,
            {"documents": ["ab"], "device": "cpu", "given": {}, "pretrained": SHAPE, **machine},
        ),
        "Recipe": lambda: Call(tinygpt2.Recipe, fields(recipe)),
        "Recipe.explain": lambda: Call(recipe.explain),
        "TextStatistics": lambda: Call(tinygpt2.TextStatistics, fields(text)),
        "TextStatistics.of": lambda: Call(tinygpt2.TextStatistics.of, {"documents": ["ab"], "tokenizer": LETTERS}),
    }


def other_calls() -> dict[str, Callable[[], Call]]:
    return {
        "GPT2Config": lambda: Call(GPT2Config, fields(SHAPE)),
        "GPT2Config.to_dict": lambda: Call(SHAPE.to_dict),
        "GPT2Config.preset": lambda: Call(GPT2Config.preset, {"name": "gpt2-nano"}),
        "Distillation": lambda: Call(tinygpt2.Distillation, fields(tinygpt2.Distillation())),
        "TrainingConfig": lambda: Call(TrainingConfig, fields(TrainingConfig())),
        "cross_entropy_loss": lambda: Call(
            tinygpt2.cross_entropy_loss, {"logits": logits(), "targets": torch.tensor([0, 1]), "ignore_index": -100}
        ),
        "perplexity": lambda: Call(tinygpt2.perplexity, {"loss": 1.0}),
        "show": lambda: Call(
            tinygpt2.show,
            {
                "model": GPT2Model(SHAPE),
                "tokenizer": LETTERS,
                "title": "x",
                "prompt": "",
                "history": history(),
                "text": None,
            },
        ),
        "ModelPage": lambda: Call(tinygpt2.ModelPage, {"html": ""}),
        "ModelPage.save": lambda: Call(tinygpt2.ModelPage("").save, {"path": "page.html"}),
        "plot_losses": lambda: Call(tinygpt2.plot_losses, {"history": history(), "baselines": marks()}),
        "plot_temperatures": lambda: Call(
            tinygpt2.plot_temperatures, {"logits": logits()[0], "temperatures": (1.0,), "labels": ["a", "b", "c"]}
        ),
        "plot_token_frequencies": lambda: Call(
            tinygpt2.plot_token_frequencies,
            {
                "sampler": GreedySampler(),
                "logits": logits()[0],
                "tokens": torch.tensor([0]),
                "draws": 5,
                "labels": ["a", "b", "c"],
                "generator": None,
            },
        ),
    }


def nanogpt_file() -> str:
    arguments = {"vocab_size": 5, "block_size": 8, "n_layer": 1, "n_head": 1, "n_embd": 8, "dropout": 0.0}
    torch.save({"model": GPT2Model(SHAPE).state_dict(), "model_args": arguments}, "ckpt.pt")
    return "ckpt.pt"


def book_file() -> str:
    with torch.device("meta"):
        ours = {name: torch.zeros(weight.shape, device="cpu") for name, weight in GPT2Model(SHAPE).state_dict().items()}
    theirs = {name: ours[our] for our, name in _BOOKS_REST.items()} | {"out_head.weight": ours["wte.weight"]}
    theirs |= {f"trf_blocks.0.{name}": ours[f"h.0.{our}"] for name, our in _BOOKS_BLOCK.items()}
    theirs |= {f"trf_blocks.0.att.W_{name}.weight": torch.zeros(8, 8) for name in ("query", "key", "value")}
    torch.save(theirs, "model.pth")
    return "model.pth"


def model_directory() -> str:
    GPT2Model(SHAPE).save_pretrained("uploaded", tokenizer=LETTERS)
    return "uploaded"


@wraps(tinygpt2.push_to_hub)
def pushed(*arguments: Any, **options: Any) -> str:  # noqa: ANN401 - of push_to_hub
    """Calls `push_to_hub` with a stand-in for the Hub."""
    with mock.patch("huggingface_hub.HfApi"):
        return tinygpt2.push_to_hub(*arguments, **options)


def interop_calls() -> dict[str, Callable[[], Call]]:
    def causal() -> tinygpt2.CausalLM:
        return tinygpt2.CausalLM(GPT2Model(SHAPE))

    logits_and_text = {"logits": logits(), "tokens": torch.tensor([[0], [1]]), "generator": None}
    return {
        "CausalLM": lambda: Call(tinygpt2.CausalLM, {"model": GPT2Model(SHAPE)}),
        "CausalLM.forward": lambda: Call(
            causal().forward,
            {
                "input_ids": torch.tensor([IDS[:8]]),
                "labels": torch.tensor([IDS[:8]]),
                "attention_mask": None,
                "num_items_in_batch": None,
            },
        ),
        "CausalLM.get_input_embeddings": lambda: Call(causal().get_input_embeddings),
        "CausalLM.gradient_checkpointing_disable": lambda: Call(causal().gradient_checkpointing_disable),
        "CausalLM.gradient_checkpointing_enable": lambda: Call(
            causal().gradient_checkpointing_enable, {"gradient_checkpointing_kwargs": None}
        ),
        "CausalLM.prepare_inputs_for_generation": lambda: Call(
            causal().prepare_inputs_for_generation, {"input_ids": torch.tensor([IDS])}
        ),
        "ProcessorSampler": lambda: Call(
            tinygpt2.ProcessorSampler, {"processor": lambda _, scores: scores, "then": GreedySampler()}
        ),
        "ProcessorSampler.__call__": lambda: Call(
            tinygpt2.ProcessorSampler(lambda _, scores: scores, then=GreedySampler()), logits_and_text
        ),
        "SamplerProcessor": lambda: Call(tinygpt2.SamplerProcessor, {"sampler": GreedySampler(), "generator": None}),
        "SamplerProcessor.__call__": lambda: Call(
            tinygpt2.SamplerProcessor(GreedySampler()), {"input_ids": torch.tensor([[0], [1]]), "scores": logits()}
        ),
        "model_card": lambda: Call(tinygpt2.model_card, {"directory": model_directory(), "repo_id": "a/b"}),
        "push_to_hub": lambda: Call(
            pushed, {"directory": model_directory(), "repo_id": "a/b", "private": True, "token": None}
        ),
        "load_nanogpt": lambda: Call(tinygpt2.load_nanogpt, {"path": nanogpt_file()}),
        "load_llms_from_scratch": lambda: Call(tinygpt2.load_llms_from_scratch, {"path": book_file(), "n_head": 2}),
    }


CALLS = (
    cache_calls()
    | model_calls()
    | data_calls()
    | text_calls()
    | generation_calls()
    | training_calls()
    | interop_calls()
    | other_calls()
)
"""A call that works, made anew each time, for each public function, class and method."""


def public() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yields the public functions, the classes that users make objects of, and the methods that they call."""
    for name in vars(tinygpt2)["__all__"]:
        found = getattr(tinygpt2, name)
        if not isinstance(found, type):
            yield name, found
        elif not (getattr(found, "_is_protocol", False) or is_typeddict(found) or issubclass(found, Exception)):
            yield name, found
            for member, value in members(found).items():
                called_by_train = issubclass(found, Callback) and member.startswith("on_")
                special = member in {"__call__", "__getitem__", "__getitems__"}
                is_method = inspect.isfunction(value) or isinstance(value, classmethod | staticmethod)
                if is_method and (special or not member.startswith("_")) and not called_by_train:
                    yield f"{name}.{member}", getattr(found, member)


def members(found: type) -> dict[str, object]:
    """Returns what a public class defines, also in bases of ours that have no public name."""
    ours = [base for base in found.__mro__ if base is found or base.__module__.startswith("tinygpt2.")]
    return {name: value for base in reversed(ours) for name, value in vars(base).items()}


def parameters(function: Callable[..., Any]) -> list[str]:
    return [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self" and parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
    ]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the calls write where nothing is."""
    monkeypatch.chdir(tmp_path)


def test_every_public_name_and_each_of_its_arguments_has_an_entry() -> None:
    expected = {name: set(parameters(function)) for name, function in public()}
    assert {name: set(make().arguments) for name, make in CALLS.items()} == expected


# --- what works ---

INTEGERS = {"np.int64", "0-d tensor"}
LARGE = {"2**31", "2**63", "10**30", "10**400"}
COUNTS = INTEGERS | LARGE
NUMBERS = {"1.5", "0", "np.float32", *COUNTS}
ANYTHING = set(BAD)

WORKING: list[tuple[set[str], str]] = [
    (
        COUNTS,
        "batch_size capacity checkpoint_every checkpoint_keep context_length draws epochs eval_batches eval_every",
    ),
    (
        COUNTS,
        "gradient_accumulation_steps k max_batches max_steps n_embd n_head n_layer n_vocab patience sample_tokens",
    ),
    (COUNTS, "processes shard_bytes step stride threads total_steps vocab_size"),
    (COUNTS, "max_shard_size n_inner count length order prompt_tokens sampled_tokens"),
    (COUNTS | {"0"}, "TextNoise.epochs"),
    (COUNTS, "length most_bytes order shard_bytes step stride threads total_steps vocab_size"),
    (COUNTS | {"0"}, "layer max_new_tokens min_new_tokens n seed warmup_steps"),
    (INTEGERS | {"0", "set", "[]", "empty tensor", "np.array([])"}, "eos_id"),
    (COUNTS | {"0", "-1"}, "ignore_index index"),
    (NUMBERS, "initializer_range layer_norm_epsilon"),
    (NUMBERS, "learning_rate max_grad_norm min_delta min_learning_rate temperature weight_decay max_time"),
    (NUMBERS | {"-1", "nan", "inf"}, "scale"),
    (NUMBERS | {"-1", "nan", "inf", "empty tensor", "float tensor", "meta tensor"}, "perplexity.loss"),
    (
        {"0", "0-d tensor", "np.float32"},
        "bpe_dropout dropout ngram_weight p real_share token_noise train_ratio",
    ),
    ({"0", "0-d tensor", "np.float32"}, "ema_decay"),
    ({"[]", "empty tensor", "np.array([])"}, "special_tokens"),
    ({"'x'", "''", "[]", "empty tensor", "np.array([])"}, "trim_vocabulary.text"),
    ({"np.float32"}, "epsilon"),
    (NUMBERS | {"-1"}, "penalty"),
    (
        COUNTS | {"0"},
        " ".join(f"{name}PenaltySampler.prompt_tokens" for name in ("Frequency", "Presence", "Repetition")),
    ),
    ({"{}"}, "bias"),
    ({"[]", "set", "empty tensor", "np.array([])"}, "sequences"),
    ({"'x'", "[]", "empty tensor", "np.array([])"}, "strings"),
    ({"True"}, "byte_fallback fused private return_scores"),
    (INTEGERS, "best_of generate.n generate_text.n"),
    (COUNTS | {"0"}, "top"),
    ({"'x'", "''"}, "model_card.repo_id"),
    (ANYTHING, "gradient_checkpointing_kwargs SamplerProcessor.__call__.input_ids"),
    (ANYTHING, "CausalLM.prepare_inputs_for_generation.input_ids ProcessorSampler.__call__.generator"),
    ({"lambda"}, "processor sampler"),
    (COUNTS | {"float tensor", "empty tensor"}, "num_items_in_batch"),
    (COUNTS, "load_llms_from_scratch.n_head"),
    (
        {"True"},
        "allow_changes compile decay_all_parameters drop_last keep_best progress qkv_bias resume shuffle",
    ),
    ({"True"}, "spelling tie_weights scale_attn_weights scale_attn_by_inverse_layer_idx"),
    ({"'x'"}, "documents"),
    ({"True"}, "tokenize_to_file.documents tokenize_to_shards.documents"),
    ({"'x'"}, "characters checkpoint_dir directory out path samples"),
    ({"'x'", "''"}, "title"),
    ({"'x'", "''"}, "field prompt reason sample_prompt text token"),
    ({"''", "[]", "{}", "empty tensor", "np.array([])"}, "generate_text.prompt"),
    ({"'x'", "[]", "empty tensor", "np.array([])"}, "generate_text.stop stream_text.stop"),
    ({"'x'"}, "copied_share.text held_out baselines.training"),
    ({"'x'", "''", "[]", "empty tensor", "np.array([])"}, "copied_share.training"),
    ({"[]", "{}", "set", "''", "empty tensor", "np.array([])"}, "CharTokenizer.decode.tokens"),
    ({"[]", "empty tensor", "np.array([])"}, "callbacks indices"),
    ({"empty tensor"}, "plot_token_frequencies.tokens tensor_to_text.tokens"),
    ({"float tensor"}, "logits scores"),
    ({"meta tensor"}, "GPT2Model.forward.tokens GPT2Model.hidden_states.tokens GPT2Model.last_logits.tokens"),
    ({"meta tensor"}, "Mixture.forward.tokens Mixture.probabilities.tokens"),
    ({"lambda"}, "TextSamples.sampler function then"),
    ({"0", "0-d tensor", "np.int64"}, "teachers"),
    (COUNTS | {"0"}, "TrainingHistory.append.step TrainingHistory.append.tokens_seen"),
    (NUMBERS, "epoch minutes seconds speed"),
    (NUMBERS | {"0"}, "spent"),
    (COUNTS, "memory"),
    (COUNTS, " ".join(f"TextStatistics.{name}" for name in ("bytes", "documents", "characters", "tokens", "held_out"))),
    ({"0", "0-d tensor", "np.float32"}, "repetition"),
    ({"True"}, "names"),
    ({"'x'", "''"}, "script Recipe.tokenizer"),
    (ANYTHING, "Recipe.reasons"),
    ({"{}"}, "given"),
    (NUMBERS | {"-1", "nan", "inf"}, "train_loss val_loss train_bits_per_byte val_bits_per_byte"),
    # What built-in samplers pass on or do not use, and records, which the library makes.
    (
        ANYTHING,
        " ".join(
            f"{name}Sampler.__call__.tokens"
            for name in ("Eta", "Greedy", "LogitBias", "MinP", "Multinomial", "Temperature", "TopK", "TopP", "Typical")
        ),
    ),
    (ANYTHING, "GreedySampler.__call__.generator evaluate_text.field split_documents.field ModelPage.html"),
    (
        ANYTHING,
        "Baselines DocumentSplit Evaluation Progress Scored ScoredPiece StepResult TokenScore TokenizerChoice",
    ),
    (
        ANYTHING,
        "TrainState TrainingHistory",
    ),
]
MAY_WORK = {key: values for values, keys in WORKING for key in keys.split()}
"""The values that may work, by the name of a call and an argument, of a call, or of an argument; others must not."""


def may_work(name: str, argument: str) -> set[str]:
    found = (MAY_WORK[key] for key in (f"{name}.{argument}", name, argument) if key in MAY_WORK)
    parameter = inspect.signature(CALLS[name]().function).parameters[argument]
    optional = "None" in str(parameter.annotation) or parameter.default is None
    return next(found, set()) | ({"None"} if optional else set())


# --- what errors say ---


def promised(function: Callable[..., Any]) -> set[str]:
    """Returns the names of the errors that a docstring promises; where one is of the operating system, all of those."""
    texts = [inspect.getdoc(function) or "", inspect.getdoc(getattr(function, "__self__", None)) or ""]
    names = {name for text in texts for name in re.findall(r"\b(\w+Error)\b", text.partition("Raises:")[2])}
    of_system = any(issubclass(getattr(builtins, name, int), OSError) for name in names)
    return names - {"TypeError", "ValueError"} | ({"OSError"} if of_system else set())


def is_ours(error: BaseException) -> bool:
    """Returns whether tinygpt2 raised an error itself, with a message of its own."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not Path(trace.tb_frame.f_code.co_filename).is_relative_to(PACKAGE):
        return False
    return dis.opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"


WORDS = {
    "source": "text|token ids|character",
    "prompt": "prompt|character",
    "documents": "documents|character",
    "held_out": "text|character",
    "micro_batches": "target|batch",
    "name": "preset",
    "then": "sampler",
    "scores": "logits",
    "n_vocab": "vocabulary",
}
"""What messages call an argument, where they do not use its name."""


def fault(error: BaseException, call: Call, argument: str) -> str | None:
    """Returns what is wrong with an error as the answer to a wrong argument; ``None`` if nothing is."""
    message = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
    if {kind.__name__ for kind in type(error).__mro__} & promised(call.function):
        return None
    if not isinstance(error, TypeError | ValueError):
        return f"{message} (not promised)"
    if not is_ours(error):
        return f"{message} (not tinygpt2's)"
    expected = re.search(rf"{WORDS.get(argument, argument)}|expected|(must|should) be|\bneeds\b", str(error))
    got = re.search(r"\b(got|is|are|has|have|no|not|but|cannot|need|must)\b", str(error))
    return None if expected and got else f"{message} (does not say what was expected and what came)"


def faults(name: str, argument: str) -> Iterator[str]:
    """Yields what is wrong with the answers to the bad values of an argument."""
    for label, make in BAD.items():
        call, value = CALLS[name](), make()
        try:
            call(**{argument: value})
        except Exception as error:  # noqa: BLE001 - any may come
            found = fault(error, call, argument)
            if isinstance(error, TypeError) and label in {"np.int64", "np.float32"} & may_work(name, argument):
                found = f"{error} (a number of NumPy is one)"
            if found:
                yield f"{label}: {found}"
        else:
            if label not in may_work(name, argument):
                yield f"{label}: works"


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.filterwarnings("ignore")
def test_a_wrong_argument_is_told(name: str) -> None:
    CALLS[name]()()
    found = {argument: list(faults(name, argument)) for argument in CALLS[name]().arguments}
    assert not {argument: texts for argument, texts in found.items() if texts}
