#!/usr/bin/env python3
"""Convert a data folder of `nast-s2x prepare` for fairseq's own speech-to-unit transformer (`s2ut_transformer`).

    python scripts/s2ut_data.py DATA --output DIR

The autoregressive baseline is trained with the features, normalisation and units of DATA; the features are not copied.
fairseq reads DIR with its task `speech_to_speech --target-is-code`; the transcripts, as pieces of DATA's vocabulary,
are the target of an auxiliary CTC loss on the encoder (`--multitask-config-yaml multitask.yaml`). DIR contains absolute
paths: make it again after DATA or DIR has been moved.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nast_s2x.corpus import Utterance, read_manifest  # noqa: E402
from nast_s2x.corpus.columns import audio_cell  # noqa: E402
from nast_s2x.corpus.data_folder import CONFIG_NAME, DataFolder  # noqa: E402
from nast_s2x.files import replace_folder  # noqa: E402
from nast_s2x.labels import TextLabels  # noqa: E402

UNITS_HEADER = ("id", "src_audio", "src_n_frames", "tgt_audio", "tgt_n_frames")
TEXT_HEADER = ("id", "tgt_text")
# The masks of configs/tiny_espeak.yaml.
SPECAUGMENT = {
    "time_warp_W": 0,
    "freq_mask_N": 1,
    "freq_mask_F": 10,
    "time_mask_N": 1,
    "time_mask_T": 20,
    "time_mask_p": 1.0,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and write the folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="data folder with units, made by nast-s2x prepare")
    parser.add_argument("--output", type=Path, required=True, help="folder to make; must be empty or not exist")
    args = parser.parse_args(argv)
    try:
        counts = convert(args.data, args.output)
    except (ValueError, OSError) as error:
        print(f"s2ut_data.py: error: {error}", file=sys.stderr)
        return 1
    print(f"{args.output}: " + ", ".join(f"{count} {split}" for split, count in counts.items()))
    return 0


def convert(data: Path, output: Path) -> dict[str, int]:
    """Write ``output`` from ``data``; returns the number of utterances of each split.

    Raises:
        FileNotFoundError, ValueError: ``data`` is no data folder, has no units or transcripts, or features that fairseq
            cannot read; or ``output`` is not empty. Nothing is written then.
        OSError: a file cannot be written; ``output`` is then what it was before.
    """
    config = DataFolder.load(data)
    if not config.num_units:
        raise ValueError(
            f"{data}: has no num_units in {CONFIG_NAME}: prepare it from a manifest with units (tgt_audio)"
        )
    if output.exists() and any(output.iterdir()):
        raise ValueError(f"{output}: is not empty")
    tokenizer = TextLabels.load(config.vocab_path, config.spm_path)
    columns = ("id", "audio", "n_frames")
    splits = {
        path.stem: read_manifest(path, required=columns, num_units=config.num_units, root=config.audio_root).rows
        for path in sorted(data.glob("*.tsv"))
    }
    if "train" not in splits:
        raise FileNotFoundError(f"{data / 'train.tsv'}: no such manifest")
    for name, rows in splits.items():
        for row in rows:
            _check(row, name)
    output = output.resolve()
    with replace_folder(output) as folder:
        _write(config, tokenizer, splits, folder, output)
    return {name: len(rows) for name, rows in splits.items()}


def _check(row: Utterance, split: str) -> None:
    if row.units is None:
        raise ValueError(f"{split}: example {row.id} has no units")
    if not row.source_text:
        raise ValueError(f"{split}: example {row.id} has no transcript (src_text), the target of the CTC loss")
    assert row.audio is not None
    if row.audio.path.suffix not in (".npy", ".zip"):
        name = row.audio.path
        raise ValueError(f"{split}: example {row.id}: fairseq reads features from .npy and .zip only, not {name}")


def _write(
    config: DataFolder, tokenizer: TextLabels, splits: dict[str, list[Utterance]], folder: Path, output: Path
) -> None:
    """Write all files into ``folder``, which is renamed to ``output`` (absolute) afterwards."""
    transcripts = folder / "source"
    transcripts.mkdir()
    root = os.path.realpath(config.audio_root)
    for name, rows in splits.items():
        units = (
            (r.id, audio_cell(r.audio, root), r.length(), str(r.units), len(r.units.codes)) for r in rows if r.units
        )
        _write_table(folder / f"{name}.tsv", UNITS_HEADER, units)
        texts = ((r.id, " ".join(tokenizer.pieces(tokenizer.encode(r.source_text)))) for r in rows)
        _write_table(transcripts / f"{name}.tsv", TEXT_HEADER, texts)
    shutil.copyfile(config.vocab_path, transcripts / "dict.txt")
    # fairseq takes relative paths from the working directory: all paths are absolute.
    multitask = {
        "decoder_type": "ctc",
        "data": str(output / "source"),
        "dict": str(output / "source" / "dict.txt"),
    }
    _write_yaml(folder / "multitask.yaml", {"source_text": multitask})
    settings = {
        "audio_root": str(config.audio_root.resolve()),
        "input_feat_per_channel": config.feature_bins,
        "shuffle": True,
        "specaugment": SPECAUGMENT,
        "feature_transforms": {"_train": ["specaugment"]},
        # For information: fairseq's task takes the number of units from --target-code-size.
        "num_units": config.num_units,
        "unit_hash": config.unit_hash,
    }
    if config.cmvn_path is not None:
        shutil.copyfile(config.cmvn_path, folder / "gcmvn.npz")
        settings["global_cmvn"] = {"stats_npz_path": str(output / "gcmvn.npz")}
        settings["feature_transforms"] = {"*": ["global_cmvn"], "_train": ["global_cmvn", "specaugment"]}
    _write_yaml(folder / CONFIG_NAME, settings)


def _write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    lines = ["\t".join(map(str, row)) for row in (header, *rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_yaml(path: Path, values: dict[str, object]) -> None:
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
