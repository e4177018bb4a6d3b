"""Files: replaced folders, locks, work that is done once."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from nast_s2x.errors import ConfigError, NastError
from nast_s2x.files import locked, parse_yaml, replace_folder
from nast_s2x.processes import ResultFile, resumable_map


@pytest.mark.parametrize("exists", [True, False])
def test_the_folder_behind_a_link_is_replaced(tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "old").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with replace_folder(tmp_path / "link") as new:
        (new / "new").touch()
    assert os.listdir(tmp_path / "real") == ["new"] and (tmp_path / "link").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["link", "real"]


def test_a_lock_names_its_owner(tmp_path: Path) -> None:
    with locked(tmp_path / "out"), pytest.raises(ConfigError, match=rf"process {os.getpid()} on .* is at work in"):
        locked(tmp_path / "out").__enter__()
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_locks_is_no_other_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match=r"\.out\.lock cannot be locked: No locks available"), locked(tmp_path / "out"):
        pass


def test_items_of_one_key_are_computed_once(tmp_path: Path) -> None:
    done: list[int] = []
    advanced: list[int] = []

    def double(value: int) -> int:
        done.append(value)
        return 2 * value

    results = ResultFile(tmp_path / "results.jsonl")
    results.add("b", 20)
    found = resumable_map(double, [1, 10, 1, 2], ["a", "b", "a", "c"], results, advance=advanced.append)
    assert found == [2, 20, 2, 4] and done == [1, 2]
    assert advanced == [1, 0, 2, 3]
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 300 + "]" * 300, "- " * 100_000, "? " * 1000, "{a: " * 1000])
def test_yaml_that_is_nested_too_deeply(text: str) -> None:
    """Some 50,000 levels would overflow the stack of the parser in C, which ends the process."""
    with pytest.raises(NastError, match="not a YAML file: nested too deeply"):
        parse_yaml(text)
    assert parse_yaml("[" * 150 + "]" * 150 + "\n") and parse_yaml("a: 1\n" * 2000 + "b: [{c: 2}]")["b"] == [{"c": 2}]
