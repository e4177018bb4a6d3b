"""wav2vec 2.0 with a CTC output (Baevski et al., 2020) as a recogniser, run by transformers; extra ``units``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nast_s2x.checkpoints import huggingface
from nast_s2x.ctc import CtcCollapser
from nast_s2x.device import find_device
from nast_s2x.errors import CheckpointError
from nast_s2x.files import read_json
from nast_s2x.frontend.samples import SAMPLE_RATE
from nast_s2x.frontend.speech_models import frame_samples, normalize_samples
from nast_s2x.recognisers.base import (
    NOTHING,
    RecognisedWord,
    Transcript,
    Waveform,
    files_digest,
    timed_words,
    token_spans,
    transcribe_each,
)

_TOKENIZER_FILES = ("special_tokens_map.json", "tokenizer_config.json")
_SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


@dataclass(frozen=True)
class Vocabulary:
    """Meaning of the output labels.

    Attributes:
        pieces: text of each label, usually one character; special labels are left out.
        blank: label of CTC's blank.
        delimiter: the piece between two words.
    """

    pieces: dict[int, str]
    blank: int
    delimiter: str


class Wav2Vec2Recogniser:
    """A ``Wav2Vec2ForCTC`` model; see :class:`~nast_s2x.recognisers.base.Recogniser`.

    Greedy CTC without a language model, one waveform at a time: padding changes the output of models of the base size.
    A word lasts from the first frame of its first character to the last frame of its last one.

    Args:
        model: the network, in evaluation mode.
        vocabulary: labels of its output.
        normalize: normalise samples to zero mean and unit variance.
        identity: see :class:`~nast_s2x.recognisers.base.Recogniser`.
    """

    def __init__(self, model: Any, vocabulary: Vocabulary, normalize: bool, identity: str) -> None:
        self.model, self.vocabulary, self.normalize, self.identity = model, vocabulary, normalize, identity
        layers = zip(model.config.conv_kernel, model.config.conv_stride, strict=True)
        self.min_samples, self.stride = frame_samples(layers)

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> Wav2Vec2Recogniser:
        """Open a folder with ``config.json``, weights, ``vocab.json`` and ``preprocessor_config.json``.

        Raises:
            FileNotFoundError: no such folder, or a file missing in it.
            CheckpointError: another kind of model, a model without a trained output, a vocabulary that does not fit it.
            ModuleNotFoundError: transformers is not installed.
        """
        folder, where = Path(folder), find_device(device)
        config = huggingface.read_config(folder, "wav2vec2")
        read_json(folder / "preprocessor_config.json")  # must exist: a default normalisation would be a guess
        normalize = huggingface.normalizes(folder)
        vocabulary = read_vocabulary(folder, config)
        model = huggingface.load_model("Wav2Vec2ForCTC", folder).eval().requires_grad_(False).to(where)
        labels = model.config.vocab_size
        outside = [piece for label, piece in vocabulary.pieces.items() if not 0 <= label < labels]
        if outside or not 0 <= vocabulary.blank < labels:
            what = f"piece {outside[0]!r}" if outside else "the blank"
            raise CheckpointError(f"{folder}: {what} of vocab.json lies outside the {labels} labels of the model")
        kept = (".json", ".safetensors", ".bin")
        digest = files_digest(file for file in folder.iterdir() if file.is_file() and file.suffix in kept)
        return cls(model, vocabulary, normalize, f"wav2vec2 {folder.resolve().name} {digest}")

    def transcribe(self, waveforms: Sequence[Waveform], progress: bool = False) -> list[Transcript]:
        """See :class:`~nast_s2x.recognisers.base.Recogniser`; one waveform at a time."""
        return transcribe_each(self._transcript, waveforms, progress)

    @torch.inference_mode()
    def _transcript(self, waveform: Waveform) -> Transcript:
        if len(waveform) < self.min_samples:
            return NOTHING
        samples = normalize_samples(waveform) if self.normalize else waveform
        logits = self.model(torch.from_numpy(samples)[None].to(self.model.device)).logits[0]  # (frames, labels)
        words = words_of_characters(self.vocabulary, logits.argmax(-1).tolist(), self.stride / SAMPLE_RATE)
        return Transcript(" ".join(word.text for word in words), words)


def words_of_characters(vocabulary: Vocabulary, labels: Sequence[int], frame_s: float) -> tuple[RecognisedWord, ...]:
    """Words of labels, one per frame of ``frame_s`` seconds, with their times."""
    words: list[tuple[str, int, int]] = []
    inside = False  # True between the characters of a word
    for label, first, end in token_spans(CtcCollapser(vocabulary.blank), labels):
        piece = vocabulary.pieces.get(label)
        if piece is None or piece == vocabulary.delimiter:
            inside = inside and piece is None
            continue
        if inside:
            text, begin, _ = words[-1]
            words[-1] = (text + piece, begin, end)
        else:
            words.append((piece, first, end))
        inside = True
    return timed_words(words, frame_s)


def read_vocabulary(folder: Path, config: dict[str, Any]) -> Vocabulary:
    """Read ``vocab.json`` and the tokenizer's settings; the blank is the padding label, as in training.

    Raises:
        FileNotFoundError: no ``vocab.json``.
        CheckpointError: not one table of labels (but one per language, for example), or a tokenizer of another kind.
    """
    path = folder / "vocab.json"
    table = read_json(path)
    wrong = [piece for piece, label in table.items() if not isinstance(label, int)]
    if wrong or not table or len(set(table.values())) < len(table):
        found = f"that of {wrong[0]!r} is {type(table[wrong[0]]).__name__}" if wrong else "two are the same"
        found = found if table else "it is empty"
        raise CheckpointError(f"{path}: must give each piece its own label, a whole number, but {found}")
    settings: dict[str, Any] = {}
    for name in _TOKENIZER_FILES:
        if (folder / name).is_file():
            settings |= read_json(folder / name)
    kind = settings.get("tokenizer_class") or "Wav2Vec2CTCTokenizer"
    if kind != "Wav2Vec2CTCTokenizer":
        raise CheckpointError(f"{folder}: the tokenizer must be Wav2Vec2CTCTokenizer, but is {kind}")
    special = {_content(settings.get(name) or default) for name, default in _SPECIAL.items()}
    pieces = {label: piece for piece, label in table.items() if piece not in special}
    blank = config.get("pad_token_id", 0)
    if not isinstance(blank, int):
        raise CheckpointError(f"{folder / 'config.json'}: pad_token_id, the label of CTC's blank, is {blank!r}")
    return Vocabulary(pieces, blank, _content(settings.get("word_delimiter_token") or "|"))


def _content(token: str | dict[str, Any]) -> str:
    """Text of a token, which the settings give as a string or as an object."""
    return str(token["content"]) if isinstance(token, dict) else token
