"""mHuBERT units of one recording against published ones, where the model is at hand.

Set NAST_S2X_MHUBERT (folder of a Hugging Face HubertModel: mHuBERT base, en, es, fr, iteration 3), NAST_S2X_KMEANS (its
mhubert_base_vp_en_es_fr_it3_L11_km1000.bin) and NAST_S2X_LJ037_0171 (LJ037-0171.wav of LJSpeech). None of them is part
of this repository. The published units are those of the model card of voidful/mhubert-base; the end is missing there.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from nast_s2x.checkpoints.kmeans import read_kmeans_centers
from nast_s2x.corpus.audio_ref import AudioRef
from nast_s2x.units.centroids import Centroids
from nast_s2x.units.features import BackEnd

GOLDEN = Path(__file__).parent / "fixtures" / "units" / "mhubert_lj037_0171.txt"
FILES = [os.environ.get(name, "") for name in ("NAST_S2X_MHUBERT", "NAST_S2X_KMEANS", "NAST_S2X_LJ037_0171")]


@pytest.mark.skipif(not all(FILES), reason="needs mHuBERT, its k-means model and a recording, see the module")
def test_published_units() -> None:
    """Most frames agree; a few may differ by the resampler."""
    model, kmeans, recording = FILES
    expected = np.array(GOLDEN.read_text().split(), dtype=np.int64)
    features = BackEnd("mhubert", model).build()
    found = Centroids(read_kmeans_centers(kmeans)).nearest(features(AudioRef.parse(recording).samples()))
    agree = found[: len(expected)] == expected
    assert agree.mean() >= 0.97, f"{agree.mean():.3f} of {len(expected)} frames agree"
