"""Vocoder folders: our own (``config.json``, ``model.safetensors``, a card) and the released CodeHiFiGAN checkpoints.

Released checkpoints are pickles. They are opened by :func:`~nast_s2x.checkpoints.safe_load.safe_load`, which
executes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nast_s2x.checkpoints.safe_load import safe_load
from nast_s2x.files import read_json
from nast_s2x.vocoder.config import VocoderConfig
from nast_s2x.vocoder.network import UnitVocoder

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
SUBFOLDER = "vocoder"
"""Where a bundle holds its vocoder."""

# Endings of a parameter's name under weight norm (magnitude, direction): both ways in which torch has spelled them.
_WEIGHT_NORM = (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1"))
# First parts of parameter names that only networks with other inputs have.
_OTHER_INPUTS = {"spkr": "speakers", "f0_quant_embed": "quantised pitch"}


def load_vocoder(path: str | Path, device: str | torch.device = "cpu") -> UnitVocoder:
    """Load a vocoder, ready to synthesize: eval mode, no gradients, float32, weight norm folded.

    Args:
        path: a vocoder folder, a bundle that holds one, a released folder (``config.json`` and one checkpoint such as
            ``g_00500000``), or one such checkpoint with ``config.json`` beside it.
        device: where to put it.

    Raises:
        FileNotFoundError: something is missing; the file is named.
        ValueError: a damaged file, a checkpoint that holds more than tensors, settings that are not supported, or
            weights that do not fit the configuration.
    """
    folder, weights = _locate(Path(path))
    config = _read_config(folder / CONFIG)
    if weights.suffix == ".safetensors":
        state: Mapping[str, Tensor] = _read_safetensors(weights)
    else:
        state = _read_released(weights)
    state = {name: value.float() for name, value in fold_weight_norm(state).items()}
    model = UnitVocoder(config)
    _check(state, model, weights)
    model.load_state_dict(state)
    return model.for_inference().to(device)


def save_vocoder(model: UnitVocoder, folder: str | Path, half: bool = False, card: str = "") -> Path:
    """Write a vocoder folder; returns it.

    Args:
        model: weight norm in it is folded into plain weights.
        folder: made if needed.
        half: store float16 weights; loading gives float32 again.
        card: text of its ``README.md``; by default the sizes alone.

    Raises:
        ValueError: weights that are NaN, infinite or too large for float16.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dtype = torch.float16 if half else torch.float32
    state = fold_weight_norm(model.state_dict())
    weights = {name: value.detach().cpu().to(dtype).contiguous() for name, value in state.items()}
    broken = next((name for name, value in weights.items() if not torch.isfinite(value).all()), None)
    if broken is not None:
        raise ValueError(f"the vocoder cannot be stored as {dtype}: {broken} holds NaN, infinite or too large values")
    partial = folder / f"{WEIGHTS}.partial"
    save_file(weights, partial, metadata={"format": "pt"})
    partial.chmod(0o644)  # safetensors leaves it to its owner alone, but vocoders are for sharing
    partial.replace(folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(model.config.to_dict(), indent=2) + "\n", encoding="utf-8")
    (folder / CARD).write_text(card or _plain_card(model), encoding="utf-8")
    return folder


def fold_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Plain weights from weights under weight norm, ``weight = g * v / |v|`` (Salimans and Kingma, 2016).

    Args:
        state: parameter name -> tensor; ``weight_g``/``weight_v`` and torch's newer
            ``parametrizations.weight.original0``/``original1`` are folded, everything else is kept as it is.

    Raises:
        ValueError: a magnitude without its direction, or the other way round.
    """
    folded: dict[str, Tensor] = {}
    for name, value in state.items():
        for magnitude, direction in _WEIGHT_NORM:
            if name.endswith(f".{direction}"):
                module = name.removesuffix(direction)
                if module + magnitude not in state:
                    raise ValueError(f"weight norm is incomplete: {name} has no {module + magnitude}")
                # In float64, as the rounding of v / |v| would be the only difference to what was trained.
                v, g = value.double(), state[module + magnitude].double()
                norm = v.flatten(1).norm(dim=1).view(-1, *[1] * (v.dim() - 1))
                folded[module + "weight"] = (g * v / norm).to(value.dtype)
                break
            if name.endswith(f".{magnitude}"):
                partner = name.removesuffix(magnitude) + direction
                if partner not in state:
                    raise ValueError(f"weight norm is incomplete: {name} has no {partner}")
                break
        else:
            folded[name] = value
    return folded


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
        raise ValueError(f"{path} holds several checkpoints ({', '.join(p.name for p in found)}): name one of them")
    if not found:
        raise FileNotFoundError(f"{path} is not a vocoder folder: neither {WEIGHTS} nor a checkpoint g_* is in it")
    return path, found[0]


def _read_config(path: Path) -> VocoderConfig:
    if not path.is_file():
        raise FileNotFoundError(f"a vocoder needs its configuration: {path} not found")
    values = read_json(path)
    try:
        return VocoderConfig.from_dict(values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from None


def _read_released(path: Path) -> dict[str, Tensor]:
    """The parameters of a checkpoint ``{"generator": ...}``, as data only."""
    state = safe_load(path)
    generator = state.get("generator") if isinstance(state, Mapping) else None
    if not isinstance(generator, Mapping) or not generator:
        raise ValueError(f"{path} is not a vocoder checkpoint: it has no 'generator' entry with parameters")
    if not all(isinstance(value, Tensor) for value in generator.values()):
        raise ValueError(f"{path} is not a vocoder checkpoint: 'generator' holds something other than tensors")
    return dict(generator)


def _check(state: Mapping[str, Tensor], model: UnitVocoder, path: Path) -> None:
    """Names, shapes and values, before anything is copied."""
    for name in state:
        meaning = _OTHER_INPUTS.get(name.split(".")[0])
        if meaning is not None:
            raise ValueError(f"{path}: {name} ({meaning}) is not supported, units are the only input")
    wanted = model.state_dict()
    if state.keys() != wanted.keys():
        name = sorted(state.keys() ^ wanted.keys())[0]
        problem = "lacks" if name in wanted else "has an unknown parameter"
        raise ValueError(f"{path} does not fit its configuration: it {problem} {name}")
    for name, value in state.items():
        if value.shape != wanted[name].shape:
            raise ValueError(
                f"{path} does not fit its configuration: {name} has shape {tuple(value.shape)}, not "
                f"{tuple(wanted[name].shape)}"
            )
        if not torch.isfinite(value).all():
            raise ValueError(f"{path}: {name} holds NaN or infinite values")


def _plain_card(model: UnitVocoder) -> str:
    config = model.config
    size = sum(parameter.numel() for parameter in model.parameters())
    units = (
        f"units of the centroids {config.unit_hash}" if config.unit_hash else "its units' centroids are not recorded"
    )
    return (
        "# Unit vocoder\n\n"
        f"{config.num_embeddings} speech units (20 ms each), {units}, to a 16 kHz waveform. A CodeHiFiGAN generator of "
        f"{size / 1e6:.1f}M parameters{'' if config.dur_predictor_params else ', without a duration predictor'}.\n"
    )
