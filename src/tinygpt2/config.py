"""The configurations of a model and a training run: frozen, validated, plain values.

The range of each field is defined once, in `MODEL_RANGES` and `TRAINING_RANGES`. The constructors check values with it,
and the command line parses its options with it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal, Self, get_args

from tinygpt2._internal.checks import LARGEST_SEED, check_choice
from tinygpt2._internal.ranges import Bool, Check, Choice, Int, Number, Optional, Pair, Text, check_fields

Activation = Literal["gelu_new", "gelu_pytorch_tanh", "gelu", "relu", "silu"]
OptimizerName = Literal["adamw", "muon"]
Precision = Literal["auto", "fp32", "bf16"]
Sharding = Literal["none", "full"]
Schedule = Literal["constant", "cosine", "linear"]

# Far more than any model has, and so few that no size computed from them overflows and no loop over them hangs.
_MOST_IDS = 2**31  # so that every id and position fits into an int32
_MOST_LAYERS = 10_000
_LARGEST_WIDTH = 2**20

MODEL_RANGES: Mapping[str, Check] = MappingProxyType(
    {
        "vocab_size": Int(maximum=_MOST_IDS),
        "context_length": Int(maximum=_MOST_IDS),
        "n_layer": Int(maximum=_MOST_LAYERS),
        "n_head": Int(maximum=_LARGEST_WIDTH),
        "n_embd": Int(maximum=_LARGEST_WIDTH),
        "dropout": Number(maximum=1, below_maximum=True),
        "qkv_bias": Bool(),
        "tie_weights": Bool(),
        "n_inner": Optional(Int(maximum=4 * _LARGEST_WIDTH)),
        "activation_function": Choice(get_args(Activation)),
        "layer_norm_epsilon": Number(above_minimum=True),
        "scale_attn_weights": Bool(),
        "scale_attn_by_inverse_layer_idx": Bool(),
        "initializer_range": Number(above_minimum=True),
    }
)
"""The range of each field of `GPT2Config`."""

TRAINING_RANGES: Mapping[str, Check] = MappingProxyType(
    {
        "epochs": Int(),
        "max_steps": Optional(Int()),
        "optimizer": Choice(get_args(OptimizerName)),
        "spelling": Bool(),
        "learning_rate": Number(above_minimum=True),
        "min_learning_rate": Optional(Number()),
        "schedule": Choice(get_args(Schedule)),
        "warmup_steps": Int(minimum=0),
        "weight_decay": Number(),
        "decay_all_parameters": Bool(),
        "betas": Pair(Number(maximum=1, below_maximum=True)),
        "ema_decay": Number(maximum=1, below_maximum=True),
        "max_grad_norm": Optional(Number(above_minimum=True)),
        "gradient_accumulation_steps": Int(),
        "precision": Choice(get_args(Precision)),
        "sharding": Choice(get_args(Sharding)),
        "compile": Optional(Bool()),
        "eval_every": Optional(Int()),
        "eval_batches": Optional(Int()),
        "sample_prompt": Optional(Text()),
        "sample_tokens": Int(),
        "seed": Int(minimum=0, maximum=LARGEST_SEED),
    }
)
"""The range of each field of `TrainingConfig`."""


# No slots: in a frozen dataclass with slots, setting an unknown attribute raises a TypeError about super(), where
# programs that try it, such as transformers' Trainer, expect an AttributeError.
@dataclass(frozen=True, kw_only=True)
class GPT2Config:
    """The shape of a GPT-2. The defaults give the smallest one that OpenAI published, with 124 million parameters.

    NumPy's numbers are accepted and converted to plain ones.

    Attributes:
        vocab_size: Number of token ids, V.
        context_length: Maximum number of tokens that the model can look back on, T.
        n_layer: Number of transformer blocks.
        n_head: Number of attention heads in each block, H; must divide ``n_embd``.
        n_embd: Width of the hidden states, C.
        dropout: Dropout probability for embeddings, attention weights and residual branches.
        qkv_bias: Whether the query, key and value projections have a bias. GPT-2's have one.
        tie_weights: Whether the head that predicts tokens shares the weight of the token embedding
            (Press and Wolf 2017). GPT-2's does.
        n_inner: Width of the MLP inside; ``None`` for ``4 * n_embd``, as in GPT-2.
        activation_function: The MLP's: ``"gelu_new"``, which is GPT-2's, and ``"gelu_pytorch_tanh"``, its other name in
            transformers; ``"gelu"``, ``"relu"`` or ``"silu"``.
        layer_norm_epsilon: What layer norms add to the variance.
        scale_attn_weights: Whether attention divides its scores by the square root of the width of a head.
        scale_attn_by_inverse_layer_idx: Whether it divides them by the number of the block, too, counted from 1.
        initializer_range: Standard deviation of the initial weights.

    The last six are those of transformers' ``GPT2Config``, for models that were trained elsewhere.

    Raises:
        TypeError: If a value is of the wrong type.
        ValueError: If a value is out of range, or ``n_head`` does not divide ``n_embd``.

    Source: "Language Models are Unsupervised Multitask Learners" (Radford et al. 2019), section 2.3.

    >>> GPT2Config(n_layer=2, n_head=2, n_embd=64).head_width
    32
    >>> GPT2Config(n_head=5)
    Traceback (most recent call last):
    ...
    ValueError: n_embd (768) must be divisible by n_head (5); pass for instance n_head=6
    """

    vocab_size: int = 50257
    context_length: int = 1024
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.1
    qkv_bias: bool = True
    tie_weights: bool = True
    n_inner: int | None = None
    activation_function: Activation = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        check_fields(self, MODEL_RANGES)
        if self.n_embd % self.n_head:
            fitting = min((h for h in range(1, self.n_embd + 1) if self.n_embd % h == 0),
                          key=lambda h: abs(h - self.n_head - 0.1))  # fmt: skip
            raise ValueError(
                f"n_embd ({self.n_embd}) must be divisible by n_head ({self.n_head}); "
                f"pass for instance n_head={fitting}"
            )

    @property
    def head_width(self) -> int:
        """Width of one attention head, D = C / H."""
        return self.n_embd // self.n_head

    @property
    def inner_width(self) -> int:
        """Width of the MLP inside."""
        return 4 * self.n_embd if self.n_inner is None else self.n_inner

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields, and ``model_type``, by which programs for transformers recognise a GPT-2.

        >>> GPT2Config().to_dict()["model_type"]
        'gpt2'
        """
        return {"model_type": "gpt2", **asdict(self)}

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> Self:  # noqa: ANN401 - any field, checked by the constructor
        """Returns a named shape, with any field overridden.

        Args:
            name: One of OpenAI's four, ``"gpt2"``, ``"gpt2-medium"``, ``"gpt2-large"``, ``"gpt2-xl"``, or one for a
                laptop: ``"gpt2-nano"`` (2 layers, width 256), ``"gpt2-micro"`` (4, 256), ``"gpt2-mini"`` (6, 384).
            **overrides: Fields of the configuration, such as ``context_length=128``.

        Raises:
            ValueError: If there is no such preset.

        >>> GPT2Config.preset("gpt2-medium", context_length=128).n_layer
        24
        """
        return cls(**(PRESETS[check_choice("preset", name, tuple(PRESETS))] | overrides))


