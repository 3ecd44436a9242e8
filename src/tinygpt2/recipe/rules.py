"""The rules of recipes: how each choice depends on the text and on the time. All numbers are in one table."""

import math
from collections.abc import Sequence

from tinygpt2.config import GPT2Config

# Time.
MINUTES, MINUTES_BYTES, MINUTES_GROWTH = 2.0, 90_000, 0.6  # the default, for a text of so many bytes
READABLE_MINUTES = (0.25, 0.5, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60)
TRAINING_SHARE = 0.72  # of the minutes; evaluations, samples, checkpoints and the report take the rest
LEAST_SHARE = 0.3  # of the minutes for training, whatever has been spent on preparing the text
EVALUATION_SHARE = 0.1  # of the training's time, at most
EVALUATED_BATCH_TIME = 0.5  # of a batch's training
EVALUATIONS = 20  # in a run, beside that of the untrained model, unless it is short
EVAL_BATCHES, FEW_EVAL_BATCHES = 20, 4  # of an evaluation, from each part of the text

# Size.
TOKENS_PER_BYTE = 0.28  # unless the tokenizer exists
TOKENS_PER_WEIGHT, CHARACTERS_PER_WEIGHT = 16, 6  # of the blocks, where text is plentiful; the last for many names
WEIGHTS_PER_CHARACTER = 4  # of names, up to which these are many
WEIGHTS, WEIGHTS_TOKENS, WEIGHTS_GROWTH = 250_000, 27_000, 0.7  # in the blocks, for a text of so many tokens
ORDINARY_REPETITION = 0.75  # a text of which a compressor saves more than this share counts as a shorter one
LADDER = (
    (1, 64), (1, 128), (2, 128), (2, 192), (3, 192), (4, 256), (5, 320), (6, 384), (8, 512), (10, 640), (12, 768),
    (16, 1024), (20, 1280), (24, 1536),
)  # fmt: skip
NARROW_HEADS, HEAD_WIDTH, NARROW_HEAD_WIDTH = 256, 64, 32  # models up to the first number have heads of the last
CONTEXTS, LONGEST_CONTEXT = ((300_000, 128), (5_000_000, 256), (100_000_000, 512)), 1024  # up to so many bytes
SHORTEST_CONTEXT, SHORTEST_OF_DOCUMENTS = 8, 32
LEAST_WINDOWS = 16  # of a context, in the text

# Steps.
BATCH_TOKENS, BATCH_TOTAL = 512, 500_000  # tokens a step, for so many in the run; it grows with their square root
FEWEST_ROWS = 4
MOST_PASSES, WHOLE_PASSES = 16, 8  # more do not help; a run of fewer than these is counted in steps
FINE_TUNING_PASSES = 15
MUON_RATE, ADAMW_RATE = (0.008, 0.5), (0.004, 1.0)  # at width RATE_WIDTH, and how it falls with the width
RATE_WIDTH = 128
FINE_TUNING_RATE = 0.1  # of that of a new model
SPELLING_BYTES = 20_000_000  # of a text up to which tokens of similar spelling share updates
WARMUP, FINE_TUNING_WARMUP = 0.03, 0.1  # of the steps
AVERAGED = 0.14  # of the steps, over about which the weights are averaged; the learning rate is constant

# Regularisation rises with the logarithm of the passes, from these to those: weight decay, and noise, which is earlier.
FREE_PASSES, REGULARISED_PASSES, NOISY_PASSES = 2, 16, 7
TOKEN_NOISE, BPE_DROPOUT = 0.1, 0.15  # without dropout, which these noises make superfluous
NOISY_SHARE = 0.8  # of the passes; the last ones read the text as it is
WEIGHT_DECAY, MOST_WEIGHT_DECAY = 0.1, 2.5
DECAY_TOKENS = 27_000  # of a text up to which the last one is; of a longer one a pass has more steps, which all decay

