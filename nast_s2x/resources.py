"""Files that come with the package: the plugin's folder, recipes and other configurations."""

from __future__ import annotations

from pathlib import Path

from nast_s2x.errors import ConfigError

USER_DIR = Path(__file__).resolve().parent
"""Folder of the package, for ``--user-dir`` of fairseq and SimulEval."""


def configs_folder() -> Path:
    """Folder of the recipes and configurations: ``nast_s2x/configs`` of an installed package, or ``configs`` beside
    the package in a checkout of the repository."""
    installed = USER_DIR / "configs"
    return installed if installed.is_dir() else USER_DIR.parent / "configs"


def config_names(suffix: str = ".yaml") -> list[str]:
    """Names, without suffix, of the files with this suffix in :func:`configs_folder`."""
    return sorted(path.stem for path in configs_folder().glob(f"*{suffix}"))


def config_path(name: str, suffix: str = ".yaml") -> Path:
    """Return the file of a recipe or configuration by its name, with or without ``suffix``.

    Raises:
        ConfigError: the package has no such file; lists those it has.
    """
    path = configs_folder() / f"{name.removesuffix(suffix)}{suffix}"
    if "/" in name or "\\" in name or not path.is_file():
        raise ConfigError(f"no file {name!r} among the package's configurations: {', '.join(config_names(suffix))}")
    return path
