"""A joint SentencePiece vocabulary for the source and target texts of a corpus."""

from __future__ import annotations

import io
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import sentencepiece

from nast_s2x.labels import SPECIALS, TextLabels

# Sums in the training depend on the number of threads: a constant number makes the model reproducible.
_THREADS = 2


@dataclass(frozen=True)
class Vocabulary:
    """A SentencePiece model file as bytes, the dictionary of its pieces, and a remark if its size is not as asked.

    ``whole_words`` is the share of the words of the training text that are one piece, ``None`` if not known.
    """

    model: bytes
    dictionary: TextLabels
    note: str = ""
    whole_words: float | None = None


def train_vocabulary(
    texts: Iterable[str], vocab_size: int, character_coverage: float = 1.0, as_written: bool = False
) -> Vocabulary:
    """Train a unigram model (Kudo, 2018) whose ids equal our labels; the same texts give the same bytes.

    Args:
        texts: sentences of both languages; read once.
        vocab_size: pieces, the four specials included. A small corpus may yield fewer; ``note`` says so.
        character_coverage: share of the characters that the pieces must cover; the rest becomes ``<unk>``.
        as_written: keep the characters as they are. By default SentencePiece resolves compatibility forms (NFKC), which
            turns the comma, the question mark and other punctuation of Chinese and Japanese into those of Latin text.

    Raises:
        ValueError: no text, or a size too small to hold each character; names the smallest size that works.
    """
    sentences = (text for text in texts if text.strip())
    first = next(sentences, None)
    if first is None:
        raise ValueError("a vocabulary needs at least one sentence of text")
    if not 0.9 <= character_coverage <= 1.0:
        raise ValueError(f"character_coverage must be in 0.9..1, not {character_coverage}")
    # Candidates for pieces are strings with different continuations. In a text without punctuation a frequent word
    # such as "is" may have a space after it every time, and would be cut into letters. Each word once as a sentence of
    # its own gives it a second continuation, the end.
    examples = _Examples(itertools.chain([first], sentences))
    buffer = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(examples),
            model_writer=buffer,
            model_type="unigram",
            vocab_size=vocab_size,
            character_coverage=character_coverage,
            normalization_rule_name="identity" if as_written else "nmt_nfkc",
            hard_vocab_limit=False,
            bos_id=0,
            pad_id=1,
            eos_id=2,
            unk_id=3,
            num_threads=_THREADS,
            max_sentence_length=1 << 20,
            minloglevel=2,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise examples.error or ValueError(_explain(str(error), vocab_size)) from error
    if examples.error is not None:
        raise examples.error
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(buffer.getvalue())
    size = processor.GetPieceSize()
    pieces = [processor.IdToPiece(index) for index in range(len(SPECIALS), size)]
    note = f"the training text yields {size} pieces, not the {vocab_size} asked for" if size != vocab_size else ""
    words = list(examples.words)
    whole = sum(examples.words[word] for word, ids in zip(words, processor.Encode(words), strict=True) if len(ids) == 1)
    return Vocabulary(buffer.getvalue(), TextLabels(pieces), note, whole / examples.words.total())


class _Examples:
    """What SentencePiece learns from: sentences, then each of their words once.

    Attributes:
        words: how often each word occurs in the sentences.
        error: what was raised by reading the sentences; SentencePiece takes it for the end of them.
    """

    def __init__(self, sentences: Iterable[str]) -> None:
        self._sentences = sentences
        self.words: Counter[str] = Counter()
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[str]:
        try:
            for sentence in self._sentences:
                self.words.update(sentence.split())
                yield " ".join(sentence.split())
        except (ValueError, OSError) as error:
            self.error = error
        yield from self.words


def _explain(message: str, vocab_size: int) -> str:
    needed = re.search(r"smaller than required_chars\. \d+ vs (\d+)", message)
    if needed:
        return (
            f"a vocabulary of {vocab_size} pieces is too small: the characters and specials alone take "
            f"{needed[1]}; ask for more, or lower the character coverage"
        )
    return f"SentencePiece cannot train a vocabulary of {vocab_size} pieces: {message}"
