"""Released models as bundles: files checked by :mod:`nast_s2x.checkpoints.download`, converted once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import yaml

from nast_s2x.checkpoints.download import RELEASES, Release, fetch
from nast_s2x.files import check_output_folder, locked, write_atomic
from nast_s2x.inference.bundle import save_bundle
from nast_s2x.inference.card import model_card
from nast_s2x.inference.description import CONFIG
from nast_s2x.inference.loading import system_from_checkpoints
from nast_s2x.vocoder.checkpoint import load_vocoder, save_vocoder

_PAPER = "Ma et al., NAST-S2X, ACL 2024, https://arxiv.org/abs/2406.06937"


def download(
    name: str,
    output: str | Path,
    folder: str | Path | None = None,
    *,
    revision: str | None = None,
    half: bool = False,
    overwrite: bool = False,
    tell: Callable[[str], None] = print,
) -> Path:
    """Make a bundle, or a vocoder folder, of a released model.

    The bundle holds the weights without the state of the optimizer, vocabulary, CMVN, chunk policy, and a card with
    licence and source.

    Args:
        name: a key of :data:`~nast_s2x.checkpoints.download.RELEASES`.
        output: folder to write.
        folder, revision, tell: as for :func:`~nast_s2x.checkpoints.download.fetch`.
        half: store float16 weights.
        overwrite: replace an older bundle or vocoder in ``output``.

    Raises:
        ConfigError: an unknown model, an output folder that holds something else.
        CheckpointError: as for ``fetch``; files that do not belong together.
    """
    output = Path(output)
    with locked(output):
        check_output_folder(output, "model", CONFIG, overwrite)
        paths = fetch(name, folder, revision, tell)
        release = RELEASES[name]
        source = f"{release.page}/tree/{revision or release.revision}"
        if name.startswith("vocoder"):
            return save_vocoder(load_vocoder(paths[0]), output, half, _card(release, source))
        weights, cmvn, sentencepiece, vocabulary = paths
        with tempfile.TemporaryDirectory() as data:
            write_atomic(Path(data) / "config.yaml", _data_config(cmvn, sentencepiece, vocabulary))
            system = system_from_checkpoints([weights], data)
        card = f"{_card(release, source)}\n{model_card(system)}"
        return save_bundle(replace(system, info=replace(system.info, card=card)), output, half)


def _data_config(cmvn: Path, sentencepiece: Path, vocabulary: Path) -> str:
    """The ``config.yaml`` that the release does not have."""
    return yaml.safe_dump(
        {
            "vocab_filename": str(vocabulary.absolute()),
            "bpe_tokenizer": {"bpe": "sentencepiece", "sentencepiece_model": str(sentencepiece.absolute())},
            "global_cmvn": {"stats_npz_path": str(cmvn.absolute())},
            "transforms": {"*": ["global_cmvn"]},
            "source_lang": "fr",
            "target_lang": "en",
        }
    )


def _card(release: Release, source: str) -> str:
    files = ", ".join(f"`{file.path}`" for file in release.files)
    return (
        f"# {release.summary}\n\nLicence: {release.licence}\n\nSource: {source} ({files}), converted by "
        f"`nast-s2x download`. Paper: {_PAPER}.\n"
    )
