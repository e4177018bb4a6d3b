"""Features of Hugging Face ``HubertModel`` folders, such as mHuBERT (Lee et al., 2022); extra ``units``."""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor

from nast_s2x.checkpoints import huggingface
from nast_s2x.units.speech_models.base import TransformerFeatures, check_convolutions, check_layer, weights_digest


class HubertFeatures(TransformerFeatures):
    """A layer of a ``HubertModel``: ``hidden_states[layer]`` of transformers, before any last norm."""

    name = "mhubert"

    @classmethod
    def load(cls, folder: str | os.PathLike[str], layer: int = 11, device: str = "cpu") -> HubertFeatures:
        """Load a folder with ``config.json`` and weights (safetensors, or a ``.bin`` read weights-only).

        Nothing is downloaded. Samples are normalised if ``preprocessor_config.json`` has ``do_normalize: true``.

        Raises:
            FileNotFoundError: no such folder, or a file missing in it.
            NastError: not a HuBERT model, weights that do not fit it, no such layer; names the folder.
            ModuleNotFoundError: transformers is not installed.
        """
        folder = Path(folder)
        config = huggingface.read_config(folder, "hubert")
        normalize = huggingface.normalizes(folder)
        check_layer(layer, int(config.get("num_hidden_layers", 12)), str(folder))
        model = huggingface.load_model("HubertModel", folder)
        convolutions = list(zip(model.config.conv_kernel, model.config.conv_stride))
        check_convolutions(convolutions, str(folder))
        model.encoder.layers = model.encoder.layers[:layer]
        digest = weights_digest(model.state_dict().values())
        model.eval().to(device)
        width = model.config.hidden_size
        return cls(model, model.encoder.layers, layer, convolutions, width, normalize, digest, device)

    def _run(self, batch: Tensor) -> None:
        self.model(batch)
