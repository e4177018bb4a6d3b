"""Speech processor for simulstream 1.0: pieces of speech in, SentencePiece pieces of the translation out.

``configs/simulstream/processor.yaml`` is an example of its configuration. Importing this module needs simulstream, not
SimulEval.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from simulstream.server.speech_processors import SAMPLE_RATE, IncrementalOutput, SpeechProcessor

from nast_s2x.device import parse_dtype
from nast_s2x.errors import ConfigError
from nast_s2x.inference.detokenizer import StreamingPieces, text_of_pieces
from nast_s2x.inference.loading import load_system
from nast_s2x.inference.streaming import ChunkPolicy, Emission
from nast_s2x.inference.system import System

LOGGER = logging.getLogger(__name__)

_HOST_VALUES = {"latency_unit": "spm", "detokenizer_type": "simuleval"}
"""Keys that simulstream's scorers read, and the values that belong to SentencePiece pieces."""
_WRAPPER = "base_speech_processor_class"
"""Key of simulstream's wrapper for voice activity, whose keys stand beside ours."""


@dataclass(frozen=True)
class Settings:
    """The keys of a configuration; only ``model`` is required, those that are ``None`` follow the training.

    Attributes:
        model: bundle folder, or checkpoint file of a trained system.
        data_dir: data folder of a checkpoint; by default its own folder. Not for bundles.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: number type of the network, a key of :data:`nast_s2x.device.DTYPES`.
        chunk_ms: chunk size in ms, or ``offline``.
        lookahead_ms, wait_chunks, left_ms: as for :meth:`~nast_s2x.inference.system.System.policy`.
        pause_ms: length of a pause that ends a segment, see :class:`~nast_s2x.inference.system.System`.
        speech_chunk_size: seconds of audio that simulstream gathers before each call. Delays are multiples of it; the
            text does not depend on it.
    """

    model: str
    data_dir: str | None = None
    device: str = "cpu"
    dtype: str = "fp32"
    chunk_ms: int | str | None = None
    lookahead_ms: int | None = None
    wait_chunks: int | None = None
    left_ms: int | str | None = None
    pause_ms: int | None = None
    speech_chunk_size: float = 0.1

    @classmethod
    def of(cls, config: SimpleNamespace) -> Settings:
        """Read the configuration that simulstream made of a YAML file.

        Raises:
            ConfigError: a key that is missing or not known, or a value that cannot be used.
        """
        values = {key: value for key, value in vars(config).items() if value is not None}
        ours = {field.name for field in fields(cls)}
        unknown = sorted(values.keys() - ours - _HOST_VALUES.keys() - {"type"})
        if unknown and _WRAPPER not in values:
            raise ConfigError(f"`{unknown[0]}` is no key of this speech processor; its keys: {', '.join(sorted(ours))}")
        for key, wanted in _HOST_VALUES.items():
            if values.get(key, wanted) != wanted:
                raise ConfigError(
                    f"`{key}` must be {wanted!r}, because tokens are SentencePiece pieces, but is {values[key]!r}"
                )
        for key in ("model", "data_dir", "device", "dtype"):
            if not isinstance(values.get(key, ""), str):
                raise ConfigError(f"`{key}` must be text, but is {values[key]!r}")
        if "model" not in values:
            raise ConfigError("`model` is missing: it must be a bundle folder or a checkpoint file")
        settings = cls(**{key: value for key, value in values.items() if key in ours})
        size: Any = settings.speech_chunk_size
        if isinstance(size, bool) or not isinstance(size, int | float) or not 0 < size < float("inf"):
            raise ConfigError(f"`speech_chunk_size` must be a positive number of seconds, but is {size!r}")
        return settings

    def policy(self, system: System) -> ChunkPolicy:
        """Chunk policy for these settings.

        Raises:
            ConfigError: a policy that the model cannot have.
        """
        return system.policy(self.chunk_ms, self.lookahead_ms, self.wait_chunks, self.left_ms)


_systems: dict[tuple[str, str | None, str, str], System] = {}
_loading = threading.Lock()


