"""A trained system in one folder: weights, configuration, vocabulary, CMVN, a voice if it has one, and a model card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nast_s2x.checkpoints.trained import TrainedModel, read_trained_model
from nast_s2x.chunking import ChunkGeometry
from nast_s2x.device import find_device
from nast_s2x.frontend.audio import SAMPLE_RATE
from nast_s2x.frontend.cmvn import GlobalCmvn
from nast_s2x.inference.card import model_card, simuleval_configs
from nast_s2x.inference.geometries import TrainedGeometries
from nast_s2x.inference.voice import check_units_match, load_bundled_voice, load_voice, save_voice
from nast_s2x.labels import NUM_SPECIALS, LabelDictionary, TextTokenizer
from nast_s2x.network import NastConfig, NastModel, load_published_state
from nast_s2x.vocoder.checkpoint import SUBFOLDER
from nast_s2x.vocoder.network import UnitVocoder

FORMAT = "nast_s2x bundle"
FORMAT_VERSION = 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
VOCABULARY, SENTENCEPIECE, CMVN = "dict.txt", "spm.model", "gcmvn.npz"


@dataclass
class System:
    """Everything that translation needs. Translators only read it, so many streams share one bundle.

    Attributes:
        model: the network, in eval mode.
        dictionary, tokenizer: labels and text.
        cmvn: feature normalisation; ``None`` when the model takes features as they are.
        trained: geometries of the training.
        source_lang, target_lang: language codes, where known.
        sample_rate: of the front end, Hz.
        example: a note on what an example system knows; ``None`` for a system meant for use.
        origin: where the weights came from (checkpoint type, updates, number averaged), for the record.
        card: text of the model card.
        unit_hash: hash of the centroids that the model's units come from, where known.
        drop_repeats: longest run of units that is dropped where it repeats the one before it, see
            :class:`~nast_s2x.labels.RepeatFilter`; 0 (published) drops none.
        vocoder: turns the model's units into sound, in float32; ``None`` for a system that writes only.
        vocoder_card: text of the vocoder's own card; empty for a plain one.
    """

    model: NastModel = field(repr=False)
    dictionary: LabelDictionary
    tokenizer: TextTokenizer
    cmvn: GlobalCmvn | None
    trained: TrainedGeometries
    vocabulary_file: Path
    sentencepiece_file: Path
    source_lang: str | None = None
    target_lang: str | None = None
    sample_rate: int = SAMPLE_RATE
    example: str | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    card: str = ""
    unit_hash: str | None = None
    drop_repeats: int = 0
    vocoder: UnitVocoder | None = field(default=None, repr=False)
    vocoder_card: str = ""

    def __post_init__(self) -> None:
        labels, rows = len(self.dictionary), self.model.config.text_vocab
        if labels != rows:
            raise ValueError(
                f"vocabulary {self.vocabulary_file} has {labels} labels (specials and blank included), the model has "
                f"{rows}: they do not belong together"
            )
        if self.sample_rate != SAMPLE_RATE:
            raise ValueError(f"the front end works at {SAMPLE_RATE} Hz, this system asks for {self.sample_rate} Hz")
        self.model.eval().requires_grad_(False)
        if self.vocoder is not None:
            check_units_match(self.vocoder, self.num_units, self.unit_hash)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.encoder.layernorm_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Number type the model computes in."""
        return self.model.encoder.layernorm_embedding.weight.dtype

    @property
    def has_units(self) -> bool:
        """True when the model has a unit decoder."""
        return bool(self.model.config.unit_vocab)

    @property
    def num_units(self) -> int | None:
        """Distinct speech units (4 specials and blank not counted); ``None`` without a unit decoder."""
        return self.model.config.unit_vocab - NUM_SPECIALS - 1 if self.has_units else None

    def voice(self) -> UnitVocoder:
        """The vocoder, for what cannot do without one.

        Raises:
            ValueError: the bundle has none.
        """
        if self.vocoder is None:
            raise ValueError(
                "this system has no voice: give a unit vocoder with --vocoder, or export the bundle with one"
                if self.has_units
                else "this system writes text only: it has no unit decoder to speak with"
            )
        return self.vocoder

    def take_voice(self, path: str | Path) -> System:
        """Speak with the vocoder at ``path`` (a vocoder folder, a bundle, a released checkpoint); returns the bundle.

        Raises:
            FileNotFoundError, ValueError: there is none, it is damaged, or it is one for other units.
        """
        vocoder, card = load_voice(path)
        try:
            check_units_match(vocoder, self.num_units, self.unit_hash)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        self.vocoder, self.vocoder_card = vocoder.to(self.device), card
        return self

    def geometry(
        self, chunk_ms: int | str | None = None, lookahead_ms: int | None = None, wait_chunks: int | None = None
    ) -> ChunkGeometry:
        """The geometry asked for; see :meth:`TrainedGeometries.choose`. Default: the streaming one."""
        return self.trained.choose(chunk_ms, lookahead_ms, wait_chunks)

    def normalise(self, features: Tensor) -> Tensor:
        """Features (..., bins) as the front end gives them -> what the model takes, on its device, in its dtype."""
        normalised = features if self.cmvn is None else self.cmvn(features)
        return normalised.to(device=self.device, dtype=self.dtype)

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> System:
        """Move model and vocoder; ``gpu`` is accepted for ``cuda``. Returns the bundle itself.

        Logits stay in float32 (:meth:`NastModel.convert_for_inference`), and so does the vocoder: rounded durations
        must not
        depend on the model's number type.

        Raises:
            ValueError: a device that does not exist, here or at all; int8 on another device than a CPU.
        """
        target = None if device is None else find_device(device)
        if target is not None and target.type != "cpu" and dtype is None and self.model.int8:
            raise ValueError(f"int8 is for CPUs, not for {target}")
        self.model.to(device=target)
        if dtype is not None:
            self.model.convert_for_inference(dtype)
        if self.vocoder is not None:
            self.vocoder.to(device=target)
        return self

    def save(self, folder: str | Path, half: bool = False) -> Path:
        """Write the bundle to ``folder`` (made if needed), float16 weights if ``half``; returns the folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for stale in (folder / CMVN if self.cmvn is None else None, *folder.glob("main-*.yaml")):
            if stale is not None:  # of another bundle that lay here
                stale.unlink(missing_ok=True)
        dtype = torch.float16 if half else torch.float32
        weights = {name: value.cpu().to(dtype).contiguous() for name, value in self.model.state_dict().items()}
        if not all(torch.isfinite(value).all() for value in weights.values()):
            raise ValueError(f"the weights cannot be stored as {dtype}: some are NaN, infinite or out of range")
        save_voice(self.vocoder, self.vocoder_card, folder, half)
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
        (folder / WEIGHTS).chmod(0o644)  # safetensors leaves it to its owner alone, but bundles are for sharing
        for source, name in ((self.vocabulary_file, VOCABULARY), (self.sentencepiece_file, SENTENCEPIECE)):
            if source.resolve() != (folder / name).resolve():
                shutil.copyfile(source, folder / name)
        if self.cmvn is not None:
            self.cmvn.save(folder / CMVN)
        config = json.dumps(self._config(half), indent=2, ensure_ascii=False) + "\n"
        (folder / CONFIG).write_text(config, encoding="utf-8")
        (folder / CARD).write_text(self.card or model_card(self), encoding="utf-8")
        for name, text in simuleval_configs(self).items():
            (folder / name).write_text(text, encoding="utf-8")
        return folder

    def _config(self, half: bool) -> dict[str, Any]:
        optional: dict[str, Any] = {}
        if self.unit_hash is not None or self.drop_repeats:
            optional["units"] = {"hash": self.unit_hash, "drop_repeats": self.drop_repeats}
        if self.vocoder is not None:
            optional["vocoder"] = {"folder": SUBFOLDER}
        return {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "architecture": self.model.config.to_dict(),
            "geometries": self.trained.to_dict(),
            "front_end": {
                "sample_rate": self.sample_rate,
                "features": f"log-mel filterbank, {self.model.config.input_dim} bins, 25 ms window, 10 ms shift",
                "cmvn": None if self.cmvn is None else CMVN,
            },
            "languages": {"source": self.source_lang, "target": self.target_lang},
            "num_units": self.num_units,
            "example": self.example,
            "origin": self.origin,
            "weights": {"file": WEIGHTS, "dtype": "float16" if half else "float32"},
            "text": {"vocabulary": VOCABULARY, "sentencepiece": SENTENCEPIECE},
            **optional,
        }


def load_system(
    path: str | Path,
    data: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> System:
    """Load a trained system.

    Args:
        path: a bundle folder, or a checkpoint file (ours or a released one).
        data: data folder (``config.yaml``, vocabulary, SentencePiece, CMVN) that belongs to a checkpoint; by default
            the folder the checkpoint lies in. Not used with a bundle.
        device: ``cpu``, ``cuda``, ``cuda:N``; ``gpu`` is accepted for ``cuda``.
        dtype: number type to compute in.
    Raises:
        FileNotFoundError: something is missing; the file is named.
        ValueError: a file is damaged or files do not belong together.
    """
    path = Path(path)
    if path.is_dir():
        bundle = _load_bundle(path)
    elif path.is_file():
        bundle = system_from_checkpoints([path], data)
    else:
        raise FileNotFoundError(f"no such bundle folder or checkpoint file: {path}")
    return bundle.to(device, dtype)


def _load_bundle(folder: Path) -> System:
    config = _read_config(folder)
    for name in (WEIGHTS, VOCABULARY, SENTENCEPIECE, CMVN if config["front_end"]["cmvn"] else None):
        if name is not None:
            _required(folder, name)
    weights = read_weights(folder)
    trained, architecture = _described(folder, config)
    model = NastModel(architecture)
    load_published_state(model, weights)
    dictionary = LabelDictionary.load(folder / VOCABULARY)
    languages = config.get("languages") or {}
    card = folder / CARD
    vocoder, vocoder_card = load_bundled_voice(folder, required=bool(config.get("vocoder")))
    return System(
        model=model,
        dictionary=dictionary,
        tokenizer=TextTokenizer(folder / SENTENCEPIECE, dictionary),
        cmvn=GlobalCmvn.load(folder / CMVN) if config["front_end"]["cmvn"] else None,
        trained=trained,
        vocabulary_file=folder / VOCABULARY,
        sentencepiece_file=folder / SENTENCEPIECE,
        source_lang=languages.get("source"),
        target_lang=languages.get("target"),
        sample_rate=int(config["front_end"]["sample_rate"]),
        example=config.get("example"),
        origin=config.get("origin") or {},
        card=card.read_text(encoding="utf-8") if card.is_file() else "",
        unit_hash=(config.get("units") or {}).get("hash"),
        drop_repeats=int((config.get("units") or {}).get("drop_repeats", 0)),
        vocoder=vocoder,
        vocoder_card=vocoder_card,
    )


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The parameters of a bundle, in float32.

    Raises:
        FileNotFoundError, ValueError: the folder has none, or the file is damaged.
    """
    try:
        weights = load_file(_required(folder, WEIGHTS))
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS} is not a readable safetensors file: {error}") from None
    return {name: value.float() for name, value in weights.items()}


