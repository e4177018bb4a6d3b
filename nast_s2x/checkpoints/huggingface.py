"""Speech models in folders of the library transformers (extra ``units``).

Only local files are read, and no code in them is executed.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from nast_s2x.errors import CheckpointError
from nast_s2x.files import read_json
from nast_s2x.frontend.samples import SAMPLE_RATE

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""File names of weights, any of which a folder must have."""


def read_config(folder: Path, model_type: str) -> dict[str, Any]:
    """``config.json`` of a folder with a model of this type and its weights.

    Raises:
        FileNotFoundError: no such folder, or a file missing in it.
        NastError: the model is of another type, or the file is not a JSON object.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such model folder (models are read from local folders only)")
    config = read_json(folder / "config.json")
    if config.get("model_type") != model_type:
        raise CheckpointError(f"{folder}: model_type must be {model_type}, not {config.get('model_type')!r}")
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise FileNotFoundError(f"{folder}: no weights, {WEIGHTS[0]} or {WEIGHTS[2]}")
    return config


def normalizes(folder: Path) -> bool:
    """Whether samples are normalised: by ``preprocessor_config.json``; False without that file.

    Raises:
        NastError: the model is of another sample rate, or the file is not a JSON object.
    """
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return False
    settings = read_json(path)
    rate = settings.get("sampling_rate", SAMPLE_RATE)
    if rate != SAMPLE_RATE:
        raise CheckpointError(f"{path}: sampling_rate must be {SAMPLE_RATE}, not {rate}")
    return bool(settings.get("do_normalize", False))


def load_model(name: str, folder: Path) -> Any:
    """The transformers model of class ``name`` in a folder, in float32; a ``.bin`` is read weights-only.

    Raises:
        ModuleNotFoundError: transformers is not installed.
        CheckpointError: the weights cannot be read, do not fit the model, or are incomplete; names the folder.
    """
    with without_torchaudio():
        import transformers
        from transformers.utils import logging

        model_class = getattr(transformers, name)
    level, had_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, report = model_class.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, weights_only=True
        )
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, OSError, ValueError, TypeError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{folder}: the model does not load ({reason})") from error
    finally:
        logging.set_verbosity(level)
        if had_bar:
            logging.enable_progress_bar()
    # The vector that masks inputs in training is the only parameter that inference does not need.
    missing = sorted(name for name in report["missing_keys"] if "masked_spec_embed" not in name)
    if missing:
        raise CheckpointError(f"{folder}: the weights lack {len(missing)} parameters, {missing[0]} among them")
    return model.float()


@contextlib.contextmanager
def without_torchaudio() -> Iterator[None]:
    """Hide torchaudio from transformers, which imports it wherever it is installed and does not need it here.

    fairseq installs torchaudio, and its released builds raise OSError on a CPU-only torch.
    """
    if "torchaudio" in sys.modules:
        yield
        return
    sys.modules["torchaudio"] = None  # type: ignore[assignment]
    try:
        from transformers.utils import import_utils

        # transformers may have cached another answer before.
        getattr(import_utils.is_torchaudio_available, "cache_clear", lambda: None)()
        yield
    finally:
        sys.modules.pop("torchaudio", None)
