"""The voice of a bundle: a unit vocoder in its subfolder, and the check that both speak of the same units."""

from __future__ import annotations

from pathlib import Path

from nast_s2x.vocoder.checkpoint import (
    CARD,
    CONFIG,
    SUBFOLDER,
    WEIGHTS,
    check_units_match,
    load_vocoder,
    read_card,
    save_vocoder,
)
from nast_s2x.vocoder.network import UnitVocoder

__all__ = ["check_units_match", "load_bundled_voice", "load_voice", "save_voice"]


def load_voice(path: str | Path) -> tuple[UnitVocoder, str]:
    """A vocoder and the text of its card; see :func:`~nast_s2x.vocoder.checkpoint.load_vocoder`."""
    return load_vocoder(path), read_card(path)


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
