"""Vocoder folders: our own (``config.json``, ``model.safetensors``, a card) and the released CodeHiFiGAN checkpoints.

Released checkpoints are pickles. They are read by :func:`~nast_s2x.checkpoints.safe_load.safe_load`, which executes
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from nast_s2x.checkpoints.safe_load import safe_load
from nast_s2x.checkpoints.weights import check_tensors, read_weights, write_weights
from nast_s2x.device import without_memory
from nast_s2x.errors import CheckpointError, ConfigError
from nast_s2x.files import check_output_folder, read_json, replace_folder, write_atomic, write_json
from nast_s2x.vocoder.config import VocoderConfig, check_unit_hash
from nast_s2x.vocoder.network import UnitVocoder

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
SUBFOLDER = "vocoder"
"""Folder of the vocoder in a bundle, and in the output of a training."""

# Endings of a parameter's name under weight norm (magnitude, direction), as older and newer versions of torch write it.
_WEIGHT_NORM = (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1"))
# First parts of parameter names of networks with other inputs.
_OTHER_INPUTS = {"spkr": "speakers", "f0_quant_embed": "quantised pitch"}


def load_vocoder(path: str | Path, device: str | torch.device = "cpu") -> UnitVocoder:
    """Load a vocoder for synthesis: eval mode, no gradients, float32, weight norm folded.

    Args:
        path: a vocoder folder, a bundle with a vocoder, a released folder (``config.json`` and one checkpoint such as
            ``g_00500000``), or one such checkpoint with ``config.json`` beside it.
        device: of the weights.

    Raises:
        FileNotFoundError: a file is missing; names it.
        NastError: a damaged file, a checkpoint that contains more than tensors, an unsupported configuration, or
            weights that do not fit the configuration.
    """
    folder, weights = _locate(Path(path))
    config = _read_config(folder / CONFIG)
    if weights.suffix == ".safetensors":
        state: Mapping[str, Tensor] = read_weights(weights)
    else:
        state = _read_released(weights)
    # A copy: safetensors maps the file into memory, and the file may be replaced later.
    state = {name: value.to(torch.float32, copy=True) for name, value in fold_weight_norm(state).items()}
    with without_memory():  # none is taken for sizes that the file does not confirm
        model = UnitVocoder(config)
    _check(state, model, weights)
    model.load_state_dict(state, assign=True)
    return model.to(device).for_inference()


def read_card(path: str | Path) -> str:
    """Return ``README.md`` of a vocoder folder, or of the one in a bundle; empty without one, and for a single file."""
    path = Path(path)
    card = _locate(path)[0] / CARD
    return card.read_text(encoding="utf-8", errors="replace") if path.is_dir() and card.is_file() else ""


def save_vocoder(model: UnitVocoder, folder: str | Path, half: bool = False, card: str = "") -> Path:
    """Write a vocoder folder; returns it.

    The folder is replaced as a whole: if the process ends at any moment, the old or the new one is there.

    Args:
        model: weight norm is folded into plain weights.
        folder: made if needed; an older vocoder in it is replaced.
        half: store float16 weights; loading converts them to float32.
        card: text of ``README.md``; by default the sizes alone.

    Raises:
        CheckpointError: weights that are NaN, infinite or too large for float16.
        ConfigError: ``folder`` holds something other than a vocoder.
        OSError: a file cannot be written.
    """
    folder = Path(folder)
    check_output_folder(folder, "vocoder", WEIGHTS, overwrite=True)
    with replace_folder(folder) as new:
        dtype = torch.float16 if half else torch.float32
        write_weights(new / WEIGHTS, fold_weight_norm(model.state_dict()), dtype)
        write_json(new / CONFIG, model.config.to_dict(), indent=2)
        write_atomic(new / CARD, card or _plain_card(model))
    return folder


def check_units_match(vocoder: UnitVocoder, num_units: int | None, unit_hash: str | None) -> None:
    """Refuse a vocoder that cannot synthesize a model's units.

    Args:
        vocoder: the vocoder in question.
        num_units: units of the model; ``None`` without a unit decoder.
        unit_hash: hash of the centroids of the model's units, where known.

    Raises:
        NastError: the model has no units, more units than the vocoder, or units of other centroids; the vocoder does
            not predict durations.
    """
    config = vocoder.config
    if num_units is None:
        raise ConfigError("a vocoder needs a model with a unit decoder; this model has none")
    if config.num_embeddings < num_units:
        raise CheckpointError(
            f"the model has {num_units} units, the vocoder {config.num_embeddings}: they do not belong together"
        )
    check_unit_hash(unit_hash, config.unit_hash, "the model's units")
    if config.dur_predictor_params is None:
        raise CheckpointError(
            "the vocoder has no duration predictor (dur_predictor_params); a model predicts units without durations"
        )


def fold_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Compute plain weights from weights under weight norm, ``weight = g * v / |v|`` (Salimans and Kingma, 2016).

    Args:
        state: parameter name -> tensor; ``weight_g``/``weight_v`` and torch's newer
            ``parametrizations.weight.original0``/``original1`` are folded, everything else is kept.

    Raises:
        CheckpointError: a magnitude without its direction, or the reverse; shapes that do not belong together.
    """
    folded: dict[str, Tensor] = {}
    for name, value in state.items():
        for magnitude, direction in _WEIGHT_NORM:
            if name.endswith(f".{direction}"):
                module = name.removesuffix(direction)
                if module + magnitude not in state:
                    raise CheckpointError(f"weight norm is incomplete: {name} has no {module + magnitude}")
                folded[module + "weight"] = _normed(value, state[module + magnitude], name)
                break
            if name.endswith(f".{magnitude}"):
                partner = name.removesuffix(magnitude) + direction
                if partner not in state:
                    raise CheckpointError(f"weight norm is incomplete: {name} has no {partner}")
                break
        else:
            folded[name] = value
    return folded


