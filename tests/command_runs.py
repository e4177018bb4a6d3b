"""Every command that writes, on tiny inputs: how it is run, where it writes, and what of its result must be equal."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import corpus_trees
import numpy as np
import soundfile
import torch
from evaluation_folder import make_evaluation
from random_system import make_bundle, make_signal
from released_files import PUBLISHED, release_layout
from vocoder_data import write_config, write_voice

from nast_s2x.checkpoints import download
from nast_s2x.cli.main import main
from nast_s2x.evaluation.scoring import score
from nast_s2x.inference.bundle import save_bundle
from nast_s2x.units.centroids import Centroids
from nast_s2x.units.features import Mfcc
from nast_s2x.vocoder.checkpoint import save_vocoder

Reader = Callable[[bytes], Any]
TIMES = ("push_ms", "chunk_ms", "elapsed", "cost", "seconds")


@dataclass(frozen=True)
class Command:
    """A command and its result.

    Attributes:
        words: arguments; ``IN`` and ``OUT`` stand for the folders of the inputs and of the outputs.
        output: path in ``OUT`` that is locked and written: a folder, or a file.
        new, old: flags of the result, and of an older one that it replaces; ``None``: nothing older is replaced.
        is_whole: the older result stays as it is until the new one takes its place as a whole; else its files are
            replaced one by one.
        before: prepares ``OUT``.
        state: names of files that hold the state of an unfinished run, and so change while it goes on.
        is_slow: takes a second.
        readers: name of a file -> what of its content must be equal; the bytes of all others must be.
    """

    name: str
    words: Sequence[str]
    output: str = "out"
    new: Sequence[str] = ()
    old: Sequence[str] | None = None
    is_whole: bool = True
    before: Callable[[Path, Path], object] = lambda inputs, out: None
    state: Sequence[str] = ()
    is_slow: bool = False
    readers: Mapping[str, Reader] = field(default_factory=dict)

    def run(self, inputs: Path, out: Path, flags: Sequence[str] | None = None) -> int:
        """Run the command in this process; returns its exit status."""
        words = [*self.words, *(self.new if flags is None else flags)]
        return main([word.replace("IN", str(inputs)).replace("OUT", str(out)) for word in words])

    def content(self, out: Path) -> dict[str, Any]:
        """What must be equal of every file in ``OUT``, hidden ones too; empty folders are named."""
        found: dict[str, Any] = {}
        for path in sorted(out.rglob("*")):
            name = path.relative_to(out).as_posix()
            if path.is_dir():
                found |= {} if any(path.iterdir()) else {f"{name}/": None}
            else:
                found[name] = self.readers.get(path.name, bytes)(path.read_bytes())
        return found


def json_lines(data: bytes) -> Any:
    """JSON lines without computing times; a line that is cut short is an error."""
    assert data.endswith(b"\n") or not data
    return [_untimed(json.loads(line)) for line in data.splitlines()]


def latest_results(data: bytes) -> Any:
    """The last result of each key in a file of stored results."""
    return {line["key"]: line["result"] for line in json_lines(data)}


def json_object(data: bytes) -> Any:
    """A JSON object without computing times."""
    return _untimed(json.loads(data))


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _untimed(one) for key, one in value.items() if key not in TIMES and not key.endswith("_CA")}
    return [_untimed(one) for one in value] if isinstance(value, list) else value


def untimed_table(data: bytes) -> Any:
    """The columns of scores.csv that do not depend on computing times."""
    header, *rows = [line.split(",") for line in data.decode().splitlines()]
    timed = ("chunk_ms_p50", "chunk_ms_p95", "real_time_factor", "compute_s")
    kept = [place for place, name in enumerate(header) if not name.endswith("_CA") and name not in timed]
    return [[row[place] for place in kept] for row in (header, *rows)]


def tensors(data: bytes) -> Any:
    """All values of a file of ``torch.save``, by their place."""
    return dict(_leaves(torch.load(io.BytesIO(data), weights_only=False)))


def _leaves(tree: Any, name: str = "") -> list[tuple[str, Any]]:
    if isinstance(tree, (dict, list, tuple)):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return [leaf for key, value in items for leaf in _leaves(value, f"{name}/{key}")]
    if isinstance(tree, torch.Tensor):
        return [(name, (tree.dtype, tuple(tree.shape), tree.numpy().tobytes()))]
    return [(name, tree)]


# Inputs


def make_inputs(folder: Path) -> Path:
    """Write the inputs of all commands; the table of releases is changed to that of a small release."""
    corpus_trees.fleurs(folder / "fleurs")
    corpus_trees.parquet_files(folder / "parquet")
    _corpus(folder / "corpus")
    vectors = Mfcc()(make_signal(4.0, seed=50))
    Centroids(vectors[:: len(vectors) // 7][:8], Mfcc().describe()).save(folder / "c.safetensors")
    _k_means(folder / "k.pkl", vectors)
    write_voice(folder / "voice", count=4, dev=1)
    for name, seed in (("config", 0), ("other", 1)):
        write_config(folder / f"{name}.json", max_updates=4 - seed)
    system = make_bundle(folder / "vocabulary", voice=True)
    save_bundle(system, folder / "bundle")
    assert system.vocoder is not None
    save_vocoder(system.vocoder, folder / "vocoder")
    info = replace(system.info, source_lang="en")
    save_bundle(replace(make_bundle(folder / "vocabulary", units=False, seed=1), info=info), folder / "recogniser")
    for name in ("a", "b"):
        score(make_evaluation(folder / name, "text", chunks=("160", "320")))
    shutil.copytree(folder / "a", folder / "scored")
    _checkpoints(folder / "checkpoint")
    (folder / "release").mkdir()
    download.RELEASES.update(release_layout(folder / "release"))
    return folder


def _corpus(folder: Path) -> None:
    (folder / "sound").mkdir(parents=True)
    lines = ["\t".join(("id", "audio", "src_text", "tgt_text", "split", "tgt_speech", "tgt_audio"))]
    for index, (source, target) in enumerate(corpus_trees.SENTENCES[:5]):
        for name in (f"{index}", f"en{index}"):
            signal = make_signal(0.5 + 0.1 * index, seed=index + len(name))
            soundfile.write(folder / f"sound/{name}.wav", signal, 16000)
        split = "dev" if index == 4 else "train"
        sound = f"sound/{index}.wav"
        lines.append("\t".join((f"u{index}", sound, source, target, split, f"sound/en{index}.wav", "3 1 4")))
    (folder / "m.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "source.txt").write_text("".join(f"sound/{index}.wav\n" for index in range(3)))
    (folder / "target.txt").write_text("".join(f"{target}\n" for _, target in corpus_trees.SENTENCES[:3]))
    (folder / "units.txt").write_text("3 1 4\n1 5 9 2 6\n5 3\n")


def _k_means(path: Path, vectors: np.ndarray) -> None:
    from sklearn.cluster import MiniBatchKMeans

    path.write_bytes(pickle.dumps(MiniBatchKMeans(4, random_state=1, n_init=1).fit(vectors)))


def _checkpoints(folder: Path) -> None:
    shutil.copytree(PUBLISHED, folder)
    state = torch.load(folder / "checkpoint.pt", weights_only=False)
    state["model"] = {name: value * 1.5 for name, value in state["model"].items()}
    torch.save(state, folder / "other.pt")


# The table

_UNITS = ("units", "extract", "IN/corpus/m.tsv", "--centroids", "IN/c.safetensors", "--output", "OUT/units.tsv")
_EVALUATE = ("evaluate", "--model", "IN/bundle", "--source", "IN/corpus/source.txt", "--target", "IN/corpus/target.txt")
_EVALUATION = {
    "instances.log": json_lines, "utterances.jsonl": json_lines, "scores.json": json_object, "scores.csv": untimed_table
}  # fmt: skip
_UNFINISHED = ("unfinished.jsonl", "transcripts.jsonl")
_PREPARE = ("prepare", "IN/corpus/m.tsv", "--output", "OUT/out", "--jobs", "1", "--quiet", "--num-units", "20")
_CONVERT = ("--output", "OUT/out", "--quiet", "--jobs", "2")
_VOICE = ("vocoder", "train", "IN/voice/units.tsv", "--output", "OUT/out", "--device", "cpu", "--save-every", "2")
_GENERATE = ("generate", "--manifest", "IN/corpus/m.tsv", "--split", "train", "--model", "IN/bundle", "--no-progress")
_VOCAB = ("--vocab-size", "50")


def _copy_evaluation(inputs: Path, out: Path) -> None:
    shutil.copytree(inputs / "scored", out / "out")


COMMANDS = [
    Command(
        "convert", ["convert", "fleurs", "IN/fleurs", "--source-lang", "fr_fr", "--target-lang", "en_us", *_CONVERT],
        old=["--limit", "1"], new=["--overwrite"], is_whole=False, state=["convert.json"],
    ),
    Command(
        "convert parquet",
        ["convert", "parquet", "IN/parquet", "--column", "src_text=sentence", "--column", "tgt_text=translation"]
        + [*_CONVERT], state=["convert.json"],
    ),
    Command("export-manifest", ["export-manifest", "IN/corpus/m.tsv", "--output", "OUT/cuts.jsonl"], "cuts.jsonl",
            old=["--split", "dev"], new=["--overwrite"]),
    Command("prepare", _PREPARE, old=[*_VOCAB], new=["--vocab-size", "40", "--overwrite"], state=["prepare.json"]),
    Command("prepare npy", [*_PREPARE, "--features", "npy"], old=[*_VOCAB, "--float16"], new=[*_VOCAB, "--overwrite"],
            state=["prepare.json"], is_slow=True),
    Command("prepare again", [*_PREPARE, *_VOCAB], old=["--features", "npy"], new=["--overwrite"],
            state=["prepare.json"]),
    Command("units fit", ["units", "fit", "IN/corpus/m.tsv", "--features", "mfcc", "--jobs", "1", "--quiet"]
            + ["--output", "OUT/c.safetensors"], "c.safetensors", old=["--num-units", "3"], new=["--num-units", "4"]),
    Command("units extract", [*_UNITS, "--jobs", "1", "--quiet"], "units.tsv",
            old=["--change-cost", "5"], new=["--overwrite"], state=["units.units.json", "units.tsv.partial"]),
    Command("units convert-kmeans", ["units", "convert-kmeans", "IN/k.pkl", "--trust-pickle"]
            + ["--output", "OUT/c.safetensors"], "c.safetensors"),
    Command("vocoder train", [*_VOICE, "--log-every", "3"], new=["--config", "IN/config.json"],
            state=["checkpoint_last.pt", "train.log", "model.safetensors", "README.md"],
            readers={"checkpoint_last.pt": tensors, "train.log": json_lines}),
    Command("vocoder synthesize", ["vocoder", "synthesize", "IN/vocoder", "IN/corpus/units.txt", "--output", "OUT/out"]
            + ["--no-progress", "--batch-size", "1"], readers={".synthesis.jsonl": latest_results}),
    Command("average", ["average", "--output", "OUT/mean.pt", "IN/checkpoint/checkpoint.pt"], "mean.pt",
            old=[], new=["IN/checkpoint/other.pt", "--overwrite"]),
    Command("export", ["export", "IN/checkpoint/checkpoint.pt", "--output", "OUT/out"],
            old=["--example", "old"], new=["--half", "--overwrite"]),
    Command("download", ["download", "nast-s2x-320", "--from", "IN/release", "--output", "OUT/out"],
            old=["--half"], new=["--overwrite"]),
    Command("download vocoder", ["download", "vocoder-en", "--from", "IN/release", "--output", "OUT/out"],
            old=["--half"], new=["--overwrite"], is_slow=True),
    Command("evaluate", [*_EVALUATE, "--output", "OUT/out", "--no-report"], new=["--chunk-ms", "320,offline"],
            old=["--chunk-ms", "320"], is_whole=False, state=_UNFINISHED, readers=_EVALUATION),
    Command("evaluate speech", [*_EVALUATE, "--output", "OUT/out", "--no-report", "--chunk-ms", "320"]
            + ["--target-type", "speech", "--recogniser", "bundle:IN/recogniser", "--vocoder", "IN/vocoder"],
            state=_UNFINISHED, readers=_EVALUATION),
    Command("score", ["score", "OUT/out", "--no-report"], before=_copy_evaluation, old=["--target-lang", "de"],
            new=["--target-lang", "en"], is_whole=False),
    Command("score with report", ["score", "OUT/out"], before=_copy_evaluation, is_whole=False, is_slow=True),
    Command("compare", ["compare", "IN/a", "IN/b", "--output", "OUT/out"], old=["--samples", "20"],
            new=["--samples", "30"], is_whole=False),
    Command("intelligibility", ["intelligibility", "IN/corpus/m.tsv", "--recogniser", "bundle:IN/recogniser"]
            + ["--no-progress", "--json", "OUT/figures.json", "--transcripts", "OUT/texts.tsv"], "figures.json",
            old=["--split", "dev"], new=["--split", "train", "--limit", "2"], is_whole=False),
    Command("generate", [*_GENERATE, "--speech", "--vocoder", "IN/vocoder", "--output-wav", "OUT/out"],
            "out/speech.tsv", old=["--chunk-ms", "160"], is_whole=False),
    Command("generate lines", [*_GENERATE, "--output", "OUT/lines.txt", "--json", "OUT/rows.jsonl"]
            + ["--as-manifest", "OUT/new.tsv"], "lines.txt", old=["--chunk-ms", "160"], is_whole=False),
    Command("translate", ["translate", "IN/corpus/sound/0.wav", "--model", "IN/bundle", "--speech", "--output"]
            + ["OUT/out"], "out/0.wav", old=["--chunk-ms", "160"], is_whole=False),
    Command("live", ["live", "--model", "IN/bundle", "--input", "IN/corpus/sound/0.wav", "--output", "OUT/voice.wav"],
            "voice.wav", old=["--chunk-ms", "160"]),
]  # fmt: skip
