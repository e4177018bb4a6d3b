"""Features for speech units, 50 vectors a second: filterbanks, cepstra, layers of speech models."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from nast_s2x.corpus.audio_ref import AudioRef
from nast_s2x.corpus.utterance import UNIT_SAMPLES
from nast_s2x.device import find_device
from nast_s2x.errors import AudioError, ConfigError
from nast_s2x.frontend.fbank import NUM_BINS, fbank
from nast_s2x.frontend.samples import SAMPLE_RATE

DEFAULT_LAYER = 11
"""Layer of mHuBERT that published units come from (Lee et al., 2022)."""
WINDOW_SECONDS = 30.0
OVERLAP_SECONDS = 2.0
_PLAIN = ("mfcc", "logmel")
_OF_MODELS = ("mhubert", "fairseq")
BACK_ENDS = (*_PLAIN, *_OF_MODELS)
"""Names of the kinds of features."""


class UnitFeatures(Protocol):
    """Interface of every kind of features.

    :class:`Windows` also uses three optional methods: ``normalized(samples)``, applied to a whole recording first;
    ``frames(samples)``, applied to each window in place of a call; ``project(table)``, applied to the joined frames.

    Attributes:
        dim: width D of a feature vector.
        context_samples: samples on each side of a unit frame that can change its vector; windows of long recordings
            overlap by at least this much. ``None`` where it has no limit.
    """

    dim: int
    context_samples: int | None

    def describe(self) -> dict[str, Any]:
        """Settings that the units depend on, as plain values: kind, layer, size, ..."""
        ...

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Samples (n,) at 16 kHz -> (unit frames, D), 20 ms each, vector u of samples from 320 u on."""
        ...


