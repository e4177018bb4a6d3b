"""The voice of a bundle: a unit vocoder in its subfolder, and the check that both speak of the same units."""

from __future__ import annotations

from pathlib import Path

from nast_s2x.vocoder.checkpoint import CARD, CONFIG, SUBFOLDER, WEIGHTS, load_vocoder, save_vocoder
from nast_s2x.vocoder.network import UnitVocoder


def load_voice(path: str | Path) -> tuple[UnitVocoder, str]:
    """A vocoder and the text of its card, from a vocoder folder, a bundle, or a released checkpoint.

    Raises: as :func:`~nast_s2x.vocoder.checkpoint.load_vocoder`.
    """
    path = Path(path)
    vocoder = load_vocoder(path)
    folder = path / SUBFOLDER if (path / SUBFOLDER / CONFIG).is_file() else path
    card = folder / CARD
    return vocoder, card.read_text(encoding="utf-8") if card.is_file() else ""


def load_bundled_voice(bundle: Path, required: bool) -> tuple[UnitVocoder | None, str]:
    """The vocoder in a bundle's folder and its card; ``None`` when there is none and none is ``required``.

    Raises:
        FileNotFoundError: it is required, or there in part only; names the file.
        ValueError: it is damaged.
    """
    folder = bundle / SUBFOLDER
    if not required and not any((folder / name).exists() for name in (CONFIG, WEIGHTS)):
        return None, ""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"bundle {bundle} is incomplete: file {SUBFOLDER}/{name} is missing")
    return load_voice(folder)


def save_voice(vocoder: UnitVocoder | None, card: str, bundle: Path, half: bool) -> None:
    """Write the vocoder into a bundle's folder; without one, remove that of another bundle which lay here."""
    folder = bundle / SUBFOLDER
    if vocoder is not None:
        save_vocoder(vocoder, folder, half, card)
    elif folder.is_dir():
        for name in (CONFIG, WEIGHTS, CARD):
            (folder / name).unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()


def check_units_match(vocoder: UnitVocoder, num_units: int | None, unit_hash: str | None) -> None:
    """Refuse a vocoder that cannot speak a model's units.

    Args:
        num_units: units of the model; ``None`` without a unit decoder.
        unit_hash: hash of the centroids behind the model's units, where known.
    Raises:
        ValueError: the model has no units, more units than the vocoder knows, or units of other centroids; the vocoder
            does not predict durations.
    """
    config = vocoder.config
    if num_units is None:
        raise ValueError("a system without a unit decoder has nothing to say to a vocoder")
    if config.num_embeddings < num_units:
        raise ValueError(
            f"the model has {num_units} units, the vocoder knows {config.num_embeddings}: they do not belong together"
        )
    if unit_hash and config.unit_hash and unit_hash != config.unit_hash:
        raise ValueError(
            f"the model speaks units of the centroids {unit_hash}, the vocoder knows units of {config.unit_hash}: "
            "they do not belong together"
        )
    if config.dur_predictor_params is None:
        raise ValueError(
            "it has no duration predictor (dur_predictor_params), and the model does not say how long units are"
        )