# Teachers, of whom the model that is handed over is the student: for a text that can be read often enough.
TEACHER_PASSES, MOST_TEACHER_PASSES = 8, 16  # over the text; as many as the last if the time allows all of them that
TEACHER_COST = 2  # in passes, beside those: what it writes for the student
TEACHERS_SHARE, MOST_TEACHERS = 0.55, 4  # of the time at most, and their number
LEAST_PASSES = 25  # that the time must allow
TEACHING_COST = 0.17  # of the student's own step, for each teacher
STUDENT_OVERHEAD = 1.3
MOST_STUDENT_PASSES = 200  # in tokens of the text
STUDENT_BATCH, STUDENT_DECAY = 2, 0.1  # its batch, as a multiple of a teacher's, and its weight decay

# Memory and cost.
MEMORY_SHARE = 0.5  # of what is free
BYTES_PER_WEIGHT = 16  # it, its gradient, and the state of the optimizer
BYTES_PER_ACTIVATION = 4
ACTIVATIONS = 18  # of the width, in a block, for each token
LOGITS = 2  # of the vocabulary, for each token
ADAMW_COST = 50  # of a weight's update, in operations
MUON_COST = 130  # of a block's update, in operations per cube of the width


def default_minutes(size: int) -> float:
    """Returns the minutes that suit a text of so many bytes."""
    wanted = MINUTES * (size / MINUTES_BYTES) ** MINUTES_GROWTH
    return min(READABLE_MINUTES, key=lambda minutes: abs(math.log(minutes / wanted)))


def weights_in_blocks(layers: int, width: int) -> int:
    """Returns the number of weights in the matrices of the blocks."""
    return 12 * layers * width**2


def weights_for_text(tokens: float, repetition: float) -> float:
    """Returns the weights that a text of so many tokens can teach."""
    new = tokens * min(1.0, (1 - repetition) / (1 - ORDINARY_REPETITION))
    return float(WEIGHTS * (new / WEIGHTS_TOKENS) ** WEIGHTS_GROWTH)


def weights_for_time(seconds: float, speed: float, *, names: bool = False) -> float:
    """Returns the weights that can be taught enough tokens, or characters of names, in so many seconds.

    The speed is in FLOP/s.
    """
    return math.sqrt(seconds * speed / (6 * (CHARACTERS_PER_WEIGHT if names else TOKENS_PER_WEIGHT)))


def bytes_read(size: int, weights: float) -> float:
    """Returns the bytes of a text of this size that are read, if so many weights can be taught in the time."""
    return min(size, weights * TOKENS_PER_WEIGHT / TOKENS_PER_BYTE)


def nearest_shape(weights: float, ladder: Sequence[tuple[int, int]] = LADDER) -> tuple[int, int]:
    """Returns the layers and the width of the shape on a ladder whose weights are nearest by their ratio."""
    return min(ladder, key=lambda shape: abs(math.log(weights_in_blocks(*shape) / weights)))


def heads_for(width: int) -> int:
    """Returns a number of heads that divides a width, with heads about as wide as they should be."""
    wanted = width / (NARROW_HEAD_WIDTH if width <= NARROW_HEADS else HEAD_WIDTH)
    divisors = (heads for heads in range(1, width + 1) if width % heads == 0)
    return min(divisors, key=lambda heads: abs(math.log(heads / wanted)))


def context_for(size: float, tokens: float, documents: int) -> int:
    """Returns the context length for a text of which so many bytes are read; it has these tokens and documents."""
    longest = next((context for most, context in CONTEXTS if size < most), LONGEST_CONTEXT)
    if documents > 1:
        needed = power_of_two(2 * tokens / documents, up=True)
        longest = min(longest, max(SHORTEST_OF_DOCUMENTS, needed))
    return max(SHORTEST_CONTEXT, min(longest, power_of_two(tokens / LEAST_WINDOWS)))


def batch_tokens_for(tokens: float) -> float:
    """Returns the tokens of a step for a run on so many."""
    return BATCH_TOKENS * math.sqrt(tokens / BATCH_TOTAL)


