"""Intelligibility: every kind of speech with small random systems."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from random_system import make_bundle, make_signal
from random_vocoder import make_vocoder

pytest.importorskip("sacrebleu")

from nast_s2x.cli.intelligibility import measure, parse_folders  # noqa: E402
from nast_s2x.cli.main import build_parser, main  # noqa: E402
from nast_s2x.corpus import Utterance  # noqa: E402
from nast_s2x.errors import ConfigError  # noqa: E402
from nast_s2x.evaluation import intelligibility  # noqa: E402
from nast_s2x.frontend.audio import load_audio  # noqa: E402
from nast_s2x.inference.bundle import save_bundle  # noqa: E402
from nast_s2x.inference.loading import load_system  # noqa: E402
from nast_s2x.inference.offline import translate_samples  # noqa: E402
from nast_s2x.metrics import quality  # noqa: E402
from nast_s2x.recognisers import open_recogniser  # noqa: E402
from nast_s2x.vocoder.checkpoint import save_vocoder  # noqa: E402

TEXTS = ("the small house is red", "a big dog sleeps", "birds sing")
UNITS = ((3, 7, 1, 4), (2, 5), (9, 0, 11))
DURATIONS = ((10, 20, 15, 8), (30, 20), (9, 14, 30))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest with units, recordings, and random systems: recogniser, vocoder, speech-to-speech bundle."""
    folder = tmp_path_factory.mktemp("example")
    header = [
        "id",
        "audio",
        "tgt_text",
        "split",
        "tgt_speech",
        "tgt_audio",
        "tgt_n_frames",
        "tgt_durations",
        "unit_hash",
    ]
    lines = []
    for number, (text, units, durations) in enumerate(zip(TEXTS, UNITS, DURATIONS)):
        for kind in ("source", "target"):
            seed = number if kind == "source" else number + 10
            soundfile.write(folder / f"{kind}{number}.wav", make_signal(1.0 + 0.5 * number, seed), 16000)
        unit_string, duration_string = (" ".join(map(str, values)) for values in (units, durations))
        line = [f"t{number}", f"source{number}.wav", text, "test", f"target{number}.wav"]
        lines.append([*line, unit_string, str(len(units)), duration_string, "abc"])
    write_table(folder / "units.tsv", [header, *lines])
    recogniser = make_bundle(folder / "rec_vocabulary", units=False, seed=1)
    info = replace(recogniser.info, source_lang="en")
    save_bundle(replace(recogniser, info=info), folder / "recogniser")
    save_bundle(make_bundle(folder / "vocabulary"), folder / "bundle")
    save_vocoder(make_vocoder(unit_hash="abc"), folder / "vocoder")
    save_vocoder(make_vocoder(unit_hash="other"), folder / "other_vocoder")
    return folder


def write_table(path: Path, rows: list[list[str]]) -> None:
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


def read_table(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


def parse(folder: Path, *arguments: object, manifest: str = "units.tsv") -> argparse.Namespace:
    shared = [folder / manifest, "--recogniser", folder / "recogniser", "--no-progress"]
    words = ["intelligibility", *(str(argument) for argument in [*shared, *arguments])]
    return build_parser("intelligibility").parse_args(words)


def test_original_and_copies_are_transcribed(folder: Path) -> None:
    results, columns = measure(parse(folder, "--vocoder", folder / "vocoder"))
    assert [result.speech for result in results] == ["original", "copy", "copy, true durations"]
    original, copy, true = results
    assert original.seconds == pytest.approx(1.0 + 1.5 + 2.0)
    assert true.seconds == pytest.approx(0.02 * sum(map(sum, DURATIONS)))
    assert copy.seconds > 0 and copy.text_bleu is None and copy.silent == 0
    recogniser = load_system(folder / "recogniser")
    heard = [translate_samples(recogniser, load_audio(folder / f"target{n}.wav")).text for n in range(3)]
    assert columns["original"] == heard
    assert original.wer == pytest.approx(quality.word_error_rate(heard, TEXTS))
    assert columns["reference"] == list(TEXTS)


def test_the_model_is_transcribed_at_every_chunk_size(folder: Path) -> None:
    arguments = parse(
        folder, "--bundle", folder / "bundle", "--vocoder", folder / "vocoder", "--chunk-ms", "offline,320"
    )
    results, columns = measure(arguments)
    offline, streaming = results[-2:]
    assert (offline.speech, streaming.speech) == ("model, offline", "model, 320 ms")
    bundle = load_system(folder / "bundle")
    for result, chunk in ((offline, "offline"), (streaming, "320")):
        assert result.seconds > 0.2
        said = [
            translate_samples(bundle, load_audio(folder / f"source{n}.wav"), None, bundle.policy(chunk))
            for n in range(3)
        ]
        assert columns[f"{result.speech}: text"] == [translation.text for translation in said]
        assert result.text_bleu == pytest.approx(
            quality.asr_bleu([translation.text for translation in said], TEXTS).value
        )
        assert result.unit_bleu == pytest.approx(
            quality.unit_bleu([translation.units for translation in said], UNITS).value
        )
        assert result.own_wer is not None


def test_recordings_of_other_programs_are_transcribed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "simuleval" / "wavs").mkdir(parents=True)
    (tmp_path / "translate").mkdir()
    for number in range(2):
        samples = load_audio(folder / f"target{number}.wav")
        soundfile.write(tmp_path / "simuleval" / "wavs" / f"{number}_pred.wav", samples, 16000)
        soundfile.write(tmp_path / "translate" / f"t{number}.wav", samples, 16000, subtype="FLOAT")
    wavs = ["--wavs", f"a={tmp_path / 'simuleval'}", "--wavs", f"b={tmp_path / 'translate'}"]
    results, columns = measure(parse(folder, "--limit", 2, *wavs))
    assert [result.speech for result in results] == ["original", "a", "b"]
    assert columns["a"] == columns["b"] == columns["original"]
    with pytest.raises(FileNotFoundError, match="t2"):
        measure(parse(folder, *wavs))


