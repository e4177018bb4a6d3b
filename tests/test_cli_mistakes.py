"""Wrong commands: an error message in one line, and nothing written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from nast_s2x.cli.main import main
from nast_s2x.texts import printable

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "examples/espeak_fr_en/bundle"
RECORDING = ROOT / "examples/espeak_fr_en/recordings/test_00000.flac"
MANIFEST = ROOT / "examples/espeak_fr_en/recordings/manifest.tsv"
TRANSLATE = ["translate", str(RECORDING), "--model"]
FIT = ["units", "fit", str(MANIFEST), "--features", "mfcc"]
GENERATE = ["generate", str(RECORDING), "--no-progress", "--model", str(BUNDLE)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["translate", str(ROOT / "examples"), "--model", str(BUNDLE)], "examples: is a folder, not a file"),
        ([*TRANSLATE, str(BUNDLE), "--piece-ms", "nan"], "--piece-ms must be a positive number, got nan"),
        ([*TRANSLATE, str(BUNDLE), "--piece-ms", "inf"], "--piece-ms must be a positive number, got inf"),
        ([*TRANSLATE, str(BUNDLE), "--chunk-ms", "500"], "trained for: 320, 640, 1280, offline"),
        ([*TRANSLATE, str(BUNDLE / "config.json")], "is a file of a bundle: give its folder"),
        ([*TRANSLATE, str(BUNDLE / "model.safetensors")], "is a file of a bundle: give its folder"),
        ([*TRANSLATE, str(BUNDLE), "--threads", "0"], "--threads must be at least 1, got 0"),
        (["serve", "--model", "none", "--port", "99999"], "--port must be from 0 to 65535, but is 99999"),
        (["serve", "--model", "none", "--port", "-1"], "--port must be from 0 to 65535, but is -1"),
        (["prepare", str(MANIFEST), "--output", "OUT", "--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["prepare", str(MANIFEST), "--output", "OUT", "--jobs", "-3"], "--jobs must be at least 1, got -3"),
        (
            ["units", "fit", str(MANIFEST), "--features", "mfcc", "--num-units", "0", "--output", "OUT.safetensors"],
            "at least 2, not 0",
        ),
        (["export", str(BUNDLE), "--output", "OUT"], "is a bundle already"),
        (["train", "no_such_recipe", "--data", "OUT", "--save", "OUT"], "no_such_recipe"),
        (["translate", "none.wav", "--model", "nowhere"], "nowhere"),
    ],
)
def test_the_message_names_the_mistake(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main([word.replace("OUT", str(output)) for word in arguments]) == 1
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*GENERATE, "--batch-size", "0"], "batch_size must be at least 1, got 0"),
        ([*GENERATE, "--max-tokens", "0"], "max_tokens must be at least 1 frame, got 0"),
        ([*GENERATE, "--json", "a.txt", "-o", "./a.txt"], "--json and --output must name different files, got a.txt"),
        ([*GENERATE, "--speech"], "it produces text only"),
        ([*TRANSLATE, str(BUNDLE), "--speech"], "it produces text only"),
    ],
)
def test_found_before_the_weights_are_read(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(*_: object) -> None:
        raise AssertionError("the system was loaded")

    monkeypatch.setattr("nast_s2x.inference.loading.load_system", load)
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


def test_a_git_lfs_pointer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(BUNDLE, folder)
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    assert main([*TRANSLATE, str(folder)]) == 1
    assert "is a Git LFS pointer, not the file itself: run `git lfs pull`" in capsys.readouterr().err


def test_escape_sequences_do_not_reach_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = tmp_path / "m.tsv"
    manifest.write_text(f"id\taudio\ttgt_text\nu\x1b[31m\t{RECORDING}\tred\x1b[31m text\n")
    assert main(["generate", "--manifest", str(manifest), "--model", str(BUNDLE), "--no-progress"]) == 0
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err and "red\\x1b[31m text" in captured.out
    manifest.write_text("id\taudio\ttgt_text\nu\x1b[31m\tnone.wav\tred\n")
    assert main(["generate", "--manifest", str(manifest), "--model", str(BUNDLE), "--no-progress"]) == 1
    assert "left out: u\\x1b[31m: " in capsys.readouterr().err
    manifest.write_text("id\taudio\tsrc_text\ttgt_text\tsplit\nu\tnone\x1b[31m.wav\ta\tb\ttrain\n")
    assert main(["prepare", str(manifest), "--output", str(tmp_path / "out"), "--quiet"]) == 1
    error = capsys.readouterr().err
    assert "\x1b" not in error and "none\\x1b[31m.wav" in error
    assert main(["translate", "none\x1b[31m.wav", "--model", str(BUNDLE)]) == 1
    error = capsys.readouterr().err
    assert "\x1b" not in error and "none\\x1b[31m.wav" in error


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
@pytest.mark.parametrize(
    ("encoding", "flags", "shown"), [("utf-8", ["--json"], "d\\udce9jà"), ("ascii", [], "d\\udce9j\\xe0")]
)
def test_names_that_are_not_utf8_and_letters_that_a_terminal_lacks(
    encoding: str, flags: list[str], shown: str, tmp_path: Path
) -> None:
    name = os.fsdecode(b"d\xe9j\xc3\xa0.flac")
    shutil.copy(RECORDING, tmp_path / name)
    command = [sys.executable, "-m", "nast_s2x.cli.main", "translate", name, "--model", BUNDLE, "--offline", *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True)
    lines = done.stdout.decode(encoding).splitlines()
    assert shown in lines[0] and "eighteenth" in "".join(lines)
    if flags:
        assert {json.loads(line)["audio"] for line in lines} == {name}


def test_letters_and_spaces_of_every_language_are_printed() -> None:
    text = "l'été\xa0! \u3000 \u200d\t"
    assert printable(text) == text
    assert printable("a\x9b\u2028\ud800\n") == "a\\x9b\\u2028\\ud800\\n"
    assert printable("\u200fgpj\u202e") == "\u200fgpj\\u202e"  # marks of direction stay, overrides do not


def test_export_refuses_flags_that_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = tmp_path / "card.md"
    card.write_bytes("modèle".encode("latin-1"))
    checkpoint = str(ROOT / "tests/fixtures/parity/published_checkpoint/checkpoint.pt")
    assert main(["export", checkpoint, "--output", str(tmp_path / "out"), "--card", str(card)]) == 1
    assert f"--card must be UTF-8 text, but {card} is not (byte 3)" in capsys.readouterr().err
    text_only = SimpleNamespace(units=None)
    monkeypatch.setattr("nast_s2x.inference.loading.system_from_checkpoints", lambda *_: text_only)
    assert main(["export", checkpoint, "--output", str(tmp_path / "out"), "--drop-repeats", "2"]) == 1
    assert "--drop-repeats needs a model with a unit decoder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "CHECKPOINT", "--data", "DATA", "--output", "OUT"],
        ["vocoder", "synthesize", str(BUNDLE.parent / "speech_bundle"), "UNITS", "--output", "OUT"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_folder_with_something_else_is_refused(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = ROOT / "tests/fixtures/parity/published_checkpoint"
    units = tmp_path / "units.txt"
    units.write_text("1 2 3\n")
    output = tmp_path / "used"
    output.mkdir()
    (output / "note.txt").write_text("mine")
    places = {"OUT": output, "CHECKPOINT": published / "checkpoint.pt", "DATA": published, "UNITS": units}
    assert main([str(places.get(word, word)) for word in arguments]) == 1
    assert str(output) in capsys.readouterr().err
    assert [path.name for path in output.iterdir()] == ["note.txt"]