def batch_tokens_of(steps: int) -> float:
    """Returns the tokens of a step for a run of so many steps, by the same rule."""
    return BATCH_TOKENS**2 * steps / BATCH_TOTAL


def power_of_two(number: float, *, up: bool = False, nearest: bool = False) -> int:
    """Returns a power of two of at least one: the largest up to a number, the smallest from it on, or the nearest."""
    exponent = math.log2(max(1.0, number))
    return 1 << (round(exponent) if nearest else math.ceil(exponent) if up else math.floor(exponent))


def regularisation_for(passes: float, most: float = REGULARISED_PASSES) -> float:
    """Returns how much to regularise a run of so many passes, from 0 to 1, which is for ``most`` passes."""
    return min(1.0, max(0.0, math.log(passes / FREE_PASSES) / math.log(most / FREE_PASSES)))


def teachers_for(passes: float) -> int:
    """Returns how many teachers to train in a time that allows so many passes over the text."""
    return max(1, min(MOST_TEACHERS, int(passes * TEACHERS_SHARE / (TEACHER_PASSES + TEACHER_COST))))


def teacher_passes_for(passes: float, teachers: int) -> int:
    """Returns the passes of each of some teachers in a time that allows so many passes over the text in all."""
    enough = passes * TEACHERS_SHARE >= teachers * (MOST_TEACHER_PASSES + TEACHER_COST)
    return MOST_TEACHER_PASSES if enough and teachers >= MOST_TEACHERS else TEACHER_PASSES


def weight_decay_for(strength: float, tokens: float) -> float:
    """Returns the weight decay for a regularisation from 0 to 1 on a text of so many tokens."""
    usual = WEIGHT_DECAY * (MOST_WEIGHT_DECAY / WEIGHT_DECAY) ** strength
    return rounded(max(WEIGHT_DECAY, float(usual * min(1.0, DECAY_TOKENS / tokens))), 2)


def learning_rate_for(optimizer: str, width: int) -> float:
    """Returns the peak learning rate."""
    rate, falling = MUON_RATE if optimizer == "muon" else ADAMW_RATE
    return rounded(float(rate * (RATE_WIDTH / width) ** falling), 2)


def ema_decay_for(steps: int) -> float:
    """Returns the decay of the average of the weights in a run of so many steps."""
    return max(0.0, round(1 - rounded(1 / max(1.0, AVERAGED * steps), 2), 6))


def rounded(number: float, digits: int) -> float:
    """Returns a number with so many significant digits."""
    return float(f"{number:.{digits}g}")


def operations_of_token(model: GPT2Config) -> float:
    """Returns the floating-point operations of training on a token: of the blocks, their attention, and the head."""
    blocks = weights_in_blocks(model.n_layer, model.n_embd)
    attention = 2 * model.n_layer * model.n_embd * model.context_length
    return 6.0 * (blocks + attention + model.vocab_size * model.n_embd)


def operations_of_step(model: GPT2Config, tokens: int, optimizer: str) -> float:
    """Returns the floating-point operations of a step on so many tokens, with that of the optimizer."""
    weights = weights_in_blocks(model.n_layer, model.n_embd) + model.vocab_size * model.n_embd
    muon = MUON_COST * model.n_layer * model.n_embd**3 if optimizer == "muon" else 0
    return tokens * operations_of_token(model) + ADAMW_COST * weights + muon


def memory_of(model: GPT2Config, rows: int) -> int:
    """Returns the bytes that training on a batch of so many rows takes."""
    weights = weights_in_blocks(model.n_layer, model.n_embd)
    weights += (model.vocab_size + model.context_length) * model.n_embd
    token = ACTIVATIONS * model.n_layer * model.n_embd + LOGITS * model.vocab_size
    return BYTES_PER_WEIGHT * weights + BYTES_PER_ACTIVATION * rows * model.context_length * token
