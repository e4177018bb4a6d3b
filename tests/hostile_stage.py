"""Good files of every kind that a command reads, and what turns each into a hostile one."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import corpus_trees
import hostile_mutations as make
import numpy as np
import soundfile
import unit_corpus
import vocoder_data
import yaml
from evaluation_folder import make_evaluation
from random_system import make_bundle, make_signal, unsealed
from released_files import PUBLISHED, released_vocoder
from safetensors.numpy import save_file

from nast_s2x.inference.bundle import save_bundle
from nast_s2x.inference.system import System
from nast_s2x.vocoder.network import UnitVocoder

Mutation = Callable[[bytes, Random], bytes]
OUT = "out/it"


@dataclass(frozen=True)
class Target:
    """A file, what makes it hostile, and the commands that read it.

    Attributes:
        kind: what the file is.
        file: its path in the stage.
        mutation: good content to hostile content.
        commands: argument lists of ``nast-s2x``, without quotes, ``OUT`` for the output.
        may_start: the commands start processes.
    """

    kind: str
    file: str
    mutation: Mutation
    commands: tuple[str, ...]
    may_start: bool = False

    def names(self) -> list[str]:
        """Names of which a message must have one: the file, its folder, or the file that names it."""
        path = Path(self.file)
        return [path.name, path.stem, *(part for part in path.parts[:-1])]


def gzipped(inner: Mutation) -> Mutation:
    """The mutation inside of gzip, or of the compressed bytes."""

    def mutation(data: bytes, rng: Random) -> bytes:
        if rng.random() < 0.3:
            return make.damaged(data, rng)
        return gzip.compress(inner(gzip.decompress(data), rng), 1)

    return mutation


def built(folder: Path) -> Path:
    """Write the good files; returns the folder."""
    folder.mkdir(parents=True)
    system = make_bundle(folder / "vocabulary", voice=True)
    for name in ("bundle", "sealed"):
        save_bundle(system, folder / name)
    unsealed(folder / "bundle")
    released_vocoder(folder / "vocoder", _vocoder(system))
    (folder / "vocoder" / "g_00500000").rename(folder / "vocoder" / "voice.pt")
    shutil.copytree(PUBLISHED, folder / "trained")
    _sounds(folder / "sound")
    _evaluations(folder)
    _long_form(folder / "long")
    unit_corpus.write_corpus(folder / "corpus", (0.6, 0.5, 0.7))
    _tables(folder)
    _units(folder / "units")
    _corpora(folder / "corpora")
    shutil.copy(Path(__file__).parent.parent / "configs" / "tiny_espeak.yaml", folder / "recipe.yaml")
    return folder


def _vocoder(system: System) -> UnitVocoder:
    assert system.vocoder is not None
    return system.vocoder


def _sounds(folder: Path) -> None:
    folder.mkdir()
    samples = make_signal(0.8)
    for name in ("a.wav", "a.flac", "a.ogg", "a.mp3"):
        soundfile.write(folder / name, samples, 16000)
    soundfile.write(folder / "stereo.wav", np.stack([samples, samples], 1), 48000, subtype="FLOAT")
    np.save(folder / "a.npy", np.zeros((60, 80), np.float32))


def _evaluations(folder: Path) -> None:
    for name, target_type in (("eval", "text"), ("other", "text")):
        make_evaluation(folder / name, target_type, chunks=("320",))
        scores = json.loads((folder / name / "scores.json").read_text())
        (folder / name / "settings.json").write_text(json.dumps(scores["settings"]))


def _long_form(folder: Path) -> None:
    folder.mkdir()
    segments = [{"wav": "talk.wav", "offset": 1.5 * i, "duration": 1.4} for i in range(3)]
    (folder / "segments.yaml").write_text(yaml.safe_dump(segments))
    (folder / "refs.txt").write_text("one two\nthree four\nfive six\n")
    line = {"index": 0, "prediction": "one two four five", "reference": "", "source": ["talk.wav"],
            "delays": [900, 1200, 2500, 4000], "elapsed": [950, 1300, 2600, 4100], "source_length": 4500.0}  # fmt: skip
    (folder / "omnisteval.jsonl").write_text(json.dumps(line) + "\n")
    times = [{"id": 0, "total_audio_processed": 0.5 * i, "computation_time": 0.02} for i in range(1, 7)]
    lines = [{**time, "generated_tokens": [f"\u2581w{i}"], "deleted_tokens": []} for i, time in enumerate(times)]
    first = {"id": 0, "metadata": {"wav_name": "talk.wav"}}
    (folder / "simulstream.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in [first, *lines]))


def _tables(folder: Path) -> None:
    (folder / "list").mkdir()
    (folder / "list" / "source.txt").write_text(f"{folder}/sound/a.wav\n{folder}/sound/a.flac\n")
    (folder / "list" / "target.txt").write_text("one two\nthree\n")
    vocoder_data.write_voice(folder / "voice")
    vocoder_data.write_config(folder / "voice" / "vocoder.json", max_updates=1)
    (folder / "voice" / "plain.txt").write_text("1 2 3\n\n4 5\n")
    lines = [{"id": "a", "units": [1, 2, 3]}, {"id": "b", "units": [4]}]
    (folder / "voice" / "lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _units(folder: Path) -> None:
    folder.mkdir()
    centers = np.random.default_rng(0).standard_normal((6, 20)).astype(np.float32)
    save_file({"centroids": centers}, folder / "c.safetensors")
    np.savez(folder / "c.npz", centroids=centers)
    np.save(folder / "c.npy", centers)
    (folder / "kmeans.pkl").write_bytes(pickle.dumps({"cluster_centers_": centers}))


def _corpora(folder: Path) -> None:
    corpus_trees.parquet_files(folder / "parquet")
    voice = corpus_trees.common_voice(folder / "common")
    (voice / "other.tsv").write_text("x\n")
    corpus_trees.talks(folder / "talks", "en-de")
    lhotse = folder / "lhotse"
    corpus_trees.sound(lhotse / "r.wav")
    recording = {"id": "r", "sources": [{"type": "file", "channels": [0], "source": str(lhotse / "r.wav")}],
                 "sampling_rate": 16000, "num_samples": 9600, "duration": 0.6, "channel_ids": [0]}  # fmt: skip
    supervision = {"id": "s", "recording_id": "r", "start": 0.0, "duration": 0.5, "channel": 0, "text": "a b",
                   "language": "fr", "custom": {"tgt_text": "c d"}}  # fmt: skip
    for name, value in (("recordings", recording), ("supervisions", supervision)):
        (lhotse / f"{name}.jsonl.gz").write_bytes(gzip.compress(json.dumps(value).encode() + b"\n"))


_TRANSLATE = "translate sound/a.wav --model {} --chunk-ms 640"
_EXPORT = f"export trained/checkpoint.pt --output {OUT}"
_PREPARE = f"prepare corpus/m.tsv --output {OUT} --vocab-size 30 --jobs 1 --quiet"
_SCORE = "score long/{} --segments long/segments.yaml --target long/refs.txt --output " + OUT


def targets() -> Iterator[Target]:
    """Every kind of file that a command reads."""
    bundle = (_TRANSLATE.format("bundle"), f"generate sound/a.wav --model bundle --no-progress --output {OUT}")
    sealed = (_TRANSLATE.format("sealed"),)
    spoken = (f"translate sound/a.wav --model bundle --chunk-ms 640 --speech --output {OUT}",)
    yield Target("bundle configuration", "bundle/config.json", make.json_text, bundle)
    yield Target("bundle configuration", "sealed/config.json", make.json_text, sealed)
    yield Target("weights", "bundle/model.safetensors", make.safetensors_file, bundle)
    yield Target("weights", "sealed/model.safetensors", make.safetensors_file, sealed)
    yield Target("vocabulary", "bundle/dict.txt", make.text_lines, bundle)
    yield Target("SentencePiece", "bundle/spm.model", make.damaged, bundle)
    yield Target("CMVN", "bundle/gcmvn.npz", make.zip_file, bundle)
    yield Target("vocoder configuration", "bundle/vocoder/config.json", make.json_text, spoken)
    yield Target("weights", "bundle/vocoder/model.safetensors", make.safetensors_file, spoken)
    synthesize = f"vocoder synthesize vocoder voice/{{}} --output {OUT} --no-progress"
    released = (synthesize.format("plain.txt"),)
    yield Target("vocoder checkpoint", "vocoder/voice.pt", make.torch_file, released)
    yield Target("vocoder configuration", "vocoder/config.json", make.json_text, released)
    checkpoint = (
        _EXPORT,
        f"average trained/checkpoint.pt trained/checkpoint.pt --output {OUT}",
        _TRANSLATE.format("trained/checkpoint.pt"),
    )
    yield Target("checkpoint", "trained/checkpoint.pt", make.torch_file, checkpoint)
    yield Target("data configuration", "trained/config.yaml", make.yaml_text, (_EXPORT,))
    yield Target("vocabulary", "trained/spm.txt", make.text_lines, (_EXPORT,))
    for name in ("a.wav", "a.flac", "a.ogg", "a.mp3", "stereo.wav"):
        commands = (f"translate sound/{name} --model bundle", f"generate sound/{name} --model bundle --no-progress")
        yield Target("sound", f"sound/{name}", make.damaged, commands)
    yield Target("features", "sound/a.npy", make.npy_file, ("generate sound/a.npy --model bundle --no-progress",))
    compare = f"compare other eval --output {OUT} --samples 20"
    yield Target("scores", "eval/scores.json", make.json_text, (compare,))
    yield Target("scores", "eval/320/utterances.jsonl", make.json_lines, (compare,))
    yield Target("log", "eval/320/instances.log", make.json_lines, (compare,))
    for kind, file in (("log", "320/instances.log"), ("settings", "settings.json")):
        yield Target(kind, f"{OUT}/{file}", make.json_lines if kind == "log" else make.json_text, (f"score {OUT}",))
    for name in ("omnisteval.jsonl", "simulstream.jsonl"):
        yield Target("log of others", f"long/{name}", make.json_lines, (_SCORE.format(name),))
    long_form = tuple(map(_SCORE.format, ("omnisteval.jsonl", "simulstream.jsonl")))
    yield Target("segments", "long/segments.yaml", make.yaml_text, long_form)
    yield Target("references", "long/refs.txt", make.text_lines, long_form)
    extract = f"units extract corpus/m.tsv --features mfcc --centroids units/{{}} --output {OUT}.tsv --quiet"
    manifest = (_PREPARE, extract.format("c.npy"))
    generate = "generate --manifest corpus/m.tsv --model bundle --no-progress"
    yield Target("table", "corpus/m.tsv", make.table, (*manifest, generate))
    yield Target("sound", "corpus/sound/1.wav", make.damaged, manifest)
    yield Target("table", "voice/units.tsv", make.table, (synthesize.format("units.tsv"),))
    training = f"vocoder train voice/units.tsv --config voice/vocoder.json --output {OUT} --workers 0 --max-updates 1"
    yield Target("vocoder configuration", "voice/vocoder.json", make.json_text, (training,))
    for name, mutation in (("plain.txt", make.text_lines), ("lines.jsonl", make.json_lines)):
        yield Target("units", f"voice/{name}", mutation, (synthesize.format(name),))
    for name, mutation in (
        ("c.safetensors", make.safetensors_file),
        ("c.npz", make.zip_file),
        ("c.npy", make.npy_file),
    ):
        yield Target("centroids", f"units/{name}", mutation, (extract.format(name),))
    command = f"units convert-kmeans units/kmeans.pkl --trust-pickle --output {OUT}.safetensors"
    yield Target("k-means pickle", "units/kmeans.pkl", make.pickle_file, (command,))
    yield Target("recipe", "recipe.yaml", make.yaml_text, (f"train recipe.yaml --data trained --save {OUT} --dry-run",))
    command = f"evaluate --model bundle --source list/source.txt --target list/target.txt --chunk-ms 640 --output {OUT}"
    for name in ("source.txt", "target.txt"):
        yield Target("list", f"list/{name}", make.text_lines, (command,), may_start=True)
    convert = f"convert {{}} --output {OUT} --source-lang {{}} --target-lang {{}} --jobs 1 --quiet"
    for name in ("recordings", "supervisions"):
        command = convert.format("lhotse corpora/lhotse", "fr", "en")
        yield Target("lhotse", f"corpora/lhotse/{name}.jsonl.gz", gzipped(make.json_lines), (command,))
    columns = " --column src_text=sentence --column tgt_text=translation"
    command = convert.format("parquet corpora/parquet/fr_en", "fr", "en") + columns
    yield Target("parquet", "corpora/parquet/fr_en/train-00000-of-00001.parquet", make.damaged, (command,))
    command = convert.format("common-voice corpora/common", "fr", "en").replace(" --target-lang en", "")
    yield Target("table", "corpora/common/train.tsv", make.table, (command,))


def copied(stage: Path, case: Path, target: Target, content: bytes) -> None:
    """A folder of its own for a case: hard links of the good files, and the hostile one."""
    shutil.copytree(stage, case, copy_function=os.link, dirs_exist_ok=True)
    (case / "out").mkdir(exist_ok=True)
    if target.file.startswith(OUT):
        shutil.copytree(case / "eval", case / OUT)
    place = case / target.file
    place.unlink(missing_ok=True)
    place.write_bytes(content)


def good(stage: Path, target: Target) -> bytes:
    """The good content of a target."""
    return (stage / target.file.replace(OUT, "eval", 1)).read_bytes()
