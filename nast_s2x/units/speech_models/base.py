"""Layers of self-supervised speech transformers (HuBERT; Hsu et al., 2021) as features for units."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nast_s2x.corpus.utterance import UNIT_SAMPLES
from nast_s2x.errors import CheckpointError, ConfigError
from nast_s2x.frontend.speech_models import VARIANCE_FLOOR, frame_samples, normalize_samples


class TransformerFeatures:
    """Output of one layer of a speech transformer: see :class:`~nast_s2x.units.features.UnitFeatures`.

    A frame depends on everything that is computed at once. With HuBERT's convolutions n samples give
    floor((n - 80) / 320) unit frames, 0 below 400.

    Args:
        model: the network, in evaluation mode, cut off after the layer.
        layers: its transformer layers.
        layer: number of the layer whose output is returned, from 1 on.
        convolutions: (kernel, stride) of each layer of the convolutional front end.
        dim: width of a layer.
        normalize: normalise the samples to zero mean and unit variance over the whole recording.
        digest: :func:`weights_digest` of the network.
        device: of the network.
    """

    name = ""
    context_samples = None
    variance_floor = VARIANCE_FLOOR

    def __init__(
        self,
        model: nn.Module,
        layers: nn.ModuleList,
        layer: int,
        convolutions: Sequence[tuple[int, int]],
        dim: int,
        normalize: bool,
        digest: str,
        device: str,
    ) -> None:
        self.model, self.layer, self.dim, self.normalize = model, layer, dim, normalize
        self.digest, self.device = digest, torch.device(device)
        self.min_samples, _ = frame_samples(convolutions)
        # A hook gives the output of the layer itself; the libraries differ in what they return (last norm, layout).
        layers[layer - 1].register_forward_hook(self._keep)
        self._output: Tensor | None = None

    def _keep(self, _module: nn.Module, _inputs: Any, output: Tensor | tuple[Any, ...]) -> None:
        self._output = output[0] if isinstance(output, tuple) else output

    def describe(self) -> dict[str, Any]:
        """See :class:`~nast_s2x.units.features.UnitFeatures`."""
        return {"features": self.name, "layer": self.layer, "weights": self.digest, "normalize": self.normalize}

    def normalized(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Samples (n,) as in the training of the network: with zero mean and unit variance if it was trained so."""
        return normalize_samples(samples, self.variance_floor) if self.normalize else samples

    def frames(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Normalised samples (n,) -> (unit frames, D)."""
        if len(samples) < self.min_samples:
            return np.zeros((0, self.dim), np.float32)
        with torch.inference_mode():
            self._run(torch.from_numpy(np.ascontiguousarray(samples))[None].to(self.device))
        output, self._output = self._output, None
        assert output is not None
        return self._table(output).float().cpu().numpy()

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """See :class:`~nast_s2x.units.features.UnitFeatures`."""
        return self.frames(self.normalized(samples))

    def _run(self, batch: Tensor) -> None:
        """Run the network on (1, n) up to the layer."""
        raise NotImplementedError

    def _table(self, output: Tensor) -> Tensor:
        """(unit frames, D) from the output of the layer."""
        return output[0]


def check_layer(layer: int, num_layers: int, name: str) -> None:
    """Raise :class:`ConfigError` unless the layer is one of 1..num_layers."""
    if not 1 <= layer <= num_layers:
        raise ConfigError(f"{name}: layer must be in 1..{num_layers}, not {layer}")


def check_convolutions(convolutions: Sequence[tuple[int, int]], name: str) -> None:
    """Raise :class:`CheckpointError` unless the convolutions give a frame every 20 ms."""
    _, stride = frame_samples(convolutions)
    if stride != UNIT_SAMPLES:
        raise CheckpointError(f"{name}: gives a frame every {stride} samples, units are frames of {UNIT_SAMPLES}")


def weights_digest(weights: Iterable[Tensor]) -> str:
    """16 hexadecimal digits that depend on the values of the weights, not on their names, order or file format."""
    parts = sorted(
        hashlib.sha256(
            repr(tuple(value.shape)).encode() + value.detach().float().contiguous().numpy().tobytes()
        ).digest()
        for value in weights
    )
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]
