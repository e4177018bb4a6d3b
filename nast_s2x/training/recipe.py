"""Training recipes: YAML files with the flags of ``fairseq-train`` for each stage.

::

    description: Small model for synthetic speech.
    processes: 2                       # data-parallel processes on a CPU; 1 by default
    variables: {text: "{save}/nmla/checkpoint_best.pt"}      # defaults of `--set NAME=VALUE`
    extends: tiny_espeak               # another recipe: its flags, variables and stages can be used
    flags:                             # of every stage: the names of fairseq-train's flags
      arch: nast_s2t_tiny
      cpu: true                        # a flag without a value; false leaves it out
    stages:                            # in order
      asr:                             # without flags: the stage of that name of the extended recipe
      units: {start-from: "{text}"}    # flags of the stage, which replace those of every stage
      anneal: {like: asr, lr: 1e-3}    # those of the extended recipe's stage, some replaced

Values may contain ``{data}`` and ``{save}``, the folders of the run, ``{num_units}`` of the data folder's
``config.yaml``, and the recipe's variables. Names that begin with ``x-`` hold YAML anchors and are not read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nast_s2x.errors import ConfigError, NastError, shown
from nast_s2x.files import read_yaml
from nast_s2x.resources import config_names, config_path

Flags = dict[str, str | bool]
_KEYS = {"description", "processes", "variables", "extends", "flags", "stages"}
_PLACEHOLDER = re.compile(r"\{([a-z_][a-z0-9_]*)\}")
_FLAG_NAME = re.compile(r"[a-z][a-z0-9-]*")
_STAGE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # also the name of a folder


@dataclass(frozen=True)
class Stage:
    """One run of ``fairseq-train``.

    Attributes:
        name: also the name of its folder of checkpoints.
        flags: flag without ``--`` -> value, or True for a flag without a value.
    """

    name: str
    flags: Flags

    def arguments(self, values: Mapping[str, str]) -> list[str]:
        """Command line arguments, placeholders replaced by ``values``.

        Raises:
            ConfigError: a placeholder without a value.
        """
        words: list[str] = []
        for name, value in self.flags.items():
            text = str(value).lower() if isinstance(value, bool) else _fill(value, values, f"stage {self.name}: {name}")
            if text == "true":
                words.append(f"--{name}")
            elif text not in ("false", ""):
                words += [f"--{name}", text]
        return words


@dataclass(frozen=True)
class Recipe:
    """A training in stages.

    Attributes:
        path: its file.
        stages: in order, each with the flags of every stage and its own.
        processes: data-parallel processes on a CPU.
        variables: name -> default value.
        description: what the recipe trains.
    """

    path: Path
    stages: tuple[Stage, ...]
    processes: int = 1
    variables: Mapping[str, str] | None = None
    description: str = ""

    def chosen(self, names: Sequence[str]) -> tuple[Stage, ...]:
        """The stages called ``names``, in the order of the recipe; all without names.

        Raises:
            ConfigError: the recipe has no such stage.
        """
        known = [stage.name for stage in self.stages]
        for name in names:
            if name not in known:
                raise ConfigError(f"{self.path} has no stage {name}; it has: {', '.join(known)}")
        return tuple(stage for stage in self.stages if not names or stage.name in names)

    def values(self, data: Path, save: Path, given: Mapping[str, str]) -> dict[str, str]:
        """Values of the placeholders for a run.

        Args:
            given: variables of the command line.
        Raises:
            ConfigError: a variable that the recipe does not have.
        """
        variables = dict(self.variables or {})
        unknown = next((name for name in given if name not in variables), None)
        if unknown is not None:
            names = ", ".join(variables) or "none"
            raise ConfigError(f"{self.path} has no variable {unknown}; its variables are: {names}")
        values = {"data": str(data), "save": str(save), "num_units": _num_units(data)}
        for name, text in (variables | dict(given)).items():
            values[name] = _fill(text, values, f"variable {name}")
        return values


def find_recipe(name: str) -> Path:
    """The file of a recipe: a path, or the name of a bundled recipe.

    Raises:
        ConfigError: there is none; lists the bundled ones.
    """
    path = Path(name)
    if path.is_file():
        return path
    stem = path.stem if path.suffix in (".yaml", ".sh") else name
    if stem not in config_names():
        raise ConfigError(f"no recipe {name}: give a YAML file or one of {', '.join(config_names())}")
    return config_path(stem)


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe.

    Raises:
        ConfigError: an unknown entry or a value of a wrong type; names file and entry.
    """
    return _build(Path(path), _read(Path(path)))


