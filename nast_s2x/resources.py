"""Files that come with the package: the plugin's folder, recipes and other configurations."""

from __future__ import annotations

from pathlib import Path

USER_DIR = Path(__file__).resolve().parent
"""Folder for ``--user-dir`` of fairseq and SimulEval."""
_REPOSITORY = USER_DIR.parent / "configs"
_INSTALLED = USER_DIR / "configs"


def config_folder() -> Path:
    """Folder of the configurations: inside an installed package, ``configs`` of the repository in a checkout."""
    return _INSTALLED if _INSTALLED.is_dir() else _REPOSITORY


def config_path(name: str) -> Path:
    """Path of a configuration, such as ``tiny_espeak.yaml``; it need not exist."""
    return config_folder() / name


def config_names(suffix: str) -> list[str]:
    """Names of the configurations with a suffix such as ``.yaml``."""
    return sorted(path.name for path in config_folder().glob(f"*{suffix}"))
