"""Back ends by name, and the one that a set of centroids belongs to."""

from __future__ import annotations

import os
from dataclasses import dataclass

from nast_s2x.units.centroids import Centroids
from nast_s2x.units.features import MelSpectrogram, Mfcc, UnitFeatures

DEFAULT_LAYER = 11
_PLAIN = {"mfcc": Mfcc, "logmel": MelSpectrogram}
_OF_MODELS = ("mhubert", "fairseq")
BACK_ENDS = (*_PLAIN, *_OF_MODELS)


@dataclass(frozen=True)
class BackEnd:
    """Which features to compute; plain values, so that it can be sent to worker processes.

    Attributes:
        name: one of :data:`BACK_ENDS`.
        model: folder (mhubert) or checkpoint (fairseq) of the network.
        layer: of the network, from 1 on; :data:`DEFAULT_LAYER` if ``None``.
        device: of the network: ``cpu``, ``cuda``, ``cuda:1``, ...
        coefficients, loudness: of :class:`~nast_s2x.units.features.Mfcc`.
    """

    name: str
    model: str | None = None
    layer: int | None = None
    device: str = "cpu"
    coefficients: int = 20
    loudness: float = 0.5

    def __post_init__(self) -> None:
        if self.name not in BACK_ENDS:
            raise ValueError(f"features must be one of {', '.join(BACK_ENDS)}, not {self.name!r}")
        if self.name in _OF_MODELS and self.model is None:
            what = "Hugging Face HubertModel folder" if self.name == "mhubert" else "fairseq HuBERT checkpoint"
            raise ValueError(f"features {self.name} need a model (--model), a {what}")
        if self.name in _PLAIN and (self.model is not None or self.layer is not None):
            raise ValueError(f"features {self.name} have no model and no layer")

    @property
    def has_network(self) -> bool:
        """True where a network computes the features."""
        return self.name in _OF_MODELS

    def build(self) -> UnitFeatures:
        """Make the back end, loading its network.

        Raises:
            FileNotFoundError, ValueError: a model that is missing or unusable.
            ModuleNotFoundError: transformers or fairseq is not installed.
        """
        layer = DEFAULT_LAYER if self.layer is None else self.layer
        if self.name == "mhubert":
            from nast_s2x.units.speech_models.huggingface import HubertFeatures

            return HubertFeatures.load(self.model, layer, self.device)
        if self.name == "fairseq":
            from nast_s2x.units.speech_models.fairseq import FairseqHubertFeatures

            return FairseqHubertFeatures.load(self.model, layer, self.device)
        return MelSpectrogram() if self.name == "logmel" else Mfcc(self.coefficients, self.loudness)


def back_end_of(
    centroids: Centroids,
    name: str | None = None,
    model: str | os.PathLike[str] | None = None,
    layer: int | None = None,
    device: str = "cpu",
) -> BackEnd:
    """The back end that centroids were made with; what they do not say must be given, and what is given must agree.

    Raises:
        ValueError: says what is missing or contradicts the centroids.
    """
    said = dict(centroids.features)
    if not said and name is None:
        raise ValueError("these centroids do not say what they are clusters of: name the features (--features)")
    for key, given in (("features", name), ("layer", layer)):
        if said and given is not None and given != said.get(key):
            raise ValueError(f"the centroids are of {key} {said.get(key)}, not {given}")
    return BackEnd(
        name=str(said.get("features", name)),
        model=None if model is None else os.fspath(model),
        layer=said.get("layer", layer),
        device=device,
        coefficients=said.get("coefficients", BackEnd.coefficients),
        loudness=said.get("loudness", BackEnd.loudness),
    )


def check_fits(centroids: Centroids, features: UnitFeatures) -> None:
    """Raise ``ValueError`` where features are not those of the centroids: another width, weights, layer, ..."""
    width = centroids.centers.shape[1]
    if features.dim != width:
        raise ValueError(
            f"the centroids are {width} wide, the features {features.dim}: another back end, model or layer"
        )
    described = features.describe()
    for key, value in centroids.features.items():
        if described.get(key) != value:
            raise ValueError(f"the centroids were made with {key} {value}, these features have {described.get(key)}")