class LogMel:
    """Log-mel energies: mean of the two 10 ms filterbank frames of a unit frame.

    n samples give floor((n - 240) / 320) unit frames, 0 below 560.
    """

    name = "logmel"
    context_samples = UNIT_SAMPLES  # a window of 25 ms reaches 240 samples past its unit frame
    dim = NUM_BINS

    def describe(self) -> dict[str, Any]:
        """See :class:`UnitFeatures`."""
        return {"features": self.name, "bins": NUM_BINS}

    def frames(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The energies: samples (n,) -> (unit frames, 80); each depends on its own samples alone, bit by bit."""
        frames = fbank(samples).numpy()
        count = len(frames) // 2
        return frames[: 2 * count].reshape(count, 2, NUM_BINS).mean(axis=1)

    def project(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """From energies (unit frames, 80) to features; of a whole recording, since rounding depends on the shape."""
        return frames

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """See :class:`UnitFeatures`."""
        return self.project(self.frames(samples))


class Mfcc(LogMel):
    """Mel-frequency cepstra of :class:`LogMel`'s energies, the loudness (coefficient 0) scaled down.

    Args:
        coefficients: cepstral coefficients kept, from 0 on; with fewer, the timbre of a speaker counts less.
        loudness: weight of coefficient 0 among the others in the distance between frames.
    """

    name = "mfcc"

    def __init__(self, coefficients: int = 20, loudness: float = 0.5) -> None:
        if not 1 <= coefficients <= NUM_BINS:
            raise ConfigError(f"mfcc keeps 1 to {NUM_BINS} coefficients, not {coefficients}")
        self.dim, self.loudness = coefficients, loudness
        # Orthonormal DCT-II: row k is cos(pi k (bin + 1/2) / bins).
        angle = np.outer(np.arange(coefficients), np.arange(NUM_BINS) + 0.5) * (math.pi / NUM_BINS)
        basis = np.cos(angle) * math.sqrt(2 / NUM_BINS)
        basis[0] *= loudness * math.sqrt(0.5)
        self._basis = basis.T.astype(np.float32)

    def describe(self) -> dict[str, Any]:
        """See :class:`UnitFeatures`."""
        return {"features": self.name, "coefficients": self.dim, "loudness": self.loudness}

    def project(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """See :class:`LogMel`."""
        return frames @ self._basis


@dataclass(frozen=True)
class BackEnd:
    """Which features to compute; plain values, so that it can be sent to other processes.

    Attributes:
        name: one of :data:`BACK_ENDS`.
        model: folder (mhubert) or checkpoint (fairseq) of the network.
        layer: of the network, from 1 on; :data:`DEFAULT_LAYER` if ``None``.
        device: of the network: ``cpu``, ``cuda``, ``cuda:1``, ...
        coefficients, loudness: of :class:`Mfcc`.

    Raises:
        ConfigError: an unknown name or device; a network without ``model``; a model or layer for other features.
    """

    name: str
    model: str | None = None
    layer: int | None = None
    device: str = "cpu"
    coefficients: int = 20
    loudness: float = 0.5

    def __post_init__(self) -> None:
        if self.name not in BACK_ENDS:
            raise ConfigError(f"features must be one of {', '.join(BACK_ENDS)}, not {self.name!r}")
        if self.name in _OF_MODELS and self.model is None:
            what = "Hugging Face HubertModel folder" if self.name == "mhubert" else "fairseq HuBERT checkpoint"
            raise ConfigError(f"features {self.name} need a model (--model), a {what}")
        if self.name in _PLAIN and (self.model is not None or self.layer is not None):
            raise ConfigError(f"features {self.name} have no model and no layer")
        find_device(self.device, must_exist=False)

    @property
    def has_network(self) -> bool:
        """True where a network computes the features."""
        return self.name in _OF_MODELS

    def build(self) -> UnitFeatures:
        """Make the features, loading the network.

        Raises:
            FileNotFoundError, NastError: a model that is missing or unusable; a device that torch cannot use.
            ModuleNotFoundError: transformers or fairseq is not installed.
        """
        layer = DEFAULT_LAYER if self.layer is None else self.layer
        if self.name == "mhubert":
            from nast_s2x.units.speech_models.huggingface import HubertFeatures

            return HubertFeatures.load(str(self.model), layer, str(find_device(self.device)))
        if self.name == "fairseq":
            from nast_s2x.units.speech_models.fairseq import FairseqHubertFeatures

            return FairseqHubertFeatures.load(str(self.model), layer, str(find_device(self.device)))
        return LogMel() if self.name == "logmel" else Mfcc(self.coefficients, self.loudness)


@dataclass(frozen=True)
class Windows:
    """Windows in which features of long recordings are computed, so that memory is bounded.

    A recording no longer than a window is computed at once. A longer one is cut into windows of equal length; each
    includes samples of its neighbours on both sides, and only the frames of its centre are kept. Features with limited
    context (``context_samples``) are exactly those of the whole recording. For other features (transformers) every
    frame is computed with at least the overlap on both sides.

    Attributes:
        seconds: the longest piece that is computed at once, overlaps included.
        overlap: seconds computed and not kept on each side; features with a known context take that instead.
    """

    seconds: float = WINDOW_SECONDS
    overlap: float = OVERLAP_SECONDS

    def frames(self, features: UnitFeatures) -> tuple[int, int]:
        """Unit frames of a window's centre, and of the overlap on each side.

        Raises:
            ConfigError: a window that holds nothing but its overlaps; an overlap below one unit frame.
        """
        if not (math.isfinite(self.seconds) and math.isfinite(self.overlap)):
            raise ConfigError(f"lengths of windows must be numbers of seconds, not {self.seconds} and {self.overlap}")
        if features.context_samples is None:
            overlap = round(self.overlap * SAMPLE_RATE / UNIT_SAMPLES)
        else:
            overlap = -(-features.context_samples // UNIT_SAMPLES)
        step = round(self.seconds * SAMPLE_RATE / UNIT_SAMPLES) - 2 * overlap
        if overlap < 1:
            raise ConfigError(f"windows must overlap by at least one unit frame of 0.02 s, not by {self.overlap} s")
        if step < 1:
            raise ConfigError(
                f"windows of {self.seconds} s leave nothing between overlaps of {overlap} frames of 20 ms"
            )
        return step, overlap

    def compute(self, features: UnitFeatures, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features of samples (n,) at 16 kHz of any length: (unit frames, D), as many as the whole recording gives.

        Raises:
            ConfigError: as for :meth:`frames`.
        """
        cuts = _cuts(len(samples), *self.frames(features))
        local = getattr(features, "frames", features)
        project = getattr(features, "project", None)
        # Over the recording, not over each window: the statistics are those of the recording.
        samples = features.normalized(samples) if hasattr(features, "normalized") else samples
        table = np.concatenate([local(samples[start:stop])[first:last] for start, stop, first, last in cuts])
        return table if project is None else project(table)

    def read(self, features: UnitFeatures, audio: AudioRef) -> NDArray[np.float32]:
        """Features of a recording: (unit frames, D), 1 frame or more.

        Raises:
            AudioError: unreadable, not finite, or shorter than a unit frame; names the file.
        """
        samples = audio.samples()
        table = self.compute(features, samples)
        if not len(table):
            raise AudioError(f"{audio}: shorter than a unit frame ({len(samples)} samples at 16 kHz)")
        if not np.isfinite(table).all():
            raise AudioError(f"{audio}: features are not finite")
        return table


def _cuts(num_samples: int, step: int, overlap: int) -> list[tuple[int, int | None, int, int | None]]:
    """Windows of a recording: (first sample, end, first frame kept, end), frames from the window's start; an end of
    ``None`` is that of the recording."""
    total = num_samples // UNIT_SAMPLES
    if total <= step + 2 * overlap:
        return [(0, None, 0, None)]
    count = -(-total // step)
    borders = [total * i // count for i in range(count + 1)]
    cuts: list[tuple[int, int | None, int, int | None]] = []
    for begin, end in zip(borders, borders[1:]):
        start = max(0, begin - overlap)
        stop, last = (end + overlap) * UNIT_SAMPLES, end - start
        is_last = end == total
        cuts.append((start * UNIT_SAMPLES, None if is_last else stop, begin - start, None if is_last else last))
    return cuts


def model_path(model: str | os.PathLike[str] | None) -> str | None:
    """A path as :class:`BackEnd` holds it."""
    return None if model is None else os.fspath(model)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread in this block, so that sums do not depend on the number of CPUs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
