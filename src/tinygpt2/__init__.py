"""Train a GPT-2 from scratch on your own text, and generate with it."""

from tinygpt2.config import GPT2Config, TrainingConfig
from tinygpt2.data.loader import make_dataloader
from tinygpt2.data.token_file import TokenFile, tokenize_to_file
from tinygpt2.data.windows import TokenDataset
from tinygpt2.errors import CheckpointError, IncompatibleRunError, NonFiniteLossError
from tinygpt2.evaluation import Evaluation, evaluate
from tinygpt2.generation.decoding import generate, stream
from tinygpt2.generation.samplers import (
    GreedySampler,
    MinPSampler,
    MultinomialSampler,
    Sampler,
    TemperatureSampler,
    TopKSampler,
    TopPSampler,
)
from tinygpt2.generation.text import generate_text, stream_text
from tinygpt2.losses import cross_entropy_loss, perplexity
from tinygpt2.model.cache import KVCache
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.model.objective import NextTokenLoss
from tinygpt2.plotting import plot_losses, plot_temperatures, plot_token_frequencies
from tinygpt2.text.reading import clean_text, read_text, sample_text, split_text
from tinygpt2.text.storage import load_tokenizer, save_tokenizer
from tinygpt2.text.tokenizers import CharTokenizer, Tokenizer, gpt2_tokenizer, tensor_to_text, text_to_tensor
from tinygpt2.text.vocabulary import trim_vocabulary
from tinygpt2.training.callbacks.base import Callback, on_epoch, on_evaluation, on_step
from tinygpt2.training.callbacks.loggers import TensorBoardLogger
from tinygpt2.training.callbacks.progress import ProgressBar
from tinygpt2.training.callbacks.samples import TextSamples
from tinygpt2.training.callbacks.stopping import EarlyStopping
from tinygpt2.training.checkpoints.saver import newest_checkpoint
from tinygpt2.training.history import TrainingHistory
from tinygpt2.training.optimizers import make_optimizer
from tinygpt2.training.schedules import learning_rate_at
from tinygpt2.training.state import Progress, TrainState
from tinygpt2.training.step import StepResult, training_step
from tinygpt2.training.train import train

__version__ = "0.1.0"

__all__ = [
    "Callback",
    "CharTokenizer",
    "CheckpointError",
    "EarlyStopping",
    "Evaluation",
    "GPT2Config",
    "GPT2Model",
    "GreedySampler",
    "IncompatibleRunError",
    "KVCache",
    "MinPSampler",
    "MultinomialSampler",
    "NextTokenLoss",
    "NonFiniteLossError",
    "Progress",
    "ProgressBar",
    "Sampler",
    "StepResult",
    "TemperatureSampler",
    "TensorBoardLogger",
    "TextSamples",
    "TokenDataset",
    "TokenFile",
    "Tokenizer",
    "TopKSampler",
    "TopPSampler",
    "TrainState",
    "TrainingConfig",
    "TrainingHistory",
    "clean_text",
    "cross_entropy_loss",
    "evaluate",
    "generate",
    "generate_text",
    "gpt2_tokenizer",
    "learning_rate_at",
    "load_tokenizer",
    "make_dataloader",
    "make_optimizer",
    "newest_checkpoint",
    "on_epoch",
    "on_evaluation",
    "on_step",
    "perplexity",
    "plot_losses",
    "plot_temperatures",
    "plot_token_frequencies",
    "read_text",
    "sample_text",
    "save_tokenizer",
    "split_text",
    "stream",
    "stream_text",
    "tensor_to_text",
    "text_to_tensor",
    "tokenize_to_file",
    "train",
    "training_step",
    "trim_vocabulary",
]

# Errors, pickles and the documentation then name public objects by their public import path.
for _name in __all__:
    globals()[_name].__module__ = __name__
