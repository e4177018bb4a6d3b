"""The data folder of a training: ``config.yaml`` in the form of fairseq's speech-to-text data, and what it names.

Paths in the configuration are relative to the folder; absolute paths are accepted where the file exists. A released
configuration may hold the paths of another machine: then the file of the same name beside ``config.yaml`` is used.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nast_s2x.errors import ConfigError, ManifestError, NastError
from nast_s2x.files import read_json, read_yaml
from nast_s2x.frontend.noise_floor import Narrowband
from nast_s2x.frontend.specaugment import SpecAugment

AnyPath = str | os.PathLike[str]
CONFIG_NAME = "config.yaml"
RECORD_NAME = "prepare.json"
"""Record of a preparation: settings, rows of each split, bad rows."""
_KNOWN_TRANSFORMS = ("narrowband", "global_cmvn", "specaugment")
_LARGEST = 10**6  # of any number in the configuration
# Entry of the configuration -> field of SpecAugment.
_MASKS = {
    "freq_mask_N": "freq_masks",
    "freq_mask_F": "freq_width",
    "time_mask_N": "time_masks",
    "time_mask_T": "time_width",
    "time_mask_p": "time_p",
}


@dataclass(frozen=True)
class DataFolder:
    """Configuration of a data folder.

    Attributes:
        folder: the data folder.
        vocab_path: dictionary, ``piece count`` lines, without specials and blank.
        spm_path: SentencePiece model.
        cmvn_path: ``.npz`` with ``mean`` and ``std``, or None.
        specaugment: masks for training, or None.
        narrowband: band limit of a share of the training utterances, or None.
        audio_root: folder that relative audio paths of the tables start from.
        sample_rate: of the audio that features are computed from, in Hz.
        num_units: number of unit codes K, or None without target units.
        unit_hash: names the centroids of the units, None where it is not recorded.
        source_lang, target_lang: language names such as "fr", or "".
        feature_bins: width of a feature frame.
        transform_table: split, ``_train``, ``_eval`` or ``*`` -> names of its feature transforms.
    """

    folder: Path
    vocab_path: Path
    spm_path: Path
    cmvn_path: Path | None = None
    specaugment: SpecAugment | None = None
    narrowband: Narrowband | None = None
    audio_root: Path = Path()  # set by load()
    sample_rate: int = 16000
    num_units: int | None = None
    unit_hash: str | None = None
    source_lang: str = ""
    target_lang: str = ""
    feature_bins: int = 80
    transform_table: Mapping[str, list[str]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder_or_yaml: AnyPath) -> DataFolder:
        """Load from a data folder or from a yaml file in it.

        Raises:
            FileNotFoundError: no such configuration, vocabulary, SentencePiece model or CMVN file; names it.
            ConfigError: a value of another type, or one that is not supported; names file and entry.
        """
        path = Path(folder_or_yaml)
        path = path / CONFIG_NAME if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such data configuration")
        values = read_yaml(path)
        try:
            return cls(folder=path.parent, **_fields(values, path.parent))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{path}: {error}") from None
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from None

    def transforms(self, is_train: bool, split: str | None = None) -> list[str]:
        """Names of the feature transforms of a split: its own entry, else ``_train``/``_eval``, else ``*``."""
        for key in (split, "_train" if is_train else "_eval", "*"):
            if key is not None and self.transform_table.get(key) is not None:
                return list(self.transform_table[key])
        return []


def read_audio_root(folder: AnyPath) -> Path | None:
    """Folder that relative audio paths of a data folder start from; None where no ``config.yaml`` names one.

    Only this entry is read: the file's name is a common one, so any other content is accepted.
    """
    config = Path(folder) / CONFIG_NAME
    try:
        root = read_yaml(config).get("audio_root") if config.is_file() else None
    except (NastError, OSError):
        root = None
    return config.parent / root if isinstance(root, str) and root else None


def check_split(folder: AnyPath, split: str, rows: int) -> None:
    """Compare the number of rows of a split with the record of ``nast-s2x prepare``, where the folder has one.

    Raises:
        ManifestError: the preparation is not finished, or the table has another number of rows than was written.
    """
    path = Path(folder) / RECORD_NAME
    record = read_json(path) if path.is_file() else {}
    if record.get("complete") is False:
        raise ManifestError(
            f"{folder}: the preparation of this data folder is not finished: run `nast-s2x prepare` again"
        )
    report = record.get("report")
    counts = report.get("rows") if isinstance(report, dict) else None
    expected = counts.get(split) if isinstance(counts, dict) else None
    if expected is not None and expected != rows:
        raise ManifestError(
            f"{Path(folder) / split}.tsv has {rows} rows, but {expected} were written by `nast-s2x prepare`: the table "
            f"was cut off or changed; copy it again, or delete {path} if it was changed on purpose"
        )


def specaugment_settings(masks: SpecAugment) -> dict[str, int | float]:
    """Entries of ``config.yaml`` for masks, the reverse of what :meth:`DataFolder.load` reads."""
    return {"time_warp_W": 0, **{entry: getattr(masks, name) for entry, name in _MASKS.items()}}


def _fields(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    bins = _integer(values, "input_feat_per_channel", 80) * _integer(values, "input_channels", 1)
    if bins != 80:
        raise ConfigError(f"input_feat_per_channel x input_channels must be 80 features, not {bins}")
    sample_rate = _integer(values, "sample_rate", 16000)
    if sample_rate != 16000:
        raise ConfigError(f"sample_rate must be 16000, not {sample_rate}: audio of other rates is resampled on reading")
    cmvn = _table(values, "global_cmvn").get("stats_npz_path")
    transforms = _transforms(values)
    if cmvn is None and any("global_cmvn" in names for names in transforms.values()):
        raise ConfigError("transforms ask for global_cmvn, but global_cmvn.stats_npz_path is not set")
    tokenizer = _table(values, "bpe_tokenizer")
    if tokenizer.get("bpe", "sentencepiece") != "sentencepiece":
        raise ConfigError(f"bpe_tokenizer.bpe must be sentencepiece, not {_show(tokenizer['bpe'])}")
    return {
        "vocab_path": _path(_text(values, "vocab_filename") or "dict.txt", folder, "vocab_filename"),
        "spm_path": _path(
            _text(tokenizer, "sentencepiece_model", "bpe_tokenizer.") or "spm.model", folder, "sentencepiece_model"
        ),
        "cmvn_path": None if cmvn is None else _path(cmvn, folder, "global_cmvn.stats_npz_path"),
        "specaugment": _specaugment(values),
        "narrowband": _narrowband(values),
        "audio_root": folder / _text(values, "audio_root"),
        "sample_rate": sample_rate,
        "num_units": None if values.get("num_units") is None else _integer(values, "num_units", 1, least=1),
        "unit_hash": _text(values, "unit_hash") or None,
        "source_lang": _text(values, "source_lang"),
        "target_lang": _text(values, "target_lang"),
        "feature_bins": bins,
        "transform_table": transforms,
    }


def _show(value: Any) -> str:
    return reprlib.repr(value)


def _integer(values: Mapping[str, Any], key: str, default: int, where: str = "", least: int = 0) -> int:
    value = values.get(key, default)
    if type(value) is not int or not least <= value <= _LARGEST:
        raise ConfigError(f"{where}{key} must be a whole number in {least}..{_LARGEST}, not {_show(value)}")
    return value


def _text(values: Mapping[str, Any], key: str, where: str = "") -> str:
    value = values.get(key)
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{where}{key} must be text, not {_show(value)}: put it in quotes")
    return value or ""


def _table(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    table = values.get(key)
    if table is not None and not isinstance(table, dict):
        raise ConfigError(f"{key} must be a table of settings, not {_show(table)}")
    return table or {}


def _path(value: Any, folder: Path, key: str) -> Path:
    """Resolve a path of the configuration; see the module's docstring for the order."""
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{key} must be a path, not {_show(value)}")
    path = folder / value
    for candidate in (path, folder / Path(value).name):
        if os.path.isfile(candidate):  # False also for names that no file can have
            return candidate
    raise FileNotFoundError(f"{key}: no such file {path}")