def test_the_command_writes_table_figures_and_transcripts(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["intelligibility", folder / "units.tsv", "--recogniser", folder / "recogniser", "--no-progress"]
    command += ["--vocoder", folder / "vocoder", "--json", tmp_path / "new" / "f.json"]
    assert main(list(map(str, [*command, "--transcripts", tmp_path / "t.tsv"]))) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| speech | WER | ASR-BLEU | seconds | silent |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| original", "| copy", "| copy, true durations"]
    figures = json.loads((tmp_path / "new" / "f.json").read_text())
    assert figures["sentences"] == 3 and figures["split"] == "test"
    assert f"{figures['results'][0]['wer']:.1f}" == lines[2].split(" | ")[1]
    rows = read_table(tmp_path / "t.tsv")
    assert rows[0] == ["id", "reference", "original", "copy", "copy, true durations"] and len(rows) == 4


def test_everything_is_checked_before_any_speech_is_made(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intelligibility, "copy_synthesis", lambda *_: pytest.fail("speech was made"))
    rows, _ = intelligibility.read_sentences(folder / "units.tsv", "test")
    rows = [replace(row, target_audio=None) for row in rows]
    system, vocoder = load_system(folder / "bundle"), make_vocoder(unit_hash="abc")
    for chunks, folders, message in (
        (["320", "330"], [], "330"),
        (["320"], [("a", tmp_path)], "has no recording of sentence t0"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            next(intelligibility.all_kinds(rows, vocoder, system, chunks, folders))


def test_folders_of_recordings() -> None:
    assert parse_folders(["a=.", "b=x=y"], ["id"]) == [("a", Path()), ("b", Path("x=y"))]
    for wavs in (["a=x", "a=y"], ["id=x"]):
        with pytest.raises(ConfigError, match=f"'{wavs[-1].partition('=')[0]}' is that of another column"):
            parse_folders(wavs, ["id"])
    for wrong in ("x", "=x", "x="):
        with pytest.raises(ConfigError, match="--wavs must be NAME=FOLDER"):
            parse_folders([wrong], ["id"])


def test_silence_is_no_transcript_and_counted(folder: Path) -> None:
    recogniser = open_recogniser(str(folder / "recogniser"))
    signal = make_signal(1.0, 3)
    short = [np.zeros(0, np.float32), signal, np.zeros(100, np.float32)]
    heard = [transcript.text for transcript in recogniser.transcribe(short)]
    assert heard[0] == heard[2] == "" and heard[1] == translate_samples(recogniser.bundle, signal).text != ""
    sentences = [Utterance("a", target_text=text) for text in TEXTS]
    result = intelligibility.score_speech(intelligibility.Speech("x", short), ["", TEXTS[1], ""], sentences)
    assert result.silent == 1 and result.wer == pytest.approx(100 * 7 / 11)


def test_a_perfect_recogniser_keeps_everything() -> None:
    sentences = [Utterance("a", target_text=text) for text in TEXTS]
    said = ["the small house was red", "a big dog sleeps", "birds sing"]
    speech = intelligibility.Speech("model", [np.zeros(16000, np.float32)] * 3, said, [[], [], []])
    result = intelligibility.score_speech(speech, said, sentences)
    assert (result.own_wer, result.kept, result.unit_bleu) == (0.0, 1.0, None)
    assert result.wer == pytest.approx(100 / 11)


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({}, ["--split", "dev"], "no row of split dev"),
        ({}, ["--limit", "0"], "--limit"),
        ({}, ["--wavs", "x"], "NAME=FOLDER"),
        ({}, ["--recogniser", "{folder}/bundle"], "a recogniser must have the same source and target"),
        ({}, ["--vocoder", "{folder}/other_vocoder"], "manifest: abc, vocoder: other"),
        ({}, ["--bundle", "{folder}/bundle"], "this system has no vocoder"),
        ({"tgt_durations": "1 2"}, [], "2 durations for 4 units"),
        ({"tgt_speech": ""}, [], "t0 has no tgt_speech, other rows do"),
        ({"tgt_audio": "3 99 1 4"}, ["--vocoder", "{folder}/vocoder"], "99"),
        ({"unit_hash": "def"}, [], "different centroids"),
        (
            {"audio": ""},
            ["--bundle", "{folder}/bundle", "--vocoder", "{folder}/vocoder"],
            "t0 has no audio, other rows do",
        ),
    ],
)
def test_mistakes_are_explained(folder: Path, changes: dict[str, str], arguments: list[str], message: str) -> None:
    rows = read_table(folder / "units.tsv")
    for name, value in changes.items():
        rows[1][rows[0].index(name)] = value
    write_table(folder / "changed.tsv", rows)
    given = [argument.format(folder=folder) for argument in arguments]
    with pytest.raises(ValueError, match=message):
        measure(parse(folder, *given, manifest="changed.tsv"))


def test_a_manifest_without_english_recordings_needs_other_speech(folder: Path) -> None:
    rows = read_table(folder / "units.tsv")
    write_table(folder / "silent.tsv", [[cell for name, cell in zip(rows[0], r) if name != "tgt_speech"] for r in rows])
    with pytest.raises(ValueError, match="nothing to score"):
        measure(parse(folder, manifest="silent.tsv"))


def test_a_missing_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["intelligibility", str(tmp_path), "--recogniser", str(tmp_path / "no")]) == 1
    assert "no: no such folder" in capsys.readouterr().err
