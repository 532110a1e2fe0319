"""`text:FILE`: documents of plain text, each read by a language model on its own.

Documents are separated by `<|endoftext|>`, as the stories of TinyStories are (Eldan and Li, 2023); a file without that
mark is one document. A start token goes before each document, and curly quotes are made straight, as they were where
the networks of llama2.c learned. What is longer than the context of the network: of documents that stand beside others
what is behind it is left out, for it could only be predicted without its beginning, and `notes` says of how many; a
text that stands alone is cut into pieces side by side, so that every token is predicted once.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from polyad.batches import Sequences
from polyad.data.base import ALL, SOURCES, DataSource, Source
from polyad.errors import DataError
from polyad.records import Preprocessing
from polyad.tokenizer import PATTERN, START, Tokenizer, find_tokenizer, read_tokenizer

END = "<|endoftext|>"
"""Between two documents."""

STRAIGHT = str.maketrans("\u201c\u201d\u2018\u2019", "\"\"''")
"""Curly quotes -> the ones of a keyboard."""

CONTEXT = 512
"""Tokens of a piece where the network does not say how many it takes."""


def open_text(file: str, preprocessing: Preprocessing) -> DataSource:
    """The documents as sequences of tokens."""
    documents = _documents(file)
    tokenizer = _tokenizer(file, preprocessing)
    context = preprocessing.context or CONTEXT
    sequences = [torch.tensor([START, *tokenizer.encode(text)]) for text in documents]
    notes = ()
    if len(sequences) == 1:
        sequences = list(pieces(sequences[0], context))
    elif cut := sum(len(sequence) > context for sequence in sequences):
        sequences = [sequence[:context] for sequence in sequences]
        notes = (f"{cut} of {len(documents)} documents in {file} cut off at {context} tokens, the network's context",)
    return DataSource(f"text:{file}", {ALL: Sequences(sequences)}, len(tokenizer), notes)


def pieces(tokens: Tensor, context: int) -> Iterator[Tensor]:
    """Of int64 (tokens,) at most `context` each, in order; one begins with the token that ends the one before, which is
    predicted there and seen here."""
    for start in range(0, len(tokens) - 1, context - 1):
        yield tokens[start : start + context]


def _documents(file: str) -> list[str]:
    path = Path(file).expanduser()
    if not path.is_file():
        raise DataError(f"There is no file {file!r}; write text:FILE with the path of a text file.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); check the permissions of the file.") from None
    documents = [part.strip() for part in text.translate(STRAIGHT).split(END)]
    if not any(documents):
        raise DataError(f"{file} holds no text; expected documents, separated by {END}.")
    return [document for document in documents if document]


def _tokenizer(file: str, preprocessing: Preprocessing) -> Tokenizer:
    """The one that is given, else the only one beside the text, with as many tokens as the network knows."""
    path = preprocessing.tokenizer or find_tokenizer(file)
    if path is None:
        raise DataError(
            f"text:{file} needs a tokenizer; expected --tokenizer FILE as llama2.c writes it (tok512.bin), or a single "
            f"{PATTERN} beside the weights or beside the text."
        )
    tokenizer = read_tokenizer(path)
    if preprocessing.tokens is not None and len(tokenizer) != preprocessing.tokens:
        raise DataError(
            f"The tokenizer {path} has {len(tokenizer)} tokens; expected the {preprocessing.tokens} of the network. It "
            "is cut off, or of another network: give the one that this network was trained with, whole."
        )
    return tokenizer


SOURCES.register(
    "text", Source("text", "text:FILE", f"plain text for a language model, documents separated by {END}", open_text)
)