def _normed(direction: Tensor, magnitude: Tensor, name: str) -> Tensor:
    """``magnitude * direction / |direction|``, the norm over all dimensions but the first; ``name`` for messages."""
    shape = (len(direction), *[1] * (direction.dim() - 1)) if direction.dim() else ()
    if direction.dim() < 2 or magnitude.shape != shape:
        raise CheckpointError(
            f"weight norm: {name} has shape {tuple(direction.shape)}, its magnitude {tuple(magnitude.shape)}: the "
            "magnitude must have one value for each first index"
        )
    # In float64, so that the division adds no rounding of its own.
    v, g = direction.double(), magnitude.double()
    return (g * v / v.flatten(1).norm(dim=1).view(shape)).to(direction.dtype)


def _locate(path: Path) -> tuple[Path, Path]:
    """The folder with ``config.json``, and the file of weights."""
    if path.is_file():
        return path.parent, path
    if not path.is_dir():
        raise FileNotFoundError(f"no such vocoder folder or checkpoint: {path}")
    if (path / SUBFOLDER / CONFIG).is_file():
        path = path / SUBFOLDER
    if (path / WEIGHTS).is_file():
        return path, path / WEIGHTS
    found = sorted({*path.glob("g_*"), *path.glob("*.pt")})
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise CheckpointError(f"{path} holds several checkpoints ({names}): name one of them")
    if not found:
        raise FileNotFoundError(f"{path} is not a vocoder folder: neither {WEIGHTS} nor a checkpoint g_* is in it")
    return path, found[0]


def _read_config(path: Path) -> VocoderConfig:
    if not path.is_file():
        raise FileNotFoundError(f"a vocoder needs its configuration: {path} not found")
    try:
        return VocoderConfig.from_dict(read_json(path))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _read_released(path: Path) -> dict[str, Tensor]:
    """The parameters of a checkpoint ``{"generator": ...}``, read as data only."""
    state = safe_load(path)
    generator = state.get("generator") if isinstance(state, Mapping) else None
    if not isinstance(generator, Mapping) or not generator:
        raise CheckpointError(f"{path} is not a vocoder checkpoint: it has no 'generator' entry with parameters")
    check_tensors(path, generator, "a vocoder checkpoint")
    return dict(generator)


def _check(state: Mapping[str, Tensor], model: UnitVocoder, path: Path) -> None:
    """Compare names and shapes with the network's; refuse values that are not finite."""
    for name in state:
        meaning = _OTHER_INPUTS.get(name.split(".")[0])
        if meaning is not None:
            raise CheckpointError(f"{path}: {name} ({meaning}) is not supported, units are the only input")
    expected = model.state_dict()
    if state.keys() != expected.keys():
        name = sorted(state.keys() ^ expected.keys())[0]
        problem = "lacks" if name in expected else "has an unknown parameter"
        raise CheckpointError(f"{path} does not fit its configuration: it {problem} {name}")
    for name, value in state.items():
        if value.shape != expected[name].shape:
            raise CheckpointError(
                f"{path} does not fit its configuration: {name} has shape {tuple(value.shape)}, not "
                f"{tuple(expected[name].shape)}"
            )
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{path}: {name} holds NaN or infinite values")


def _plain_card(model: UnitVocoder) -> str:
    config = model.config
    size = sum(parameter.numel() for parameter in model.parameters())
    units = f"units of centroids {config.unit_hash}" if config.unit_hash else "the centroids are not recorded"
    return (
        "# Unit vocoder\n\n"
        f"{config.num_embeddings} speech units (20 ms each), {units}, to a 16 kHz waveform. A CodeHiFiGAN generator of "
        f"{size / 1e6:.1f}M parameters{'' if config.dur_predictor_params else ', without a duration predictor'}.\n"
    )
