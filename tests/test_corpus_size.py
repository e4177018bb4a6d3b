"""``nast-s2x prepare`` with many rows: archives above 4 GiB, what is kept in memory, the benchmark."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from nast_s2x.benchmarks import prepare as benchmark
from nast_s2x.cli.main import main
from nast_s2x.corpus.audio_ref import AudioRef
from nast_s2x.corpus.compact import AudioRefs, Strings
from nast_s2x.corpus.packing import ARCHIVE, PackedFeatures, Part, pack_zip
from nast_s2x.corpus.row_table import RowTable
from nast_s2x.errors import ManifestError


def write_part(folder: Path, count: int = 5) -> tuple[Part, list[bytes]]:
    data = [bytes([65 + index]) * (10 + index) for index in range(count)]
    (folder / "part.bin").write_bytes(b"".join(data))
    offsets = np.cumsum([0, *map(len, data)]).tolist()
    packed = tuple(
        PackedFeatures(f"row é{index}", 1, 16000, offsets[index], len(item)) for index, item in enumerate(data)
    )
    return Part(folder / "part.bin", packed, 0, []), data


@pytest.mark.parametrize("limit", [zipfile.ZIP64_LIMIT, 60])
def test_archive_is_what_zipfile_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """With a limit of 60 bytes the archive has the 64-bit records of one that is larger than the format's limit."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
    part, data = write_part(tmp_path)
    place = pack_zip([part], tmp_path)
    for index, item in enumerate(part.packed):
        found = place(index, item.id)
        assert (tmp_path / ARCHIVE).read_bytes()[found.start : found.start + found.count] == data[index]
    with zipfile.ZipFile(tmp_path / "plain.zip", "w") as archive:
        for item, content in zip(part.packed, data):
            archive.writestr(zipfile.ZipInfo(f"{item.id.replace(' ', '%20').replace('é', '%C3%A9')}.npy"), content)
    written = (tmp_path / ARCHIVE).read_bytes()
    assert written == (tmp_path / "plain.zip").read_bytes()
    assert (b"PK\x06\x06" in written) == (limit == 60)  # the 64-bit end record
    with zipfile.ZipFile(tmp_path / ARCHIVE) as archive:
        assert archive.testzip() is None and len(archive.namelist()) == 5


def test_strings_and_references_come_back() -> None:
    texts = ["", "a", "où est\u2028le chat", ""]
    strings = Strings()
    for text in texts:
        strings.append(text)
    assert [strings[index] for index in range(len(strings))] == texts
    assert strings.nbytes == sum(len(text.encode()) for text in texts) + 8 * 4
    audio = [AudioRef(Path("/a/x.zip"), 5_000_000_000, 7), AudioRef(Path("y.wav")), AudioRef(Path("/a/y.wav"), 0, 3)]
    references = AudioRefs()
    for item in audio:
        references.append(item)
    assert [references[index] for index in range(len(references))] == audio


def test_a_manifest_changed_during_the_work(tmp_path: Path) -> None:
    manifest = benchmark.make_corpus(tmp_path, 10)
    table = RowTable(manifest, None)
    assert [row.id for row in table.rows()] == [f"row-{index:08d}" for index in range(10)]
    manifest.write_text(manifest.read_text("utf-8").replace("row-00000003", "x"), encoding="utf-8")
    with pytest.raises(ManifestError, match="was changed during the preparation"):
        list(table.rows())


def test_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "prepare", "--rows", "200", "--jobs", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["rows"] == 200 and result["jobs"] == 1 and result["peak_bytes"] >= result["start_bytes"] > 0
    assert list(result["phases"]) == ["table", "features", "vocabulary", "storing", "tables"]
    assert sum(result["phases"].values()) == pytest.approx(result["seconds"], rel=0.2)
    assert result["rows_per_second"] == pytest.approx(200 / result["seconds"])
    assert main(["benchmark", "prepare", "--rows", "10"]) == 1
    assert "--rows must be at least 200, but is 10" in capsys.readouterr().err
    assert main(["benchmark", "prepare", "--dtype", "bf16"]) == 1
    assert "--dtype must be fp32, but is bf16" in capsys.readouterr().err
    assert main(["benchmark", "prepare", "--device", "cuda"]) == 1
    assert "--device must be cpu, but is cuda" in capsys.readouterr().err
