"""Train a GPT-2 from scratch on your own text, and generate with it."""

from typing import TYPE_CHECKING

from tinygpt2._internal.lazy import load_on_demand

__version__ = "0.1.0"

if TYPE_CHECKING:  # the same names again, for type checkers, editors and the documentation
    from tinygpt2.config import Distillation as Distillation
    from tinygpt2.config import GPT2Config as GPT2Config
    from tinygpt2.config import TrainingConfig as TrainingConfig
    from tinygpt2.data.encoding import encode_documents as encode_documents
    from tinygpt2.data.loader import make_dataloader as make_dataloader
    from tinygpt2.data.mixed import mix_sequences as mix_sequences
    from tinygpt2.data.noise import TextNoise as TextNoise
    from tinygpt2.data.shards import tokenize_to_shards as tokenize_to_shards
    from tinygpt2.data.token_file import TokenFile as TokenFile
    from tinygpt2.data.tokenizing import tokenize_to_file as tokenize_to_file
    from tinygpt2.data.windows import TokenDataset as TokenDataset
    from tinygpt2.errors import CheckpointError as CheckpointError
    from tinygpt2.errors import IncompatibleRunError as IncompatibleRunError
    from tinygpt2.errors import LostRankError as LostRankError
    from tinygpt2.errors import NonFiniteLossError as NonFiniteLossError
    from tinygpt2.evaluation.baselines import Baselines as Baselines
    from tinygpt2.evaluation.baselines import baselines as baselines
    from tinygpt2.evaluation.copies import copied_share as copied_share
    from tinygpt2.evaluation.loss import Evaluation as Evaluation
    from tinygpt2.evaluation.loss import evaluate as evaluate
    from tinygpt2.evaluation.scores import TokenScore as TokenScore
    from tinygpt2.evaluation.scores import score as score
    from tinygpt2.evaluation.text import evaluate_text as evaluate_text
    from tinygpt2.generation.decoding import generate as generate
    from tinygpt2.generation.decoding import stream as stream
    from tinygpt2.generation.options import GenerationOptions as GenerationOptions
    from tinygpt2.generation.samplers.bans import BannedTokensSampler as BannedTokensSampler
    from tinygpt2.generation.samplers.bans import NoRepeatNGramSampler as NoRepeatNGramSampler
    from tinygpt2.generation.samplers.bias import LogitBiasSampler as LogitBiasSampler
    from tinygpt2.generation.samplers.draws import GreedySampler as GreedySampler
    from tinygpt2.generation.samplers.draws import MultinomialSampler as MultinomialSampler
    from tinygpt2.generation.samplers.filters import EtaSampler as EtaSampler
    from tinygpt2.generation.samplers.filters import MinPSampler as MinPSampler
    from tinygpt2.generation.samplers.filters import TopKSampler as TopKSampler
    from tinygpt2.generation.samplers.filters import TopPSampler as TopPSampler
    from tinygpt2.generation.samplers.filters import TypicalSampler as TypicalSampler
    from tinygpt2.generation.samplers.penalties import FrequencyPenaltySampler as FrequencyPenaltySampler
    from tinygpt2.generation.samplers.penalties import PresencePenaltySampler as PresencePenaltySampler
    from tinygpt2.generation.samplers.penalties import RepetitionPenaltySampler as RepetitionPenaltySampler
    from tinygpt2.generation.samplers.protocol import Sampler as Sampler
    from tinygpt2.generation.samplers.strings import BannedStringsSampler as BannedStringsSampler
    from tinygpt2.generation.samplers.temperature import TemperatureSampler as TemperatureSampler
    from tinygpt2.generation.scores import Scored as Scored
    from tinygpt2.generation.scores import ScoredPiece as ScoredPiece
    from tinygpt2.generation.sequences import sample_sequences as sample_sequences
    from tinygpt2.generation.text import generate_text as generate_text
    from tinygpt2.generation.text import stream_text as stream_text
    from tinygpt2.interop.causal_lm import CausalLM as CausalLM
    from tinygpt2.interop.checkpoints import load_llms_from_scratch as load_llms_from_scratch
    from tinygpt2.interop.checkpoints import load_nanogpt as load_nanogpt
    from tinygpt2.interop.hub import model_card as model_card
    from tinygpt2.interop.hub import push_to_hub as push_to_hub
    from tinygpt2.interop.logits import ProcessorSampler as ProcessorSampler
    from tinygpt2.interop.logits import SamplerProcessor as SamplerProcessor
    from tinygpt2.losses import cross_entropy_loss as cross_entropy_loss
    from tinygpt2.losses import perplexity as perplexity
    from tinygpt2.model.cache import KVCache as KVCache
    from tinygpt2.model.gpt2 import GPT2Model as GPT2Model
    from tinygpt2.model.mixture import Mixture as Mixture
    from tinygpt2.model.ngram import NGramModel as NGramModel
    from tinygpt2.model.objective import DistillationLoss as DistillationLoss
    from tinygpt2.model.objective import NextTokenLoss as NextTokenLoss
    from tinygpt2.model.quantize import quantize as quantize
    from tinygpt2.page.model_page import ModelPage as ModelPage
    from tinygpt2.page.model_page import show as show
    from tinygpt2.plotting import plot_losses as plot_losses
    from tinygpt2.plotting import plot_temperatures as plot_temperatures
    from tinygpt2.plotting import plot_token_frequencies as plot_token_frequencies
    from tinygpt2.recipe.recipe import Recipe as Recipe
    from tinygpt2.recipe.recommend import recommend as recommend
    from tinygpt2.recipe.statistics import TextStatistics as TextStatistics
    from tinygpt2.text.documents import read_documents as read_documents
    from tinygpt2.text.reading import clean_text as clean_text
    from tinygpt2.text.reading import read_text as read_text
    from tinygpt2.text.reading import sample_text as sample_text
    from tinygpt2.text.splitting import DocumentSplit as DocumentSplit
    from tinygpt2.text.splitting import split_documents as split_documents
    from tinygpt2.text.splitting import split_text as split_text
    from tinygpt2.tokenizers.byte_pairs import gpt2_tokenizer as gpt2_tokenizer
    from tinygpt2.tokenizers.characters import CharTokenizer as CharTokenizer
    from tinygpt2.tokenizers.choice import TokenizerChoice as TokenizerChoice
    from tinygpt2.tokenizers.choice import choose_tokenizer as choose_tokenizer
    from tinygpt2.tokenizers.protocol import Tokenizer as Tokenizer
    from tinygpt2.tokenizers.storage import load_tokenizer as load_tokenizer
    from tinygpt2.tokenizers.storage import save_tokenizer as save_tokenizer
    from tinygpt2.tokenizers.tensors import tensor_to_text as tensor_to_text
    from tinygpt2.tokenizers.tensors import text_to_tensor as text_to_tensor
    from tinygpt2.tokenizers.vocabulary import add_special_tokens as add_special_tokens
    from tinygpt2.tokenizers.vocabulary import train_tokenizer as train_tokenizer
    from tinygpt2.tokenizers.vocabulary import trim_vocabulary as trim_vocabulary
    from tinygpt2.training.callbacks.base import Callback as Callback
    from tinygpt2.training.callbacks.base import on_epoch as on_epoch
    from tinygpt2.training.callbacks.base import on_evaluation as on_evaluation
    from tinygpt2.training.callbacks.base import on_step as on_step
    from tinygpt2.training.callbacks.loggers import TensorBoardLogger as TensorBoardLogger
    from tinygpt2.training.callbacks.progress import ProgressBar as ProgressBar
    from tinygpt2.training.callbacks.samples import TextSamples as TextSamples
    from tinygpt2.training.callbacks.stopping import EarlyStopping as EarlyStopping
    from tinygpt2.training.checkpoints.saver import newest_checkpoint as newest_checkpoint
    from tinygpt2.training.distillation import distil as distil
    from tinygpt2.training.distillation import mixture_of as mixture_of
    from tinygpt2.training.history import TrainingHistory as TrainingHistory
    from tinygpt2.training.optimizers import make_optimizer as make_optimizer
    from tinygpt2.training.schedules import learning_rate_at as learning_rate_at
    from tinygpt2.training.state import Progress as Progress
    from tinygpt2.training.state import TrainState as TrainState
    from tinygpt2.training.step import StepResult as StepResult
    from tinygpt2.training.step import training_step as training_step
    from tinygpt2.training.train import train as train
