"""The back end of Hugging Face ``HubertModel`` folders, such as mHuBERT (Lee et al., 2022); extra ``units``."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from nast_s2x.frontend.audio import SAMPLE_RATE
from nast_s2x.units.transformer import TransformerFeatures, check_convolutions, check_layer, weights_digest

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


class HubertFeatures(TransformerFeatures):
    """A layer of a ``HubertModel``: ``hidden_states[layer]`` of transformers, before any last norm."""

    name = "mhubert"

    @classmethod
    def load(cls, folder: str | os.PathLike[str], layer: int = 11, device: str = "cpu") -> HubertFeatures:
        """Load a folder with ``config.json`` and weights (safetensors, or a ``.bin`` read weights-only).

        Nothing is ever fetched. Samples are normalised if ``preprocessor_config.json`` says ``do_normalize``, and
        not otherwise, or without that file.

        Raises:
            FileNotFoundError: no such folder, or a file missing in it.
            ValueError: not a HuBERT model, weights that do not fit it, no such layer; names the folder.
            ModuleNotFoundError: transformers is not installed.
        """
        folder = Path(folder)
        config = _config(folder)
        normalize = _normalize(folder)
        check_layer(layer, int(config.get("num_hidden_layers", 12)), str(folder))
        model = _load_model(folder)
        convolutions = list(zip(model.config.conv_kernel, model.config.conv_stride))
        check_convolutions(convolutions, str(folder))
        model.encoder.layers = model.encoder.layers[:layer]
        digest = weights_digest(model.state_dict().values())
        model.eval().to(device)
        width = model.config.hidden_size
        return cls(model, model.encoder.layers, layer, convolutions, width, normalize, digest, device)

    def _run(self, batch: Tensor) -> None:
        self.model(batch)


def _config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such model folder (models are read from local folders only)")
    config = _read_json(folder / "config.json")
    if config.get("model_type") != "hubert":
        raise ValueError(f"{folder}: model_type must be hubert, not {config.get('model_type')!r}")
    if not any((folder / name).is_file() for name in _WEIGHTS):
        raise FileNotFoundError(f"{folder}: no weights, {_WEIGHTS[0]} or {_WEIGHTS[2]}")
    return config


def _normalize(folder: Path) -> bool:
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return False
    settings = _read_json(path)
    rate = settings.get("sampling_rate", SAMPLE_RATE)
    if rate != SAMPLE_RATE:
        raise ValueError(f"{path}: sampling_rate must be {SAMPLE_RATE}, not {rate}")
    return bool(settings.get("do_normalize", False))


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: must hold a table of settings, not {type(values).__name__}")
    return values


def _load_model(folder: Path) -> Any:
    with _without_torchaudio():
        from transformers import HubertModel
        from transformers.utils import logging

    level, had_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, report = HubertModel.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, weights_only=True
        )
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, OSError, ValueError, TypeError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{folder}: the model does not load ({reason})") from error
    finally:
        logging.set_verbosity(level)
        if had_bar:
            logging.enable_progress_bar()
    # The vector that masks inputs in training is the only one that features do not need.
    missing = sorted(name for name in report["missing_keys"] if "masked_spec_embed" not in name)
    if missing:
        raise ValueError(f"{folder}: the weights lack {len(missing)} parameters, {missing[0]} among them")
    return model.float()


@contextlib.contextmanager
def _without_torchaudio() -> Iterator[None]:
    """Hide torchaudio, which is not needed: transformers takes one that is installed for one that can be imported.

    fairseq brings torchaudio along, and its released builds raise OSError on a CPU-only torch.
    """
    if "torchaudio" in sys.modules:
        yield
        return
    sys.modules["torchaudio"] = None  # type: ignore[assignment]
    try:
        from transformers.utils import import_utils

        # If transformers was imported before, it may remember another answer.
        getattr(import_utils.is_torchaudio_available, "cache_clear", lambda: None)()
        yield
    finally:
        del sys.modules["torchaudio"]