def _build(path: Path, table: Mapping[str, Any]) -> Recipe:
    common: Flags = {}
    base_stages: dict[str, Flags] = {}
    variables: dict[str, str] = {}
    processes = 1
    if (name := table.get("extends")) is not None:
        base_path = path.parent / f"{name}.yaml"
        base = _read(base_path if base_path.is_file() else find_recipe(str(name)))
        if base.get("extends") is not None:
            raise ConfigError(f"{path}: extends: {name} extends another recipe itself, which is not supported")
        common |= _flags(base.get("flags"), path, "flags")
        base_stages = {key: _flags(flags, path, f"stages.{key}") for key, flags in _table(base, "stages", path).items()}
        variables |= _variables(base, path)
        processes = base.get("processes", 1)
    common |= _flags(table.get("flags"), path, "flags")
    variables |= _variables(table, path)
    processes = table.get("processes", processes)
    if isinstance(processes, bool) or not isinstance(processes, int) or processes < 1:
        raise ConfigError(f"{path}: processes must be a whole number of at least 1, but is {shown(processes)}")
    stages = tuple(
        Stage(name, common | _stage(name, flags, base_stages, path))
        for name, flags in _table(table, "stages", path).items()
    )
    if not stages:
        raise ConfigError(f"{path}: stages must name at least one stage")
    return Recipe(path, stages, processes, variables, str(table.get("description", "")))


def _stage(name: Any, flags: Any, base: Mapping[str, Flags], path: Path) -> Flags:
    if not isinstance(name, str) or not _STAGE_NAME.fullmatch(name):
        raise ConfigError(
            f"{path}: the name of a stage must be a text of letters, digits, '_', '.' and '-', but is {shown(name)}"
        )
    if flags is None:
        flags = {"like": name}
    own = _flags(flags, path, f"stages.{name}")
    like = own.pop("like", None)
    if like is None:
        return own
    if like not in base:
        raise ConfigError(f"{path}: stages.{name}: the extended recipe has no stage {like}")
    return base[str(like)] | own


def _read(path: Path) -> dict[str, Any]:
    try:
        table = read_yaml(path)
    except NastError as error:
        raise ConfigError(str(error)) from None
    unknown = next((key for key in table if key not in _KEYS and not str(key).startswith("x-")), None)
    if unknown is not None:
        raise ConfigError(f"{path}: a recipe has no entry {unknown}; it has {', '.join(sorted(_KEYS))}")
    return table


def _table(values: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    table = values.get(key) or {}
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: {key} must be a table, but is {shown(table)}")
    return table


def _variables(table: Mapping[str, Any], path: Path) -> dict[str, str]:
    """Default values of the variables as text: ``true`` or ``false`` for a truth value, empty for no value."""
    variables = {}
    for name, value in _table(table, "variables", path).items():
        if not isinstance(value, str | int | float | bool | None):
            raise ConfigError(
                f"{path}: variables.{name} must be a text, a number, true or false, but is {shown(value)}"
            )
        text = "" if value is None else str(value)
        variables[str(name)] = text.lower() if isinstance(value, bool) else text
    return variables


def _flags(values: Any, path: Path, entry: str) -> Flags:
    """Flags of a table, in order; numbers as text."""
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: {entry} must be a table of flags, but is {shown(values)}")
    flags: Flags = {}
    for name, value in values.items():
        if not isinstance(name, str) or not _FLAG_NAME.fullmatch(name):
            raise ConfigError(f"{path}: {entry}: {shown(name)} is not the name of a flag, such as max-update")
        if not isinstance(value, str | int | float | bool):
            raise ConfigError(f"{path}: {entry}.{name} must be a text, a number, true or false, but is {shown(value)}")
        flags[name] = value if isinstance(value, bool) else str(value)
    return flags


def _fill(text: str, values: Mapping[str, str], entry: str) -> str:
    def value(match: re.Match[str]) -> str:
        if not values.get(match[1]):
            if match[1] in values and match[1] != "num_units":
                return ""
            raise ConfigError(f"{entry}: {shown(text)} needs a value for {match[1]}")
        return values[match[1]]

    return _PLACEHOLDER.sub(value, text)


def _num_units(data: Path) -> str:
    """``num_units`` of a data folder, as text; empty where there is none."""
    try:
        units = read_yaml(data / "config.yaml").get("num_units")
    except (OSError, NastError):
        return ""
    return "" if units is None else str(units)