else:
    _NAMES = {
        "config": ["Distillation", "GPT2Config", "TrainingConfig"],
        "data.encoding": ["encode_documents"],
        "data.loader": ["make_dataloader"],
        "data.mixed": ["mix_sequences"],
        "data.noise": ["TextNoise"],
        "data.shards": ["tokenize_to_shards"],
        "data.token_file": ["TokenFile"],
        "data.tokenizing": ["tokenize_to_file"],
        "data.windows": ["TokenDataset"],
        "errors": ["CheckpointError", "IncompatibleRunError", "LostRankError", "NonFiniteLossError"],
        "evaluation.baselines": ["Baselines", "baselines"],
        "evaluation.copies": ["copied_share"],
        "evaluation.loss": ["Evaluation", "evaluate"],
        "evaluation.scores": ["TokenScore", "score"],
        "evaluation.text": ["evaluate_text"],
        "generation.decoding": ["generate", "stream"],
        "generation.options": ["GenerationOptions"],
        "generation.samplers.bans": ["BannedTokensSampler", "NoRepeatNGramSampler"],
        "generation.samplers.bias": ["LogitBiasSampler"],
        "generation.samplers.draws": ["GreedySampler", "MultinomialSampler"],
        "generation.samplers.filters": ["EtaSampler", "MinPSampler", "TopKSampler", "TopPSampler", "TypicalSampler"],
        "generation.samplers.penalties": [
            "FrequencyPenaltySampler",
            "PresencePenaltySampler",
            "RepetitionPenaltySampler",
        ],
        "generation.samplers.protocol": ["Sampler"],
        "generation.samplers.strings": ["BannedStringsSampler"],
        "generation.samplers.temperature": ["TemperatureSampler"],
        "generation.scores": ["Scored", "ScoredPiece"],
        "generation.sequences": ["sample_sequences"],
        "generation.text": ["generate_text", "stream_text"],
        "interop.causal_lm": ["CausalLM"],
        "interop.checkpoints": ["load_llms_from_scratch", "load_nanogpt"],
        "interop.hub": ["model_card", "push_to_hub"],
        "interop.logits": ["ProcessorSampler", "SamplerProcessor"],
        "losses": ["cross_entropy_loss", "perplexity"],
        "model.cache": ["KVCache"],
        "model.gpt2": ["GPT2Model"],
        "model.mixture": ["Mixture"],
        "model.ngram": ["NGramModel"],
        "model.objective": ["DistillationLoss", "NextTokenLoss"],
        "model.quantize": ["quantize"],
        "page.model_page": ["ModelPage", "show"],
        "plotting": ["plot_losses", "plot_temperatures", "plot_token_frequencies"],
        "recipe.recipe": ["Recipe"],
        "recipe.recommend": ["recommend"],
        "recipe.statistics": ["TextStatistics"],
        "text.documents": ["read_documents"],
        "text.reading": ["clean_text", "read_text", "sample_text"],
        "text.splitting": ["DocumentSplit", "split_documents", "split_text"],
        "tokenizers.byte_pairs": ["gpt2_tokenizer"],
        "tokenizers.characters": ["CharTokenizer"],
        "tokenizers.choice": ["TokenizerChoice", "choose_tokenizer"],
        "tokenizers.protocol": ["Tokenizer"],
        "tokenizers.storage": ["load_tokenizer", "save_tokenizer"],
        "tokenizers.tensors": ["tensor_to_text", "text_to_tensor"],
        "tokenizers.vocabulary": ["add_special_tokens", "train_tokenizer", "trim_vocabulary"],
        "training.callbacks.base": ["Callback", "on_epoch", "on_evaluation", "on_step"],
        "training.callbacks.loggers": ["TensorBoardLogger"],
        "training.callbacks.progress": ["ProgressBar"],
        "training.callbacks.samples": ["TextSamples"],
        "training.callbacks.stopping": ["EarlyStopping"],
        "training.checkpoints.saver": ["newest_checkpoint"],
        "training.distillation": ["distil", "mixture_of"],
        "training.history": ["TrainingHistory"],
        "training.optimizers": ["make_optimizer"],
        "training.schedules": ["learning_rate_at"],
        "training.state": ["Progress", "TrainState"],
        "training.step": ["StepResult", "training_step"],
        "training.train": ["train"],
    }
    __all__, __getattr__, __dir__ = load_on_demand(__name__, _NAMES)