def shared_system(settings: Settings) -> System:
    """The system of the settings. Each is loaded once in a process: all processors share its weights.

    Raises:
        FileNotFoundError, NastError: as for :func:`~nast_s2x.inference.loading.load_system`.
    """
    key = (str(Path(settings.model).resolve()), settings.data_dir, settings.device, settings.dtype)
    with _loading:
        if key not in _systems:
            _systems[key] = load_system(settings.model, settings.data_dir, settings.device, parse_dtype(settings.dtype))
            for note in _systems[key].notes():
                LOGGER.info(note)
        return replace(_systems[key], pause_ms=settings.pause_ms)


class NastSpeechProcessor(SpeechProcessor):
    """Translates one source at a time; each piece of a word is returned as soon as its chunk is complete.

    A character that the model spells in bytes is one piece.

    Nothing is ever deleted. The pieces that were returned from a source, joined, are the text of
    ``nast-s2x translate`` with a space before it.

    Args:
        config: see :class:`Settings`.
    Raises:
        FileNotFoundError, NastError: a configuration that cannot be used.
    """

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__(config)
        self.settings = Settings.of(config)
        self.system = shared_system(self.settings)
        self.policy = self.settings.policy(self.system)
        if note := self.system.training_note(self.policy):
            LOGGER.warning(note)
        self.clear()

    @classmethod
    def load_model(cls, config: SimpleNamespace) -> None:
        """Load the system of the configuration, if no processor of this process has it yet."""
        shared_system(Settings.of(config))

    @property
    def speech_chunk_size(self) -> float:
        """Seconds of audio that simulstream gathers for a call of :meth:`process_chunk`, at least."""
        return self.settings.speech_chunk_size

    def clear(self) -> None:
        """Begin the next source."""
        self._stream = self.system.stream(self.policy, with_units=False)
        self._pieces = StreamingPieces(self.system.text)
        self._segment = 0
        self._refused: ConfigError | None = None

    def set_source_language(self, language: str) -> None:
        """Check the source language; ``ConfigError`` if it is another one than the system's."""
        self._check_language("source", language, self.system.info.source_lang)

    def set_target_language(self, language: str) -> None:
        """Check the target language; ``ConfigError`` if it is another one than the system's."""
        self._check_language("target", language, self.system.info.target_lang)

    def _check_language(self, side: str, language: str, known: str | None) -> None:
        """Compare primary subtags (``en`` of ``en-GB``).

        simulstream's WebSocket server ignores this error: :meth:`process_chunk` raises it again.
        """
        primary = language.lower().replace("_", "-").partition("-")[0]
        if known is not None and primary != known.lower():
            self._refused = ConfigError(f"the {side} language must be {known!r}, but is {language!r}")
            raise self._refused

    def process_chunk(self, waveform: NDArray[np.float32]) -> IncrementalOutput:
        """Take the next samples (n,) at 16 kHz, any n; return the pieces of the chunks that they complete.

        Raises:
            ConfigError: a language that was set is not the system's.
            AudioError: samples that cannot be used.
        """
        if self._refused is not None:
            raise self._refused
        return self._output(self._tokens(self._stream.push(waveform, SAMPLE_RATE)))

    def end_of_stream(self) -> IncrementalOutput:
        """End the source; return the pieces that are left."""
        tokens = self._tokens(self._stream.push(np.zeros(0, np.float32), final=True)) + self._pieces.finish()
        hard = sum(not cut.pause for cut in self._stream.cuts)
        if hard:
            LOGGER.warning(
                "the positions of this model end: the source was cut %d times without a pause, and a word may be lost "
                "at each cut",
                hard,
            )
        return self._output(tokens)

    def tokens_to_string(self, tokens: list[str]) -> str:
        """Text of pieces, with the space before the first word: simulstream appends it to the text before."""
        return text_of_pieces(tokens)

    def _tokens(self, emissions: list[Emission]) -> list[str]:
        tokens: list[str] = []
        for emission in emissions:
            if emission.segment != self._segment:
                self._segment = emission.segment
                tokens += self._pieces.finish()
            tokens += self._pieces.push(emission.tokens)
        return tokens

    def _output(self, tokens: list[str]) -> IncrementalOutput:
        return IncrementalOutput(tokens, self.tokens_to_string(tokens), [], "")
