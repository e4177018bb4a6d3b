"""Files: replaced folders, locks, work that is done once."""

from __future__ import annotations

import errno
import io
import itertools
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from killed import as_other_user, killed_before, with_file_limit

from nast_s2x.checkpoints.weights import write_checkpoint, write_weights
from nast_s2x.errors import ConfigError, NastError
from nast_s2x.files import (
    append,
    is_empty,
    locked,
    open_atomic,
    parse_yaml,
    read_json,
    replace_end,
    replace_folder,
    write_atomic,
)
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


def write_both(folder: Path) -> None:
    write_atomic(folder / "file", "new")
    with replace_folder(folder / "folder") as new:
        (new / "inside").touch()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no locks of fcntl")
def test_what_killed_processes_leave_is_removed_and_what_is_in_use_stays(tmp_path: Path) -> None:
    output = tmp_path / "out"
    for number in range(20):
        killed_before(lambda: write_both(output), output, number)
        killed_before(lambda: write_atomic(tmp_path / "out.txt", "x"), tmp_path, number)
    left = [path.name for path in tmp_path.rglob(".*.part")]
    assert len([name for name in left if name.startswith((".file.", ".folder."))]) > 4
    assert [name for name in left if name.startswith(".out.txt.")]
    kept = [tmp_path / name for name in (".out.txt.part", ".out.5.part", "out/.x.part", "out/file.1-2.part")]
    for path in kept:
        path.touch()
    with open_atomic(output / "at work") as file, replace_folder(output / "other") as folder:
        with locked(output):
            assert len(list(output.glob(".*.part"))) == 3  # two in use, one of another name
        file.write("all of it")
        (folder / "inside").touch()
    assert (output / "at work").read_text() == "all of it" and (output / "other" / "inside").exists()
    assert [path for path in tmp_path.glob(".out.txt.*-*.part")], "the file of another output is not touched"
    with locked(tmp_path / "out.txt"):
        pass
    assert all(path.exists() for path in kept)
    assert len(list(tmp_path.rglob("*.part"))) == len(kept)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no locks of fcntl")
def test_a_folder_is_replaced_without_the_exchange_of_linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At any moment of a kill the next run finds the old folder or the new one."""
    monkeypatch.setattr("nast_s2x.files._exchange", lambda first, second: False)
    output = tmp_path / "out"

    def write(text: str) -> None:
        with locked(output), replace_folder(output) as new:
            (new / "file").write_text(text)

    found = set()
    for number in itertools.count():
        write("old")
        if not killed_before(lambda: write("new"), tmp_path, number).was_killed:
            break
        with locked(output):
            found.add((output / "file").read_text())
        assert os.listdir(tmp_path) == ["out"]
    assert found == {"old", "new"}


def test_a_link_has_the_lock_of_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with locked(tmp_path / "link"), pytest.raises(ConfigError, match="is at work in"), locked(tmp_path / "real"):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="becomes another user")
def test_the_lock_of_a_folder_whose_parent_cannot_be_written_is_in_it() -> None:
    with tempfile.TemporaryDirectory() as name:
        parent = Path(name)
        parent.chmod(0o755)
        (parent / "out").mkdir()
        (parent / "out").chmod(0o777)
        parent.chmod(0o555)

        def work() -> None:
            with locked(parent / "out"):
                assert os.listdir(parent / "out") == [".lock"] and is_empty(parent / "out")
                write_atomic(parent / "out" / "file", "x")
                with pytest.raises(ConfigError, match="is at work in"), locked(parent / "out"):
                    pass

        assert as_other_user(work).status == 0
        assert os.listdir(parent / "out") == ["file"]


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
def test_errors_name_the_file_that_was_to_be_written(tmp_path: Path) -> None:
    def fails(write: Callable[[], object], path: Path) -> None:
        def action() -> None:
            with pytest.raises(OSError, match=f"File too large: '{path}'"):
                write()

        assert with_file_limit(action, 10, kill=False).status == 0

    folder = tmp_path / "folder"
    fails(lambda: write_atomic(tmp_path / "file", "x" * 20), tmp_path / "file")
    fails(lambda: replace_end(tmp_path / "lines", 0, b"x" * 20), tmp_path / "lines")
    fails(lambda: append(io.FileIO(tmp_path / "log", "a"), b"x" * 20), tmp_path / "log")
    fails(lambda: write_checkpoint(tmp_path / "c.pt", {"a": torch.zeros(9)}), tmp_path / "c.pt")
    fails(lambda: write_weights(tmp_path / "w.safetensors", {"a": torch.zeros(9)}), tmp_path / "w.safetensors")

    def in_folder() -> None:
        with replace_folder(folder) as new:
            write_atomic(new / "file", "x" * 20)

    fails(in_folder, folder / "file")
    assert sorted(os.listdir(tmp_path)) == ["lines", "log"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_of_settings_are_finite(tmp_path: Path, number: str) -> None:
    (tmp_path / "a.json").write_text(f'{{"a": [1.5, {number}]}}')
    with pytest.raises(NastError, match=f"a.json is not valid JSON: numbers must be finite, but one is {number}"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"a": [1.5, 1e-999]}')
    assert read_json(tmp_path / "a.json") == {"a": [1.5, 0.0]}
