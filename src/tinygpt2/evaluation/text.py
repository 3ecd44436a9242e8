"""The loss of a model over whole texts, of which every byte counts once."""

from collections.abc import Iterable

from tinygpt2.data.token_file import TokenFile
from tinygpt2.evaluation.loss import Evaluation, evaluate_batches
from tinygpt2.evaluation.passages import Passages
from tinygpt2.evaluation.windows import Windows
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.tokenizers.foreign import AnyTokenizer, as_tokenizer


def evaluate_text(
    model: GPT2Model,
    tokenizer: AnyTokenizer,
    source: str | Iterable[str] | TokenFile,
    *,
    stride: int | None = None,
    batch_size: int = 8,
    field: str = "text",
) -> Evaluation:
    """Returns the loss of a model over a text or documents, of which every byte counts once.

    The first token is predicted, too: from an end of text before it. (If the tokenizer has no end-of-text token, the
    first token is left out, and its bytes with it.) Each of several documents begins anew, and its end is predicted as
    one more token, which counts as one byte: it stands for the line break or separator between them. A single text has
    no end.

    A text longer than the context length is read in windows. By default each begins where the one before ends, which is
    fast, but gives the first tokens of each little context. With a ``stride`` of N, windows overlap: the first counts
    all its tokens, each other only its last N, so that all later tokens have a context of at least the context length
    less N. This is how perplexities are usually reported; it takes context length / N times as long.

    Args:
        model: The model.
        tokenizer: The one that the model was trained with.
        source: A text; or documents: a list of ``str``, a column of a table or data set, any other iterable, of which
            little is in memory at a time; or a `TokenFile`, whose documents end with an end of text.
        stride: Tokens between the beginnings of windows, at most the context length, which is the default.
        batch_size: Windows of the context length that are computed at once; of shorter texts, as many as have the same
            number of tokens together.
        field: Name of the column of texts, if ``source`` is a table or a data set.

    Returns:
        The evaluation, with ``bits_per_byte`` and, except for a `TokenFile`, ``word_perplexity``. Empty documents are
        left out. A ``UserWarning`` says so if the tokenizer does not keep the whole text, for instance its capitals:
        what is lost is not predicted.

    Raises:
        NonFiniteLossError: If the loss is NaN, or infinite because of the weights.
        TypeError: If an argument is of the wrong type.
        ValueError: If there is nothing to predict, the tokenizer cannot encode a text or has no token to end documents
            with, its ids are outside the model's vocabulary, or a number is out of range.

    >>> from tinygpt2 import CharTokenizer, GPT2Config
    >>> names = ["Emma", "Olivia", "Zoë"]
    >>> tokenizer = CharTokenizer.from_text("".join(names))
    >>> model = GPT2Model(GPT2Config(
    ...     vocab_size=tokenizer.n_vocab, context_length=8,
    ...     n_layer=1, n_head=2, n_embd=32
    ... ))
    >>> result = evaluate_text(model, tokenizer, names)
    >>> result.documents, result.tokens, result.bytes
    (3, 16, 17)
    """
    windows = Windows(model, stride, batch_size)
    documents = not isinstance(source, str | TokenFile)
    passages = Passages(as_tokenizer(tokenizer, ends=documents), source, field)
    batches = (batch for group in windows.groups(passages) for _, batch in windows.batches(group))
    return passages.completed(evaluate_batches(model, batches, "the text"))