PRESETS: dict[str, dict[str, Any]] = {
    "gpt2-nano": {"n_layer": 2, "n_head": 4, "n_embd": 256},
    "gpt2-micro": {"n_layer": 4, "n_head": 4, "n_embd": 256},
    "gpt2-mini": {"n_layer": 6, "n_head": 6, "n_embd": 384},
    "gpt2": {"n_layer": 12, "n_head": 12, "n_embd": 768},
    "gpt2-medium": {"n_layer": 24, "n_head": 16, "n_embd": 1024},
    "gpt2-large": {"n_layer": 36, "n_head": 20, "n_embd": 1280},
    "gpt2-xl": {"n_layer": 48, "n_head": 25, "n_embd": 1600},
}


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The configuration of `train`. ``dataclasses.asdict`` converts it to a dict that can be saved as JSON.

    A step is one optimizer update; it reads ``gradient_accumulation_steps`` batches from the loader. NumPy's numbers
    are accepted and converted to plain ones.

    Attributes:
        epochs: Passes over the training data.
        max_steps: Number of steps, however many epochs they take; if given, ``epochs`` is ignored.
        optimizer: ``"adamw"``, or ``"muon"`` for Muon on the hidden matrices and AdamW on the rest; see
            `make_optimizer`.
        spelling: Whether tokens of similar spelling share updates of their embeddings, so that rare ones learn from
            others; see `make_optimizer`. It needs the tokenizer.
        learning_rate: Peak learning rate of the schedule.
        min_learning_rate: Final learning rate of the schedule; by default a tenth of ``learning_rate`` for
            ``"cosine"``, and 0 for ``"linear"``.
        schedule: ``"constant"``; or ``"cosine"`` (Loshchilov and Hutter 2017) or ``"linear"`` from ``learning_rate``
            after the warm-up to ``min_learning_rate`` at the last step.
        warmup_steps: Number of steps over which the learning rate rises linearly from zero.
        weight_decay: Decoupled weight decay.
        decay_all_parameters: Whether biases and layer norms decay too. GPT-2's recipe excludes them; PyTorch's
            ``AdamW(model.parameters())`` does not.
        betas: AdamW's decay rates of the first and second moments.
        ema_decay: Decay of the exponential moving average of the weights (Polyak and Juditsky 1992), which is then the
            model that is evaluated, saved and handed over; 0 for the weights themselves. With a constant learning rate
            the average is better than they are.
        max_grad_norm: Gradients with a larger norm are scaled down to it; ``None`` does not clip.
        gradient_accumulation_steps: Micro-batches per step. The result is that of one batch of their total size.
        precision: ``"fp32"``; ``"bf16"`` for autocast to bfloat16, with unchanged weights; ``"auto"`` for bf16 on a
            GPU that computes in it (Nvidia's from compute capability 8.0 on, and AMD's) and fp32 elsewhere.
        sharding: ``"full"`` divides weights, gradients and the optimizer's state among several processes (FSDP2,
            ``fully_shard``), so that each holds only its share of them; ``"none"`` keeps all of them in each.
        compile: Whether to compile the forward and backward passes with `torch.compile`, which takes at most a minute.
            If that fails, for instance without a C++ compiler, a warning is given and the run continues uncompiled.
            ``None`` compiles on a CUDA GPU, with ``sharding="none"``, if the run is long enough to repay the minute:
            10^17 operations, counted as six for each token and parameter.
        eval_every: Steps between evaluations; ``None`` evaluates once per epoch. The untrained and the final model are
            always evaluated.
        eval_batches: Batches that an evaluation reads from each loader; ``None`` reads all.
        sample_prompt: Text to continue at the end of each epoch; ``None`` for no samples.
        sample_tokens: Length of such a sample, in tokens.
        seed: Seed of dropout. The order of the data has its own seed, in `make_dataloader`.

    Raises:
        TypeError: If a value is of the wrong type.
        ValueError: If a value is out of range.

    >>> TrainingConfig(epochs=10, schedule="cosine").learning_rate
    0.0004
    """

    epochs: int = 1
    max_steps: int | None = None
    optimizer: OptimizerName = "adamw"
    spelling: bool = False
    learning_rate: float = 4e-4
    min_learning_rate: float | None = None
    schedule: Schedule = "constant"
    warmup_steps: int = 0
    weight_decay: float = 0.1
    decay_all_parameters: bool = False
    betas: tuple[float, float] = (0.9, 0.95)
    ema_decay: float = 0.0
    max_grad_norm: float | None = 1.0
    gradient_accumulation_steps: int = 1
    precision: Precision = "auto"
    sharding: Sharding = "none"
    compile: bool | None = None
    eval_every: int | None = None
    eval_batches: int | None = None
    sample_prompt: str | None = None
    sample_tokens: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self, TRAINING_RANGES)
        if self.min_learning_rate is not None and self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate must be at most learning_rate ({self.learning_rate}), got {self.min_learning_rate}"
            )


DISTILLATION_RANGES: Mapping[str, Check] = MappingProxyType(
    {
        "order": Int(maximum=16),
        "ngram_weight": Number(maximum=1),
        "sampled_tokens": Optional(Int()),
        "real_share": Number(maximum=1, above_minimum=True, below_maximum=True),
        "prompt_tokens": Int(),
    }
)
"""The range of each field of `Distillation`."""


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """The settings of `distil`, by which a student learns from a mixture of a first model and an n-gram model.

    Attributes:
        order: Tokens of an n-gram.
        ngram_weight: Weight of the n-gram model in the mixture; that of the first model is the rest.
        sampled_tokens: Tokens to sample from the mixture; ``None`` for five times those of the text.
        real_share: Share of real windows among those that the student reads; the others are sampled.
        prompt_tokens: Tokens of the text with which each sampled sequence begins.

    Raises:
        TypeError: If a value is of the wrong type.
        ValueError: If a value is out of range.

    >>> Distillation(order=4).ngram_weight
    0.3
    """

    order: int = 3
    ngram_weight: float = 0.3
    sampled_tokens: int | None = None
    real_share: float = 0.3
    prompt_tokens: int = 8

    def __post_init__(self) -> None:
        check_fields(self, DISTILLATION_RANGES)
