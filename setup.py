"""Packaging of nast_s2x; `bash scripts/install.sh [extras]` knows the order in which the heavy parts go in."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "nast_s2x" / "__init__.py").read_text("utf-8")).group(1)
README = ROOT / "README.md"

EXTRAS = {
    # Training by fairseq-train; fairseq-fixed is fairseq 0.12 made to work on Python >= 3.11.
    "train": ["fairseq-fixed>=0.12.3", "sacrebleu>=2.3"],
    # Latency and quality of streams, by SimulEval.
    "simuleval": ["simuleval>=1.1.4"],
    # `nast-s2x evaluate`, score and compare: SimulEval runs, sacrebleu scores, matplotlib draws.
    "evaluate": ["simuleval>=1.1.4", "sacrebleu>=2.3", "matplotlib>=3.8"],
    # Whisper as the recogniser of ASR-BLEU; its models come from a folder or from the Hugging Face hub.
    "whisper": ["faster-whisper>=1.0"],
    # Units of target speech: `nast-s2x units fit` clusters with scikit-learn; transformers runs (m)HuBERT models.
    "units": ["scikit-learn>=1.3", "transformers>=4.45"],
    # The checks of scripts/test.sh.
    "dev": ["pytest>=8", "pytest-timeout>=2.3", "ruff>=0.5", "sacrebleu>=2.3"],
}
# Whisper brings an inference engine of its own: it is asked for by name only.
EXTRAS["all"] = sorted({requirement for name, extra in EXTRAS.items() if name != "whisper" for requirement in extra})

setup(
    name="nast-s2x",
    version=VERSION,
    description="Non-autoregressive end-to-end simultaneous speech-to-any translation",
    long_description=README.read_text("utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="MIT",
    author="The nast_s2x authors",
    python_requires=">=3.11",
    packages=find_packages(include=["nast_s2x", "nast_s2x.*"]),
    package_data={"nast_s2x": ["py.typed", "evaluation/report/page.css", "evaluation/report/page.js"]},
    install_requires=[
        # From 2.6 on torch.load, which fairseq calls with its defaults, never executes what a file holds.
        "torch>=2.6",
        "numpy>=1.26",
        "soundfile>=0.12",
        "soxr>=0.5",
        "kaldi-native-fbank>=1.20",
        "sentencepiece>=0.2",
        "safetensors>=0.4",
        "PyYAML>=6",
        "tqdm>=4.64",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["nast-s2x = nast_s2x.cli.main:main"]},
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