def _transforms(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """Merge ``transforms`` with its newer spelling ``feature_transforms``."""
    merged: dict[str, list[str]] = {}
    for key in ("transforms", "feature_transforms"):
        for split, names in _table(values, key).items():
            if names is not None and not isinstance(names, list):
                raise ConfigError(f"{key}: {_show(split)} must be a list of transforms, not {_show(names)}")
            merged.setdefault(str(split), []).extend(names or [])
    for names in merged.values():
        unknown = [name for name in names if name not in _KNOWN_TRANSFORMS]
        if unknown:
            raise ConfigError(f"transforms: {_show(unknown[0])} is not one of {', '.join(_KNOWN_TRANSFORMS)}")
    return merged


def _narrowband(values: Mapping[str, Any]) -> Narrowband | None:
    table = _table(values, "narrowband")
    if not table:
        return None
    hz, share = (_number(table, name, "narrowband.") for name in ("hz", "share"))
    return Narrowband(hz, share)


def _number(values: Mapping[str, Any], key: str, where: str = "") -> float:
    value: Any = values.get(key)
    if type(value) not in (int, float) or not abs(value) <= _LARGEST:
        raise ConfigError(f"{where}{key} must be a number, not {_show(value)}")
    return float(value)


def _specaugment(values: Mapping[str, Any]) -> SpecAugment | None:
    table = _table(values, "specaugment")
    if not table:
        return None
    if table.get("time_warp_W") or table.get("time_wrap_W"):
        raise ConfigError("specaugment: time warping is not supported, set time_warp_W to 0")
    if table.get("mask_value") not in (None, 0, 0.0):
        raise ConfigError(f"specaugment: mask_value must be 0, not {_show(table['mask_value'])}")
    share = table.get("time_mask_p", 0.0)
    if type(share) not in (int, float) or not abs(share) <= _LARGEST:  # false for NaN
        raise ConfigError(f"specaugment.time_mask_p must be a number, not {_show(share)}")
    masks = {name: _integer(table, entry, 0, "specaugment.") for entry, name in _MASKS.items() if name != "time_p"}
    return SpecAugment(**masks, time_p=float(share))
