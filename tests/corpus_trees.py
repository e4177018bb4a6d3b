"""Small corpora in the layouts of the published ones, for the tests of ``nast-s2x convert``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

SENTENCES = [
    ("le chat dort", "the cat sleeps"),
    ("où est le chien", "where is the dog"),
    ("null", "null"),
    ("une maison rouge", "a red house"),
    ("il pleut souvent", "it rains often"),
    ("elle mange du pain", "she eats bread"),
]


def sound(path: Path, seconds: float = 0.6, rate: int = 16000, seed: int = 0) -> Path:
    """Write noise; the ending gives the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * rate))
    soundfile.write(path, samples.astype(np.float32), rate)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def splits() -> list[tuple[str, int]]:
    """(split, sentence) of the rows: four of train, one of dev, one of test."""
    return list(zip(["train", "train", "train", "train", "dev", "test"], range(6), strict=True))


def common_voice(root: Path) -> Path:
    """Common Voice, language fr: mp3 clips, a byte order mark and CRLF in validated.tsv."""
    header = "client_id\tpath\tsentence\tup_votes\tlocale"
    lines = []
    for _, index in splits():
        sound(root / "clips" / f"common_voice_fr_{index}.mp3", rate=32000, seed=index)
        lines.append(f"speaker{index % 2}\tcommon_voice_fr_{index}.mp3\t{SENTENCES[index][0]}\t2\tfr")
    write(root / "validated.tsv", "\ufeff" + "\r\n".join([header, *lines]) + "\r\n")
    for split in ("train", "dev", "test"):
        of_split = [lines[index] for name, index in splits() if name == split]
        write(root / f"{split}.tsv", "\n".join([header, *of_split]) + "\n")
    return root


def covost2(root: Path) -> list[Path]:
    """CoVoST 2 and Common Voice; one row of train_covost, one without a clip, one without a transcript."""
    voice = common_voice(root / "cv" / "fr")
    rows = [f"common_voice_fr_{index}.mp3\t{SENTENCES[index][1]}\t{split}" for split, index in splits()]
    rows[1] = rows[1].replace("\ttrain", "\ttrain_covost").replace("where is", r"where is\\")
    rows.append("common_voice_fr_77.mp3\tno transcript\ttrain")
    write(root / "covost" / "covost_v2.fr_en.tsv", "\n".join(["path\ttranslation\tsplit", *rows]) + "\n")
    return [root / "covost", voice]


def cvss_c(root: Path) -> list[Path]:
    """CVSS-C and Common Voice; the English recording of the last training row is missing."""
    voice = common_voice(root / "cv" / "fr")
    cvss = root / "cvss_c_fr_en"
    for split, index in splits():
        name = f"common_voice_fr_{index}.mp3"
        if index != 3:
            sound(cvss / split / f"{name}.wav", rate=24000, seed=10 + index)
        with open(write(cvss / f"{split}.tsv", "") if index in (0, 4, 5) else cvss / f"{split}.tsv", "a") as file:
            file.write(f"{name}\t{SENTENCES[index][1]}\n")
    return [cvss, voice]


def talks(root: Path, pair: str, dev: str = "dev", ending: str = ".wav") -> Path:
    """MuST-C and mTEDx: segments of two talks, offsets as strings, U+2028 in a text."""
    source, target = pair.split("-")
    for split, indices in (("train", (0, 1, 2, 3)), (dev, (4,)), ("tst-COMMON", (5,))):
        folder = root / pair / "data" / split
        sound(folder / "wav" / f"ted_{split}{ending}", seconds=12.0, rate=16000, seed=len(split))
        entries, texts = [], {source: "", target: ""}
        for place, index in enumerate(indices):
            start = f"'{10.5 if place == 1 else 9.1 if place == 2 else place}'"
            entries.append(
                f"- {{duration: 0.8, offset: {start}, rW: 3, uW: 0, speaker_id: spk.1, wav: ted_{split}.wav}}"
            )
            texts[source] += SENTENCES[index][0] + ("\u2028oui" if index == 1 else "") + "\n"
            texts[target] += SENTENCES[index][1] + "\n"
        write(folder / "txt" / f"{split}.yaml", "\n".join(entries) + "\n")
        for language, text in texts.items():
            write(folder / "txt" / f"{split}.{language}", text)
    return root


def europarl_st(root: Path) -> Path:
    """Europarl-ST with converted recordings."""
    for split, index in splits():
        folder = root / "fr" / "en" / split
        name = f"en.2008090{index}"
        sound(root / "fr" / "audios" / f"{name}.flac", seconds=3.0, seed=index)
        for file, line in (
            ("segments.lst", f"{name} 0.5 1.25"),
            ("segments.fr", SENTENCES[index][0]),
            ("segments.en", SENTENCES[index][1]),
            ("speeches.lst", name),
            ("speakers.lst", f"MEP {index}"),
        ):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            with open(folder / file, "a") as opened:
                opened.write(line + "\n")
    return root


def fleurs(root: Path) -> Path:
    """FLEURS: sentence 0 read twice in French, sentence 3 not in English."""
    for language, column in (("fr_fr", 0), ("en_us", 1)):
        for split, index in [("train", 0), *splits()] if language == "fr_fr" else splits():
            if language == "en_us" and index == 3:
                continue
            folder = root / language
            count = len(list((folder / "audio" / split).glob("*.wav")))
            name = f"{index}{count}.wav"
            sound(folder / "audio" / split / name, seed=index + count)
            text = SENTENCES[index][column]
            with open(folder / f"{split}.tsv", "a", encoding="utf-8") as file:
                file.write(f"{index}\t{name}\t{text}\t{text}\t{'|'.join(text)}\t9600\tFEMALE\n")
    return root


def parquet_files(root: Path) -> Path:
    """The audio layout of the Hub: struct of bytes and path; "validation" for dev; one row without bytes."""
    import pyarrow
    from pyarrow import parquet

    for split, indices in (("train", (0, 1, 2, 3)), ("validation", (4,)), ("test", (5,))):
        rows = []
        for index in indices:
            data = sound(root / "made" / f"{index}.mp3", rate=32000, seed=index).read_bytes()
            audio = {"bytes": None if index == 3 else data, "path": None}
            rows.append(
                {"client_id": "a", "audio": audio, "sentence": SENTENCES[index][0],
                 "translation": SENTENCES[index][1], "id": f"row{index}"}
            )  # fmt: skip
        path = root / "fr_en" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return root / "fr_en"


def fairseq_s2t(root: Path) -> Path:
    """fairseq's tables: no transcripts, an escaped backslash."""
    for split, indices in (("train_st", (0, 1, 2, 3)), ("dev_st", (4,)), ("tst_st", (5,))):
        lines = ["id\taudio\tn_frames\ttgt_text\tspeaker"]
        for index in indices:
            sound(root / "wav" / f"{index}.wav", seed=index)
            lines.append(f"u{index}\twav/{index}.wav\t58\t{SENTENCES[index][1]}\\\\\tspk")
        write(root / f"{split}.tsv", "\n".join(lines) + "\n")
    return root
