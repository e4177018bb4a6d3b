"""Settings and result of a preparation."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nast_s2x.errors import ConfigError
from nast_s2x.frontend.noise_floor import NOISE_FLOOR_DB, noise_floor

FEATURES = ("zip", "npy", "audio")


@dataclass
class PrepareReport:
    """Result of a preparation: usable rows and hours of each split, rows of each sample rate (Hz), labels, share of the
    words of the training text that are one label, bad rows and remarks."""

    rows: dict[str, int] = field(default_factory=dict)
    hours: dict[str, float] = field(default_factory=dict)
    sample_rates: dict[str, int] = field(default_factory=dict)
    labels: int = 0
    whole_words: float | None = None
    num_units: int | None = None
    unit_hash: str | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    already_complete: bool = False


@dataclass(frozen=True)
class PrepareOptions:
    """Settings of a preparation. A folder that was made with other settings is refused.

    Attributes:
        vocab_size: SentencePiece pieces, the four specials included.
        character_coverage: share of the characters that the pieces must cover.
        features: "zip" (one archive, random access), "npy" (a file each) or "audio" (computed at every reading).
        float16: store features in half precision: half the size, errors of up to 0.008.
        source_lang, target_lang: written to the configuration.
        num_units: number of unit codes K of ``tgt_audio``. By default the number in ``NAME.units.json`` beside the
            manifest (written by ``nast-s2x units extract``), and without that file the largest code + 1.
        vocabulary_from: data folder whose vocabulary and CMVN are used instead of new ones, for more test data.
        noise_floor: level in dB of the white noise that normalisation adds to the features (see
            :mod:`nast_s2x.frontend.noise_floor`); None, as published, adds none.
        narrowband: share of the training utterances that are limited to 4 kHz whenever they are read, so that one
            model serves telephone speech too.
    """

    vocab_size: int = 10000
    character_coverage: float = 1.0
    features: str = "zip"
    float16: bool = False
    source_lang: str = ""
    target_lang: str = ""
    num_units: int | None = None
    vocabulary_from: Path | None = None
    noise_floor: float | None = NOISE_FLOOR_DB
    narrowband: float = 0.0

    def __post_init__(self) -> None:
        if self.features not in FEATURES:
            raise ConfigError(f"features must be one of {', '.join(FEATURES)}, not {self.features!r}")
        if self.vocab_size < 5:
            raise ConfigError(f"vocab_size must be at least 5 (four specials and a piece), not {self.vocab_size}")
        if not 0.9 <= self.character_coverage <= 1.0:
            raise ConfigError(f"character_coverage must be in 0.9..1, not {self.character_coverage}")
        if self.noise_floor is not None:
            noise_floor(self.noise_floor)  # checks the level
        if not 0.0 <= self.narrowband <= 1.0:
            raise ConfigError(f"narrowband is a share in 0..1, not {self.narrowband}")
        if self.num_units is not None and self.num_units < 1:
            raise ConfigError(f"num_units must be at least 1, not {self.num_units}")

    @property
    def dtype(self) -> str | None:
        """Type that features are stored in; None where they are not stored."""
        return None if self.features == "audio" else "float16" if self.float16 else "float32"
