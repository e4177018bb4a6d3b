"""Bundles of this project as recognisers: speech-to-text whose target language is the source language."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nast_s2x.errors import CheckpointError
from nast_s2x.frontend.fbank import fbank
from nast_s2x.frontend.samples import SAMPLE_RATE
from nast_s2x.inference.bundle import CMVN, SENTENCEPIECE, VOCABULARY, WEIGHTS
from nast_s2x.inference.description import CONFIG
from nast_s2x.inference.loading import load_system
from nast_s2x.inference.offline import translate_batch
from nast_s2x.inference.system import System
from nast_s2x.progress import progress_bar
from nast_s2x.recognisers.base import (
    NOTHING,
    RecognisedWord,
    Transcript,
    Waveform,
    by_length,
    checked_waveforms,
    files_digest,
    timed_words,
    token_spans,
)

BATCH = 16


class BundleRecogniser:
    """Offline recogniser from a bundle; see :class:`~nast_s2x.recognisers.base.Recogniser`.

    A word lasts from the start of the first slot of its first token to the end of the last slot of its last token. A
    slot has ``pooling * subsampling * 10 / text_upsample`` ms (80 with the usual sizes). CTC (Graves et al., 2006) does
    not align tokens exactly, so the times are accurate to a few slots only.

    Args:
        bundle: the system.
        identity: see :class:`~nast_s2x.recognisers.base.Recogniser`.
    """

    def __init__(self, bundle: System, identity: str) -> None:
        self.bundle, self.identity = bundle, identity

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu", language: str | None = None) -> BundleRecogniser:
        """Open a bundle folder.

        Raises:
            FileNotFoundError: no such folder, or a file is missing in it.
            CheckpointError: the bundle translates, is for another language than ``language``, or is damaged.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"recogniser: no such bundle folder: {folder}")
        bundle = load_system(folder, device=device)
        source, target = bundle.info.source_lang, bundle.info.target_lang
        if source is None or target is None:
            raise CheckpointError(
                f"{folder} has no languages: the bundle of a recogniser must name its source and target"
            )
        if source != target:
            raise CheckpointError(
                f"{folder} translates from {source} to {target}: a recogniser must have the same source and target"
            )
        if language is not None and language != source:
            raise CheckpointError(
                f"{folder} recognises {source}, but the speech is {language}: another recogniser is needed"
            )
        names = (CONFIG, WEIGHTS, VOCABULARY, SENTENCEPIECE, *((CMVN,) if bundle.cmvn is not None else ()))
        digest = files_digest(folder / name for name in names)
        return cls(bundle, f"bundle {folder.resolve().name} {digest}")

    def transcribe(self, waveforms: Sequence[Waveform], progress: bool = False) -> list[Transcript]:
        """See :class:`~nast_s2x.recognisers.base.Recogniser`; in batches of similar length."""
        samples = checked_waveforms(waveforms)
        policy = self.bundle.policy(prefer_offline=True)
        transcripts = [NOTHING] * len(samples)
        with progress_bar(len(samples), "transcribing", show=progress) as bar:
            for batch in by_length(samples, BATCH):
                features = [fbank(samples[index]) for index in batch]
                found = translate_batch(self.bundle, features, policy, with_units=False)
                for index, translation in zip(batch, found, strict=True):
                    words = words_of_labels(self.bundle, translation.labels, len(samples[index]) / SAMPLE_RATE)
                    transcripts[index] = Transcript(translation.text, words)
                bar.update(len(batch))
        return transcripts


def words_of_labels(system: System, labels: Sequence[int], seconds: float) -> tuple[RecognisedWord, ...]:
    """Words of text labels, one label per slot, with their times; nothing ends after ``seconds``.

    Words of the same pieces (a piece may contain a space) get the same times.
    """
    words: list[tuple[list[int], int, int]] = []
    for token, first, end in token_spans(system.text.collapser(), labels):
        if words and not system.text.starts_word(token):
            tokens, begin, _ = words[-1]
            words[-1] = ([*tokens, token], begin, end)
        else:
            words.append(([token], first, end))
    texts = ((system.text.decode(tokens), first, end) for tokens, first, end in words)
    return timed_words(texts, system.model.config.rates.step_ms("text") / 1000, seconds)
