"""``nast-s2x download``: released models from a folder and from a server, whole, broken, cut off and missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import Hub, serve
from released_files import PUBLISHED, release_layout

from nast_s2x.checkpoints import download as downloads
from nast_s2x.cli.main import main
from nast_s2x.errors import CheckpointError, ConfigError
from nast_s2x.inference.loading import load_system
from nast_s2x.vocoder import load_vocoder


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the layout of the repository; the table of releases names its digests."""
    folder = tmp_path / "release"
    folder.mkdir()
    monkeypatch.setattr(downloads, "RELEASES", {**downloads.RELEASES, **release_layout(folder)})
    return folder


def test_from_a_folder(release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The bundle translates as the checkpoint does; its card names licence and source."""
    output = tmp_path / "bundle"
    command = ["download", "nast-s2x-320", "--from", str(release), "--output", str(output)]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == str(output) and "licence: apache-2.0" in shown.err
    system, original = load_system(output), load_system(release / "chunk_320ms.pt", PUBLISHED)
    recording = "examples/espeak_fr_en/recordings/test_00002.flac"
    found = [one.translate(recording, chunk_ms=320) for one in (system, original)]
    assert found[0].text == found[1].text and found[0].units == found[1].units
    assert (system.info.source_lang, system.info.target_lang) == ("fr", "en")
    card = (output / "README.md").read_text()
    assert (
        "Licence: apache-2.0" in card
        and "17e331676738766a417b9751863fdb37e3e173c6" in card
        and "chunk_320ms.pt" in card
    )
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    assert size < 1.2 * (release / "chunk_320ms.pt").stat().st_size
    assert main(command) == 1
    assert "already holds a model" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--half"]) == 0


def test_the_vocoder_shows_its_licence_first(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["download", "vocoder-en", "--from", str(release), "--output", str(tmp_path / "vocoder")]
    assert main(command) == 0
    assert "CC BY-NC 4.0: no commercial use" in capsys.readouterr().err
    assert load_vocoder(tmp_path / "vocoder").config == load_vocoder(release / "vocoder").config
    assert "CC BY-NC 4.0" in (tmp_path / "vocoder" / "README.md").read_text()
    lines: list[str] = []
    monkeypatch.setattr(downloads, "check_content", lambda path, sha256: lines.append(path.name))
    downloads.fetch("vocoder-en", release, tell=lines.append)
    assert "licence" in lines[1] and lines[2:] == ["g_00500000", "config.json"]


def break_pickle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("chunk_320ms.pt", break_pickle, "not the published file: its SHA-256 is"),
        ("chunk_320ms.pt", lambda path: path.write_bytes(path.read_bytes()[:-100]), "not the published file"),
        ("data/gcmvn.npz", lambda path: path.write_bytes(b""), "the file is empty"),
        ("data/spm_unigram10000.txt", Path.unlink, "must have the layout of the repository"),
        (
            "data/spm_unigram10000.model",
            lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
            "LFS",
        ),
    ],
)
def test_files_that_are_not_the_published_ones(file, change, message, release: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    change(release / file)
    with pytest.raises(CheckpointError, match=message) as error:
        downloads.fetch("nast-s2x-320", release)
    assert file.rpartition("/")[2] in str(error.value)
    assert main(["download", "nast-s2x-320", "--from", str(release), "--output", str(tmp_path / "out")]) == 1
    assert not (tmp_path / "out").exists()


def test_names_and_revisions(release: Path) -> None:
    with pytest.raises(ConfigError, match="unknown model 'x'"):
        downloads.fetch("x", release)
    with pytest.raises(ConfigError, match="full commit hash"):
        downloads.fetch("nast-s2x-320", release, revision="main")
    for name, values in downloads.RELEASES.items():
        assert len(values.revision) == 40, name


def hub_command(hub_home: Path, url: str, release: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, since the Hub's library reads its address at import. The table of releases
    is that of the files of ``release``."""
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from pathlib import Path\n"
        "from released_files import table\n"
        "from nast_s2x.checkpoints import download\n"
        f"download.RELEASES.update(table(Path({str(release)!r})))\n"
        "from nast_s2x.cli.main import main\n"
        f"sys.exit(main({arguments!r}))\n"
    )
    environment = {**os.environ, "HF_HOME": str(hub_home), "HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)


def test_from_a_server(release: Path, tmp_path: Path) -> None:
    """A cut connection is resumed, files in the cache are not requested again, and each failure says what to do."""
    pytest.importorskip("huggingface_hub")
    hub = Hub("ICTNLP/NAST-S2X", downloads.RELEASES["nast-s2x-320"].revision, release)
    arguments = ["download", "nast-s2x-320", "--output", str(tmp_path / "bundle")]
    with serve(hub) as url:
        del hub.files["data/gcmvn.npz"]
        hub.cut["chunk_320ms.pt"] = 500_000
        result = hub_command(tmp_path / "hub", url, release, arguments)
        assert result.returncode == 1 and "data/gcmvn.npz at 17e33167: cannot be downloaded" in result.stderr
        assert "--from" in result.stderr and not (tmp_path / "bundle").exists()
        hub.files["data/gcmvn.npz"] = (release / "data" / "gcmvn.npz").read_bytes()
        hub.requests.clear()
        result = hub_command(tmp_path / "hub", url, release, arguments)
        assert result.returncode == 0, result.stderr
        assert not any(name == "chunk_320ms.pt" for _, name, _ in hub.requests)
    assert load_system(tmp_path / "bundle").num_units == 100


@pytest.mark.slow
def test_without_a_server(release: Path, tmp_path: Path) -> None:
    """From the cache, and an error that says what to do where the cache is empty."""
    pytest.importorskip("huggingface_hub")
    hub = Hub("ICTNLP/NAST-S2X", downloads.RELEASES["nast-s2x-320"].revision, release)
    arguments = ["download", "nast-s2x-320", "--output", str(tmp_path / "bundle")]
    with serve(hub) as url:
        assert hub_command(tmp_path / "hub", url, release, arguments).returncode == 0
    result = hub_command(tmp_path / "hub", "http://127.0.0.1:9", release, [*arguments, "--overwrite"])
    assert result.returncode == 0, result.stderr
    result = hub_command(tmp_path / "empty", "http://127.0.0.1:9", release, [*arguments, "--overwrite"])
    assert result.returncode == 1 and "--from" in result.stderr and "Traceback" not in result.stderr


def test_a_server_with_other_content(release: Path, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    hub = Hub("ICTNLP/NAST-S2X", downloads.RELEASES["nast-s2x-320"].revision, release)
    hub.files["chunk_320ms.pt"] = hub.files["chunk_320ms.pt"][::-1]
    with serve(hub) as url:
        result = hub_command(tmp_path / "hub", url, release, ["download", "nast-s2x-320"])
    assert result.returncode == 1 and "not the published file" in result.stderr and "delete it" in result.stderr
