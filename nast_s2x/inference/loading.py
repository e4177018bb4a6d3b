"""Loading of trained systems: bundles, checkpoints of this project and released ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from nast_s2x.checkpoints.published import build_network
from nast_s2x.checkpoints.trained import TrainedModel, read_trained_model
from nast_s2x.corpus.data_folder import DataFolder
from nast_s2x.errors import CheckpointError, ConfigError
from nast_s2x.frontend.cmvn import GlobalCmvn
from nast_s2x.inference.bundle import read_bundle
from nast_s2x.inference.description import CONFIG
from nast_s2x.inference.system import System, SystemInfo
from nast_s2x.labels import TextLabels, UnitLabels

_BUNDLE_SUFFIXES = {".json", ".safetensors", ".yaml", ".txt", ".npz", ".model", ".md"}


def load_system(
    path: str | Path,
    data: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> System:
    """Load a trained system.

    Args:
        path: a bundle folder, or a checkpoint file of this project or of the released models.
        data: data folder (``config.yaml``, vocabulary, SentencePiece, CMVN) that belongs to a checkpoint; by default
            the folder of the checkpoint. Not used with a bundle.
        device: ``cpu``, ``cuda``, ``cuda:N``; ``gpu`` is accepted for ``cuda``.
        dtype: number type to compute in.
    Raises:
        FileNotFoundError: something is missing; the file is named.
        NastError: a file is damaged or files do not belong together.
    """
    path = Path(path)
    if path.is_dir():
        system = read_bundle(path)
    elif path.is_file():
        if path.suffix in _BUNDLE_SUFFIXES and (path.parent / CONFIG).is_file():
            raise CheckpointError(f"{path} is a file of a bundle: give its folder, {path.parent}")
        system = system_from_checkpoints([path], data)
    else:
        raise FileNotFoundError(f"no such bundle folder or checkpoint file: {path}")
    return system.to(device, dtype)


def system_from_checkpoints(checkpoints: Sequence[str | Path], data: str | Path | None = None) -> System:
    """Load a system from a checkpoint, or from the average of several, and the data folder of its training.

    Raises:
        FileNotFoundError, NastError: as for :func:`load_system`.
    """
    trained = read_trained_model(checkpoints)
    folder = Path(data) if data is not None else Path(checkpoints[0]).parent
    config_file = folder / "config.yaml" if folder.is_dir() else folder
    if not config_file.is_file():
        raise FileNotFoundError(
            f"a checkpoint needs the data folder of its training, with config.yaml and the files that it names "
            f"(vocabulary, SentencePiece model, gcmvn.npz): {config_file} not found"
            + ("" if data is not None else "; give the folder with --data")
        )
    settings = DataFolder.load(config_file)
    _check_units(trained, settings.num_units, config_file)
    try:
        return _assembled(trained, settings)
    except ConfigError as error:
        raise CheckpointError(f"{checkpoints[0]} and {config_file}: {error}") from None


def _assembled(trained: TrainedModel, settings: DataFolder) -> System:
    cmvn_file = settings.cmvn_path if "global_cmvn" in settings.transforms(is_train=False) else None
    units = UnitLabels.of_size(trained.config.unit_vocab, settings.unit_hash) if trained.config.unit_vocab else None
    return System(
        model=build_network(trained.config, trained.weights),
        text=TextLabels.load(settings.vocab_path, settings.spm_path),
        units=units,
        cmvn=None if cmvn_file is None else GlobalCmvn.load(cmvn_file),
        trained=trained.policies,
        info=SystemInfo(
            source_lang=settings.source_lang or None,
            target_lang=settings.target_lang or None,
            origin=trained.origin,
        ),
    )


def _check_units(trained: TrainedModel, num_units: int | None, config_file: Path) -> None:
    if not trained.config.unit_vocab or num_units is None:
        return
    labels = UnitLabels.of_size(trained.config.unit_vocab)
    if labels.num_units != num_units:
        raise CheckpointError(
            f"{config_file} has num_units: {num_units}, but the checkpoint's unit decoder has {labels.num_units} "
            "units: they do not belong together"
        )
