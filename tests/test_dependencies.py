"""The table of packages in scripts/README.md names what setup.py names, with the licences of the installed packages."""

from __future__ import annotations

import importlib.metadata as metadata
import re
import runpy
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import setuptools

ROOT = Path(__file__).resolve().parent.parent


def name_of(requirement: str) -> str:
    """Name of the package of a requirement, as PyPI compares names."""
    return normalised(re.match(r"[\w.-]+", requirement).group())


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def table() -> dict[str, tuple[set[str], str]]:
    """Package -> (extras, licence) of each line of the table."""
    text = (ROOT / "scripts" / "README.md").read_text("utf-8")
    section = text.partition("## Packages")[2].partition("\n## ")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    assert all(len(line) == 5 for line in lines)
    entries = {normalised(line[0].strip("`")): (set(line[1].split(", ")), line[2]) for line in lines[2:]}
    assert len(entries) == len(lines) - 2  # each once
    return entries


def stated_licence(package: metadata.Distribution) -> str:
    """What the metadata says: the expression, otherwise the classifiers, otherwise the first two lines of the text."""
    values = package.metadata
    if values["License-Expression"]:
        return values["License-Expression"]
    kinds = [kind.split(" :: ") for kind in values.get_all("Classifier") or () if kind.startswith("License ::")]
    approved = [kind[-1] for kind in kinds if len(kind) > 2]
    lines = [line.strip() for line in (values["License"] or "").splitlines() if line.strip()]
    return " and ".join(approved) or ", ".join(lines[:2])


def pinned() -> dict[str, str]:
    lines = (ROOT / "configs" / "constraints.txt").read_text("utf-8").splitlines()
    pairs = [line.split("==") for line in lines if "==" in line]
    return {normalised(name): version for name, version in pairs}


def test_the_table_names_the_packages_and_extras_of_setup(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **values: given.update(values))
    runpy.run_path(str(ROOT / "setup.py"))
    extras: dict[str, set[str]] = defaultdict(set)
    for requirement in given["install_requires"]:
        extras[name_of(requirement)].add("-")
    for extra, requirements in given["extras_require"].items():
        for requirement in requirements if extra != "all" else ():
            extras[name_of(requirement)].add(extra)
    assert {name: found for name, (found, _) in table().items()} == dict(extras)


def test_the_licences_are_those_of_the_installed_packages() -> None:
    checked, versions = 0, pinned()
    for name, (_, licence) in table().items():
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if package.version.removesuffix("+cpu") == versions.get(name, package.version):
            assert (name, stated_licence(package)) == (name, licence)
            checked += 1
    assert checked >= 9  # what every installation has