def _required(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise FileNotFoundError(f"bundle {folder} is incomplete: file {name} is missing")
    return folder / name


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder} is not a bundle: file {CONFIG} is missing (`nast-s2x export` makes bundles)")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG} is not valid JSON: {error}") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"{folder / CONFIG} does not describe a bundle: its 'format' must be {FORMAT!r}")
    if config.get("version") != FORMAT_VERSION:
        raise ValueError(
            f"{folder} has bundle version {config.get('version')}, this program reads version {FORMAT_VERSION}"
        )
    objects = ("architecture", "geometries", "front_end", "languages", "origin", "units", "vocoder")
    wrong = [name for name in objects if not isinstance(config.get(name) or {}, dict)]
    if wrong:
        raise ValueError(f"{folder / CONFIG}: {', '.join(wrong)} must be an object with named values")
    missing = [name for name in objects[:3] if not config.get(name)]
    if not missing:
        missing = [f"front_end.{name}" for name in ("sample_rate", "cmvn") if name not in config["front_end"]]
    if missing:
        raise ValueError(f"{folder / CONFIG} lacks {', '.join(missing)}")
    return config


def _described(folder: Path, config: dict[str, Any]) -> tuple[TrainedGeometries, NastConfig]:
    """Geometries and architecture of a bundle's configuration; errors name the file and the entry."""
    readers = {"geometries": TrainedGeometries.from_dict, "architecture": NastConfig.from_dict}
    values: list[Any] = []
    for entry, read in readers.items():
        try:
            values.append(read(config[entry]))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{folder / CONFIG}: {entry}: {error}") from None
    return values[0], values[1]


