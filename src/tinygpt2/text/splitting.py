"""Splitting of a text or of documents into a part to train on and one to validate on."""

from tinygpt2._internal.checks import check_number
from tinygpt2._internal.texts import check_text


def split_text(text: str, train_ratio: float = 0.8) -> tuple[str, str]:
    r"""Splits a text at a character into a first part to train on and the rest to validate on.

    Args:
        text: Any text of at least two characters.
        train_ratio: Share of the characters in the first part, greater than 0 and less than 1.

    Raises:
        TypeError: If the text is not a ``str``; join several: ``"\n".join(texts)``.
        ValueError: If the ratio is out of range, or a part would be empty.

    >>> split_text("abcdefghij", train_ratio=0.8)
    ('abcdefgh', 'ij')
    """
    check_text("text", text)
    train_ratio = check_number("train_ratio", train_ratio, maximum=1, above_minimum=True, below_maximum=True)
    cut = int(train_ratio * len(text))
    if cut == 0 or cut == len(text):
        raise ValueError(
            f"a text of {len(text)} characters cannot be split at train_ratio={train_ratio}: one part would be empty; "
            "pass a longer text"
        )
    return text[:cut], text[cut:]
