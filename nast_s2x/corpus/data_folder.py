"""The ``config.yaml`` of a data folder, in the form of fairseq's speech-to-text data.

Every path in it is relative to its folder; an absolute path is accepted where it exists. A released file may carry the
paths of the machine it was made on: then a file of the same name beside ``config.yaml`` is taken.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

CONFIG_NAME = "config.yaml"
_KNOWN_TRANSFORMS = ("global_cmvn", "specaugment")


@dataclass(frozen=True)
class DataConfig:
    """What a data folder says about itself.

    Attributes:
        folder: the data folder.
        vocab_path: dictionary, ``piece count`` lines, without specials and blank.
        spm_path: SentencePiece model.
        cmvn_path: ``.npz`` with ``mean`` and ``std``, or None.
        specaugment: keyword arguments for :class:`~nast_s2x.frontend.specaugment.SpecAugment`, or None.
        audio_root: folder that relative audio paths of the manifests start from.
        sample_rate: of the audio that features are computed from, in Hz.
        num_units: number of unit codes K, or None without target speech.
        unit_hash: names the centroids that the units come from, or None where nothing says so.
        source_lang, target_lang: language names such as "fr", or "".
        feature_bins: width of a feature frame.
    """

    folder: Path
    vocab_path: Path
    spm_path: Path
    cmvn_path: Path | None = None
    specaugment: dict[str, Any] | None = None
    audio_root: Path = Path()  # set to the data folder, or to audio_root in it, by load()
    sample_rate: int = 16000
    num_units: int | None = None
    unit_hash: str | None = None
    source_lang: str = ""
    target_lang: str = ""
    feature_bins: int = 80
    transform_table: Mapping[str, list[str]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder_or_yaml: str | os.PathLike[str]) -> DataConfig:
        """Load from a data folder or from a yaml file in it.

        Raises:
            FileNotFoundError: no such configuration, vocabulary, SentencePiece model or CMVN file; names it.
            ValueError: a value that this project cannot honour; names the key.
        """
        path = Path(folder_or_yaml)
        path = path / CONFIG_NAME if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such data configuration")
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except yaml.YAMLError as error:
            raise ValueError(f"{path}: not a YAML file ({error})") from error
        if not isinstance(values, dict):
            raise ValueError(f"{path}: must hold a table of settings, not {type(values).__name__}")
        try:
            return cls(folder=path.parent, **_fields(values, path.parent))
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"{path}: {error}") from error

    def transforms(self, is_train: bool, split: str | None = None) -> list[str]:
        """Names of the feature transforms of a split: its own entry, else ``_train``/``_eval``, else ``*``."""
        for key in (split, "_train" if is_train else "_eval", "*"):
            if key is not None and self.transform_table.get(key) is not None:
                return list(self.transform_table[key])
        return []


def read_audio_root(folder: str | os.PathLike[str]) -> Path | None:
    """Folder that relative audio paths of a data folder start from; None where no ``config.yaml`` names one.

    Only this key is read: the file's name is a common one, so any other content is accepted.
    """
    config = Path(folder) / CONFIG_NAME
    try:
        values = yaml.safe_load(config.read_text(encoding="utf-8")) if config.is_file() else None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, OSError):
        values = None
    root = values.get("audio_root") if isinstance(values, dict) else None
    return config.parent / root if isinstance(root, str) and root else None


def _fields(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    bins = int(values.get("input_feat_per_channel", 80)) * int(values.get("input_channels", 1))
    if bins != 80:
        raise ValueError(f"input_feat_per_channel x input_channels must be 80 features, not {bins}")
    sample_rate = int(values.get("sample_rate", 16000))
    if sample_rate != 16000:
        raise ValueError(f"sample_rate must be 16000, not {sample_rate}: audio of other rates is resampled on reading")
    num_units = values.get("num_units")
    if num_units is not None and int(num_units) < 1:
        raise ValueError(f"num_units must be positive, not {num_units}")
    cmvn = _table(values, "global_cmvn").get("stats_npz_path")
    transforms = _transforms(values)
    if cmvn is None and any("global_cmvn" in names for names in transforms.values()):
        raise ValueError("transforms ask for global_cmvn, but global_cmvn.stats_npz_path is not set")
    tokenizer = _table(values, "bpe_tokenizer")
    if tokenizer.get("bpe", "sentencepiece") != "sentencepiece":
        raise ValueError(f"bpe_tokenizer.bpe must be sentencepiece, not {tokenizer['bpe']!r}")
    return {
        "vocab_path": _path(values.get("vocab_filename", "dict.txt"), folder, "vocab_filename"),
        "spm_path": _path(tokenizer.get("sentencepiece_model", "spm.model"), folder, "sentencepiece_model"),
        "cmvn_path": None if cmvn is None else _path(cmvn, folder, "global_cmvn.stats_npz_path"),
        "specaugment": _specaugment(values),
        "audio_root": folder / str(values.get("audio_root") or ""),
        "sample_rate": sample_rate,
        "num_units": None if num_units is None else int(num_units),
        "unit_hash": str(values.get("unit_hash") or "") or None,
        "source_lang": str(values.get("source_lang") or ""),
        "target_lang": str(values.get("target_lang") or ""),
        "feature_bins": bins,
        "transform_table": transforms,
    }


def _table(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    table = values.get(key) or {}
    if not isinstance(table, dict):
        raise ValueError(f"{key} must be a table of settings, not {table!r}")
    return table


def _path(value: Any, folder: Path, key: str) -> Path:
    """Resolve a path of the configuration; see the module's docstring for the order."""
    path = folder / str(value)
    for candidate in (path, folder / Path(str(value)).name):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"{key}: no such file {path}")


def _transforms(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """Merge ``transforms`` with its newer spelling ``feature_transforms``."""
    merged: dict[str, list[str]] = {}
    for key in ("transforms", "feature_transforms"):
        for split, names in _table(values, key).items():
            merged.setdefault(str(split), []).extend(names or [])
    for names in merged.values():
        unknown = [name for name in names if name not in _KNOWN_TRANSFORMS]
        if unknown:
            raise ValueError(f"transforms: {unknown[0]!r} is not one of {', '.join(_KNOWN_TRANSFORMS)}")
    return merged


def _specaugment(values: Mapping[str, Any]) -> dict[str, Any] | None:
    table = _table(values, "specaugment")
    if not table:
        return None
    if table.get("time_warp_W") or table.get("time_wrap_W"):
        raise ValueError("specaugment: time warping is not supported, set time_warp_W to 0")
    if table.get("mask_value") not in (None, 0, 0.0):
        raise ValueError(f"specaugment: mask_value must be 0, not {table['mask_value']}")
    return {
        "freq_masks": int(table.get("freq_mask_N", 0)),
        "freq_width": int(table.get("freq_mask_F", 0)),
        "time_masks": int(table.get("time_mask_N", 0)),
        "time_width": int(table.get("time_mask_T", 0)),
        "time_p": float(table.get("time_mask_p", 0.0)),
    }
