"""The package away from its repository, and on other systems."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "examples/espeak_fr_en/bundle"
RECORDING = ROOT / "examples/espeak_fr_en/recordings/test_00002.flac"


def run(*words: str | Path, cwd: Path = ROOT, path: Path | None = None) -> str:
    environment = {**os.environ, "PYTHONPATH": str(path or ROOT)}
    result = subprocess.run(
        [sys.executable, *map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked in an empty folder."""
    pytest.importorskip("wheel")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns(
        ".git", ".venv*", "build", "*.egg-info", "__pycache__", "tests", "examples", ".*_cache"
    )
    shutil.copytree(ROOT, source, ignore=ignored)
    quiet = ("-q", "--disable-pip-version-check", "--no-deps")
    run("-m", "pip", "wheel", *quiet, "--no-build-isolation", "-w", folder, source)
    (wheel,) = folder.glob("*.whl")
    run("-m", "pip", "install", *quiet, "--target", folder / "site", wheel)
    shutil.rmtree(source)
    return folder / "site"


def test_a_wheel_finds_its_files(installed: Path, tmp_path: Path) -> None:
    """Recipes, templates and everything else come from the wheel: the repository is not there."""
    shutil.copytree(BUNDLE, tmp_path / "bundle")
    shutil.copy(RECORDING, tmp_path)
    command = ("-m", "nast_s2x.cli.main")
    here = {"cwd": tmp_path, "path": installed}
    place = run("-c", "import nast_s2x; print(nast_s2x.__file__)", **here)
    assert place.startswith(str(installed))
    words = run(*command, "translate", RECORDING.name, "--model", "bundle", "--offline", **here)
    assert "the blanket that thomas lost is under the sofa" in words
    (tmp_path / "D").mkdir()
    (tmp_path / "D" / "config.yaml").write_text("{}\n")
    planned = run(*command, "train", "tiny_espeak", "--data", "D", "--save", "S", "--dry-run", **here)
    assert planned.count("fairseq-train") == 3
    assert (installed / "nast_s2x/configs/simulstream/processor.yaml").is_file()
    files = ("report.html.j2", "page.css", "page.js")
    code = (
        "from jinja2 import Environment, PackageLoader\n"
        "loader = PackageLoader('nast_s2x.evaluation', 'report')\n"
        f"print([len(loader.get_source(Environment(), name)[0]) > 100 for name in {files}])"
    )
    assert run("-c", code, **here).strip() == "[True, True, True]"
    assert {file.suffix for file in (installed / "nast_s2x/serving/page").iterdir()} >= {".html", ".css", ".js", ".svg"}


def test_inference_without_posix(tmp_path: Path) -> None:
    """Defect 16: as on Windows and macOS, without os.sched_getaffinity and fcntl; a lock takes msvcrt there."""
    code = f"""
import os, sys, types
del os.sched_getaffinity
sys.modules["fcntl"] = None
from nast_s2x.files import locked
from nast_s2x.processes import cpu_count
from nast_s2x.inference import load_system
print(load_system({str(BUNDLE)!r}).translate({str(RECORDING)!r}).text)
assert cpu_count() == os.cpu_count()
calls = []
def locking(number, mode, size):
    calls.append(mode)
sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
sys.platform = "win32"
with locked({str(tmp_path / "out")!r}):
    assert calls == [2]
"""
    assert run("-c", code).strip() == "the blanket that thomas lost is under the sofa"
