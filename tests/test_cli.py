"""The console command: its subcommands, ``user-dir``, ``doctor``, and its errors."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import nast_s2x
from nast_s2x.cli import doctor
from nast_s2x.cli import main as command
from nast_s2x.cli.main import SUBCOMMANDS, build_parser, main
from nast_s2x.errors import NastError

TRAIN_ONLY = "nast_s2x_needs_this_missing_package"


@pytest.mark.parametrize("name", sorted(SUBCOMMANDS))
def test_every_subcommand_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"nast-s2x {name}" in capsys.readouterr().out
    arguments = build_parser(name)._subparsers._group_actions[0].choices[name]._actions
    without_help = [action.dest for action in arguments if not action.help]
    assert not without_help


def test_help_lists_all_and_imports_none(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", lambda name: pytest.fail(f"imported {name}"))
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in SUBCOMMANDS)


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["no-such-command"], ["prepare"], ["doctor", "--for", "dinner"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
        assert "usage: nast-s2x" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out == f"nast-s2x {nast_s2x.__version__}\n"


def use_subcommand(monkeypatch: pytest.MonkeyPatch, run: Callable[[argparse.Namespace], int]) -> None:
    """Put a subcommand named ``probe`` into the table."""

    class Module:
        @staticmethod
        def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
            subparsers.add_parser("probe").set_defaults(func=run)

    monkeypatch.setitem(SUBCOMMANDS, "probe", ("probe_module", "a probe"))
    monkeypatch.setitem(sys.modules, "probe_module", Module)


def test_errors_are_told_in_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(args: argparse.Namespace) -> int:
        raise NastError("the thing must be round, not 7")

    use_subcommand(monkeypatch, fail)
    assert main(["probe"]) == 1
    assert capsys.readouterr().err == "nast-s2x probe: error: the thing must be round, not 7\n"
    monkeypatch.setenv(command.TRACEBACK_VARIABLE, "1")
    with pytest.raises(NastError, match="round"):
        main(["probe"])


def test_a_bug_shows_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ValueError of torch or of this package is no mistake of the user."""

    def fail(args: argparse.Namespace) -> int:
        raise ValueError("shapes do not match")

    use_subcommand(monkeypatch, fail)
    with pytest.raises(ValueError, match="shapes"):
        main(["probe"])


def test_missing_package_breaks_only_its_subcommand(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_subcommand(monkeypatch, lambda args: importlib.import_module(TRAIN_ONLY) and 0)
    assert main(["probe"]) == 1
    assert f"needs the Python package '{TRAIN_ONLY}', which is not installed" in capsys.readouterr().err
    assert main(["user-dir"]) == 0
    monkeypatch.setenv(command.TRACEBACK_VARIABLE, "1")
    with pytest.raises(ModuleNotFoundError):
        main(["probe"])


def test_interruption(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(args: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    use_subcommand(monkeypatch, interrupted)
    assert main(["probe"]) == 130
    assert capsys.readouterr().err == "nast-s2x probe: error: interrupted\n"


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_closed_pipe_ends_the_command_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    words = [sys.executable, "-m", "nast_s2x.cli.main", "user-dir"]
    result = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, "")


def test_user_dir_holds_the_plugin(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["user-dir"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert folder.name == "nast_s2x" and (folder / "__init__.py").samefile(nast_s2x.__file__)


def fake(states: dict[str, str]) -> Callable[[str], doctor.Finding]:
    def check_module(name: str) -> doctor.Finding:
        return doctor.Finding(name, "1.0", states.get(name, doctor.OK), doctor.DEPENDENCIES[name][1])

    return check_module


def test_doctor_names_the_system_library_that_a_package_needs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installing the extra again would not help."""
    load = importlib.import_module

    def import_module(name: str) -> object:
        if name == "sounddevice":
            raise OSError("PortAudio library not found")
        return load(name)

    monkeypatch.setattr(doctor, "_version", lambda distribution: "1.0")
    monkeypatch.setattr(doctor.importlib, "import_module", import_module)
    assert "apt-get install libportaudio2" in doctor.check_module("sounddevice").note
    for state, advised in ((doctor.BROKEN, False), (doctor.MISSING, True)):
        monkeypatch.setattr(doctor, "check_module", fake({"sounddevice": state}))
        assert main(["doctor", "--for", "live"]) == 1
        assert ("bash scripts/install.sh live" in capsys.readouterr().out) == advised


@pytest.mark.parametrize(
    ("broken", "works"),
    [
        ({}, {"inference", "train", "simuleval", "all"}),
        ({"torchaudio": doctor.BROKEN}, {"inference", "train", "simuleval", "all"}),
        ({"fairseq": doctor.MISSING, "simuleval": doctor.MISSING}, {"inference"}),
        ({"simuleval": doctor.BROKEN}, {"inference", "train"}),
        ({"soxr": doctor.MISSING}, set()),
    ],
)
def test_doctor_fails_only_what_cannot_work(
    broken: dict[str, str], works: set[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "check_module", fake(broken))
    for part in ("inference", "train", "simuleval", "all"):
        assert main(["doctor", "--for", part]) == (0 if part in works else 1)
        printed = capsys.readouterr().out
        assert f"{part}: {'works' if part in works else 'cannot work'}" in printed
        assert main(["doctor", "--for", part, "--json"]) == (0 if part in works else 1)
        assert json.loads(capsys.readouterr().out)["works"] == (part in works)


def test_doctor_looks_for_itself(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["doctor", "--json"]) == 0
    findings = {item["name"]: item for item in json.loads(capsys.readouterr().out)["findings"]}
    assert set(doctor.DEPENDENCIES) | {"python", "torch threads", "CUDA", "espeak-ng"} <= set(findings)
    assert findings["numpy"]["state"] == "ok" and findings["numpy"]["version"][0].isdigit()
    # Installed, but it does not import: broken, with the reason; not installed: missing.
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert doctor.check_module("tqdm").state == doctor.BROKEN
    monkeypatch.setitem(doctor.DEPENDENCIES, "tqdm", (("no-such-distribution",), ("inference",)))
    assert doctor.check_module("tqdm").state == doctor.MISSING
