"""The data folder of a training: ``config.yaml`` in the form of fairseq's speech-to-text data, and what it names.

Paths in the configuration are relative to the folder; absolute paths are accepted where the file exists. A released
configuration may hold the paths of another machine: then the file of the same name beside ``config.yaml`` is used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nast_s2x.errors import ConfigError, ManifestError, NastError, shown
from nast_s2x.files import read_json, read_yaml
from nast_s2x.frontend.noise_floor import Narrowband
from nast_s2x.frontend.samples import NUM_BINS, SAMPLE_RATE
from nast_s2x.frontend.specaugment import SpecAugment
from nast_s2x.typed import limited, read_fields

AnyPath = str | os.PathLike[str]
CONFIG_NAME = "config.yaml"
RECORD_NAME = "prepare.json"
"""Record of a preparation: settings, rows of each split, bad rows."""
_KNOWN_TRANSFORMS = ("narrowband", "global_cmvn", "specaugment")
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


@dataclass(frozen=True)
class _Tokenizer:
    bpe: str = "sentencepiece"
    sentencepiece_model: str | None = None


@dataclass(frozen=True)
class _Cmvn:
    stats_npz_path: str | None = None


@dataclass(frozen=True)
class _Band:
    hz: float
    share: float


@dataclass(frozen=True)
class _Masks:
    """fairseq's entry ``specaugment``; the misspelt name is fairseq's too."""

    freq_mask_N: int = limited(0, least=0)
    freq_mask_F: int = limited(0, least=0)
    time_mask_N: int = limited(0, least=0)
    time_mask_T: int = limited(0, least=0)
    time_mask_p: float = limited(0.0, least=0, most=1)
    time_warp_W: int | None = limited(0, least=0)
    time_wrap_W: int | None = limited(0, least=0)
    mask_value: float | None = None

    def masks(self) -> SpecAugment:
        if self.time_warp_W or self.time_wrap_W:
            raise ConfigError("specaugment: time warping is not supported, set time_warp_W to 0")
        if self.mask_value:
            raise ConfigError(f"specaugment: mask_value must be 0, not {self.mask_value}")
        return SpecAugment(**{name: getattr(self, entry) for entry, name in _MASKS.items()})


@dataclass(frozen=True)
class _Configuration:
    """What is read of a ``config.yaml``; other entries are fairseq's and change nothing here."""

    vocab_filename: str | None = None
    bpe_tokenizer: _Tokenizer | None = None
    global_cmvn: _Cmvn | None = None
    specaugment: _Masks | None = None
    narrowband: _Band | None = None
    audio_root: str | None = None
    sample_rate: int = SAMPLE_RATE
    input_feat_per_channel: int = NUM_BINS
    input_channels: int = 1
    num_units: int | None = None
    unit_hash: str | None = None
    source_lang: str | None = None
    target_lang: str | None = None
    transforms: Mapping[str, tuple[str, ...] | None] | None = None
    feature_transforms: Mapping[str, tuple[str, ...] | None] | None = None


def _fields(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    given = read_fields(_Configuration, _without_empty_tables(values), ignore_unknown=True)
    bins = given.input_feat_per_channel * given.input_channels
    if bins != NUM_BINS:
        raise ConfigError(f"input_feat_per_channel x input_channels must be {NUM_BINS} features, not {bins}")
    if given.sample_rate != SAMPLE_RATE:
        raise ConfigError(
            f"`sample_rate` must be {SAMPLE_RATE}, but is {given.sample_rate}: audio of other rates is resampled"
        )
    cmvn = None if given.global_cmvn is None else given.global_cmvn.stats_npz_path
    transforms = _transforms(given)
    if cmvn is None and any("global_cmvn" in names for names in transforms.values()):
        raise ConfigError("transforms ask for global_cmvn, but global_cmvn.stats_npz_path is not set")
    tokenizer = given.bpe_tokenizer or _Tokenizer()
    if tokenizer.bpe != "sentencepiece":
        raise ConfigError(f"bpe_tokenizer.bpe must be sentencepiece, not {shown(tokenizer.bpe)}")
    return {
        "vocab_path": _path(given.vocab_filename or "dict.txt", folder, "vocab_filename"),
        "spm_path": _path(tokenizer.sentencepiece_model or "spm.model", folder, "sentencepiece_model"),
        "cmvn_path": None if cmvn is None else _path(cmvn, folder, "global_cmvn.stats_npz_path"),
        "specaugment": None if given.specaugment is None else given.specaugment.masks(),
        "narrowband": None if given.narrowband is None else Narrowband(given.narrowband.hz, given.narrowband.share),
        "audio_root": folder / (given.audio_root or ""),
        "sample_rate": given.sample_rate,
        "num_units": given.num_units,
        "unit_hash": given.unit_hash or None,
        "source_lang": given.source_lang or "",
        "target_lang": given.target_lang or "",
        "feature_bins": bins,
        "transform_table": transforms,
    }


def _without_empty_tables(values: Mapping[str, Any]) -> dict[str, Any]:
    """An empty table turns its step off, as in fairseq."""
    return {name: value for name, value in values.items() if name not in ("specaugment", "narrowband") or value != {}}


def _path(value: Any, folder: Path, key: str) -> Path:
    """Resolve a path of the configuration; see the module's docstring for the order."""
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{key} must be a path, not {shown(value)}")
    path = folder / value
    for candidate in (path, folder / Path(value).name):
        if os.path.isfile(candidate):  # False also for names that no file can have
            return candidate
    raise FileNotFoundError(f"{key}: no such file {path}")


def _transforms(given: _Configuration) -> dict[str, list[str]]:
    """Merge ``transforms`` with its newer spelling ``feature_transforms``."""
    merged: dict[str, list[str]] = {}
    for table in (given.transforms, given.feature_transforms):
        for split, names in (table or {}).items():
            unknown = [name for name in names or () if name not in _KNOWN_TRANSFORMS]
            if unknown:
                raise ConfigError(f"transforms: {shown(unknown[0])} is not one of {', '.join(_KNOWN_TRANSFORMS)}")
            merged.setdefault(split, []).extend(names or ())
    return merged
