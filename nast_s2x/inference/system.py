"""A trained system: model, labels, normalisation, chunk policies and, for speech output, a vocoder."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from nast_s2x.chunking import FRAME_MS, ChunkPolicy
from nast_s2x.device import find_device
from nast_s2x.errors import ConfigError, check_whole_number
from nast_s2x.frontend.cmvn import GlobalCmvn
from nast_s2x.frontend.samples import SAMPLE_RATE
from nast_s2x.inference.policies import choose_policy, training_note
from nast_s2x.inference.segmenter import Segmenter
from nast_s2x.labels import TextLabels, UnitLabels
from nast_s2x.network import NastModel
from nast_s2x.vocoder.checkpoint import check_units_match, load_vocoder, read_card
from nast_s2x.vocoder.network import UnitVocoder
from nast_s2x.vocoder.streaming import SynthesisWindow

if TYPE_CHECKING:
    from nast_s2x.inference.offline import Translation
    from nast_s2x.inference.streaming import TranslationStream


@dataclass(frozen=True)
class SystemInfo:
    """Languages, origin and model cards of a system.

    Attributes:
        source_lang, target_lang: language codes, where known.
        example: a note on the domain of an example system; ``None`` for a system meant for use.
        origin: where the weights came from (checkpoint type, updates, number averaged, ``asr_weight`` of the training).
        card: text of the model card.
        vocoder_card: text of the vocoder's own card.
    """

    source_lang: str | None = None
    target_lang: str | None = None
    example: str | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    card: str = ""
    vocoder_card: str = ""


@dataclass
class System:
    """A trained system, ready to translate. Translation does not change it, so many streams can share one system.

    Attributes:
        model: the network, in eval mode.
        text: text labels with their SentencePiece model.
        units: unit labels; ``None`` without a unit decoder.
        cmvn: feature normalisation; ``None`` when the model takes features as they are.
        trained: chunk policies of the training.
        vocoder: units to waveform, in float32; ``None`` for text output only.
        info: languages, origin and cards.
        pause_ms: length of a pause that ends a segment, from 1 s on; each segment is translated by itself. ``None``:
            only a model whose positions end gets segments, and none shorter than half of its positions.
    Raises:
        ConfigError: parts that do not belong together.

    Example:
        >>> system = load_system("BUNDLE")  # doctest: +SKIP
        >>> system.translate("talk.flac", chunk_ms=320).text  # doctest: +SKIP
        'the translation'
    """

    model: NastModel = field(repr=False)
    text: TextLabels = field(repr=False)
    units: UnitLabels | None
    cmvn: GlobalCmvn | None = field(repr=False)
    trained: tuple[ChunkPolicy, ...]
    vocoder: UnitVocoder | None = field(default=None, repr=False)
    info: SystemInfo = field(default_factory=SystemInfo, repr=False)
    pause_ms: int | None = None

    def __post_init__(self) -> None:
        config = self.model.config
        if self.text.size != config.text_vocab:
            raise ConfigError(
                f"the vocabulary has {self.text.size} labels (specials and blank included), the model has "
                f"{config.text_vocab}: they do not belong together"
            )
        unit_labels = 0 if self.units is None else self.units.size
        if unit_labels != config.unit_vocab:
            raise ConfigError(f"there are {unit_labels} unit labels, but the model has {config.unit_vocab}")
        if not self.trained:
            raise ConfigError("a system needs at least one chunk policy of its training")
        for policy in self.trained:
            self.model.geometry(policy)
        if self.pause_ms is not None:
            check_whole_number("pause_ms", self.pause_ms, 50)
        self.model.eval().requires_grad_(False)
        if self.vocoder is not None:
            check_units_match(self.vocoder, self.num_units, self.unit_hash)

    @property
    def sample_rate(self) -> int:
        """Sample rate of the front end, Hz."""
        return SAMPLE_RATE

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.model.encoder.layernorm_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the model."""
        return self.model.encoder.layernorm_embedding.weight.dtype

    @property
    def has_units(self) -> bool:
        """True when the model has a unit decoder."""
        return self.units is not None

    def segmenter(self, with_units: bool) -> Segmenter | None:
        """What cuts a new source into segments; ``None`` where sources are never cut."""
        limit, pause = self.model.max_frames(with_units and self.has_units), self.pause_ms
        if limit is None and pause is None:
            return None
        return Segmenter(limit, None if pause is None else pause // FRAME_MS)

    @property
    def num_units(self) -> int | None:
        """Distinct speech units (4 specials and blank not counted); ``None`` without a unit decoder."""
        return None if self.units is None else self.units.num_units

    @property
    def unit_hash(self) -> str | None:
        """Hash of the centroids of the units; ``None`` without a unit decoder, or where it is not known."""
        return None if self.units is None else self.units.hash

    def policy(
        self,
        chunk_ms: int | str | None = None,
        lookahead_ms: int | None = None,
        wait_chunks: int | None = None,
        left_ms: int | str | None = None,
        prefer_offline: bool = False,
    ) -> ChunkPolicy:
        """Return the policy for the values given, see :func:`~nast_s2x.inference.policies.choose_policy`.

        Raises:
            ConfigError: a policy that this model cannot have.
        """
        policy = choose_policy(self.trained, chunk_ms, lookahead_ms, wait_chunks, left_ms, prefer_offline)
        try:
            self.model.geometry(policy)
        except ConfigError as error:
            trained = ", ".join(dict.fromkeys(other.name for other in self.trained))
            raise ConfigError(f"{error} (the model was trained for: {trained})") from None
        return policy

    def training_note(self, policy: ChunkPolicy) -> str | None:
        """A note for users when the model was not trained for ``policy``; ``None`` when it was."""
        return training_note(self.trained, policy)

    def notes(self) -> list[str]:
        """Remarks for users: the domain of an example system, the band of the training recordings."""
        found = []
        if self.info.example:
            found.append(f"example model, trained on a small synthetic corpus: {self.info.example}")
        if self.cmvn is not None and self.cmvn.band_hz is not None:
            found.append(f"trained on recordings up to {self.cmvn.band_hz:g} Hz: frequencies above are not used")
        return found

    @property
    def has_recognition(self) -> bool | None:
        """Whether the recognition head was trained (``--asr-weight`` above 0); ``None`` where that is not recorded.

        It learns from the transcripts of the corpus: without those it has learned nothing.
        """
        weight = self.info.origin.get("asr_weight")
        return weight > 0 if isinstance(weight, int | float) else None

    def require_recognition(self) -> None:
        """Check that a source transcript can be had.

        Raises:
            ConfigError: the recognition head was not trained.
        """
        if self.has_recognition is False:
            raise ConfigError(
                "this system has no source transcript: its recognition head was not trained (--asr-weight 0)"
            )

    def require_vocoder(self) -> UnitVocoder:
        """Return the vocoder.

        Raises:
            ConfigError: the system has none.
        """
        if self.vocoder is None:
            raise ConfigError(
                "this system has no vocoder: give one with --vocoder, or export the bundle with one"
                if self.has_units
                else "the model has no unit decoder: it produces text only"
            )
        return self.vocoder

    def with_vocoder(self, path: str | Path) -> System:
        """Return a copy of the system that uses the vocoder at ``path``; the model is shared.

        Args:
            path: a vocoder folder, a bundle with a vocoder, or a released checkpoint.
        Raises:
            FileNotFoundError, NastError: there is none, it is damaged, or it belongs to other units.
        """
        vocoder, card = load_vocoder(path), read_card(path)
        try:
            check_units_match(vocoder, self.num_units, self.unit_hash)
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from None
        return replace(self, vocoder=vocoder.to(self.device), info=replace(self.info, vocoder_card=card))

    def normalize(self, features: Tensor) -> Tensor:
        """Features (..., bins) of the front end -> input of the model, on its device, in its number type."""
        normalized = features if self.cmvn is None else self.cmvn(features)
        return normalized.to(device=self.device, dtype=self.dtype)

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> System:
        """Move model and vocoder to ``device`` and compute in ``dtype``; returns the system itself.

        Logits (:meth:`NastModel.convert_for_inference`) and the vocoder stay in float32: rounded durations must not
        depend on the number type.

        Args:
            device: ``None``: stay on the device.
            dtype: ``None``: keep the number type.
        Raises:
            ConfigError: a device that does not exist; int8 on another device than a CPU. The system is unchanged.
        """
        target = self.device if device is None else find_device(device)
        if target.type != "cpu" and (self.model.int8 if dtype is None else dtype == torch.int8):
            raise ConfigError(f"int8 is for CPUs, not for {target}")
        self.model.to(device=target)
        if dtype is not None:
            self.model.convert_for_inference(dtype)
        if self.vocoder is not None:
            self.vocoder.to(device=target)
        return self

    def translate(
        self,
        audio: str | Path | ArrayLike,
        sample_rate: int | None = None,
        *,
        policy: ChunkPolicy | None = None,
        chunk_ms: int | str | None = None,
        with_units: bool = True,
        with_speech: bool = False,
        synthesis: SynthesisWindow | None = None,
        with_transcript: bool = False,
    ) -> Translation:
        """Translate one whole recording.

        Args:
            audio: path of a sound file, or samples (n,) or (n, channels) in -1..1.
            sample_rate: of samples, Hz; ``None``: 16000. Files have their own.
            policy: chunk policy; else ``chunk_ms``; else offline if trained for, else the largest chunk.
            with_units: return units too, if the model has a unit decoder.
            with_speech: return the waveform of the units too.
            synthesis: look-ahead and context of the vocoder.
            with_transcript: return the words of the source too, from the recognition head.
        Raises:
            AudioError, ConfigError, FileNotFoundError: input that cannot be used.
        """
        from nast_s2x.inference.offline import translate_file, translate_samples

        chosen = self.policy(chunk_ms, prefer_offline=True) if policy is None else policy
        options = (chosen, with_units, with_speech, synthesis, with_transcript)
        if isinstance(audio, str | Path):
            return translate_file(self, audio, *options)
        return translate_samples(self, audio, sample_rate, *options)

    def stream(
        self,
        policy: ChunkPolicy | None = None,
        *,
        chunk_ms: int | str | None = None,
        with_units: bool = True,
        with_speech: bool = False,
        synthesis: SynthesisWindow | None = None,
        with_transcript: bool = False,
    ) -> TranslationStream:
        """Begin a stream, see :class:`~nast_s2x.inference.streaming.TranslationStream`.

        Args:
            policy: chunk policy; else ``chunk_ms``; else 320 ms if trained for, else the smallest chunk.
            with_units, with_speech, synthesis, with_transcript: as in :meth:`translate`.
        """
        from nast_s2x.inference.streaming import TranslationStream

        chosen = self.policy(chunk_ms) if policy is None else policy
        return TranslationStream(self, chosen, with_units, with_speech, synthesis, with_transcript)