def system_from_checkpoints(checkpoints: Sequence[str | Path], data: str | Path | None = None) -> System:
    """A bundle in memory from a checkpoint, or from the average of several, and the data folder of its training.

    Raises: as :func:`load_system`.
    """
    from nast_s2x.corpus.data_folder import DataConfig

    trained = read_trained_model(checkpoints)
    folder = Path(data) if data is not None else Path(checkpoints[0]).parent
    config_file = folder / "config.yaml" if folder.is_dir() else folder
    if not config_file.is_file():
        hint = "" if data is not None else "; give the data folder of the training with --data"
        raise FileNotFoundError(f"a checkpoint needs its data folder: {config_file} not found{hint}")
    settings = DataConfig.load(config_file)
    dictionary = LabelDictionary.load(settings.vocab_path)
    _check_units(trained, settings.num_units, config_file)
    cmvn_file = settings.cmvn_path if "global_cmvn" in settings.transforms(is_train=False) else None
    return System(
        model=build_model(trained),
        dictionary=dictionary,
        tokenizer=TextTokenizer(settings.spm_path, dictionary),
        cmvn=None if cmvn_file is None else GlobalCmvn.load(cmvn_file),
        trained=trained.geometries,
        vocabulary_file=settings.vocab_path,
        sentencepiece_file=settings.spm_path,
        source_lang=settings.source_lang or None,
        target_lang=settings.target_lang or None,
        sample_rate=settings.sample_rate,
        origin=trained.origin,
        unit_hash=settings.unit_hash,
    )


def build_model(trained: TrainedModel) -> NastModel:
    """The network of a checkpoint, with its weights."""
    model = NastModel(trained.config)
    load_published_state(model, trained.weights)
    return model


def _check_units(trained: TrainedModel, num_units: int | None, config_file: Path) -> None:
    labels = trained.config.unit_vocab
    if labels and num_units is not None and labels != num_units + NUM_SPECIALS + 1:
        raise ValueError(
            f"{config_file} says num_units: {num_units}, the checkpoint's unit decoder has "
            f"{labels - NUM_SPECIALS - 1} units: they do not belong together"
        )
