"""Packaging of nast_s2x. ``bash scripts/install.sh [extras]`` installs it with the tested versions of everything."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "nast_s2x" / "__init__.py").read_text("utf-8")).group(1)
README = ROOT / "README.md"

# Two builds of fairseq 0.12, which both provide the package `fairseq`: never install both. ve-fairseq has wheels for
# the Pythons and machines of this marker; fairseq-fixed is compiled at installation. scripts/install.sh has the same
# rule in `fairseq_build`.
HAS_WHEEL = "python_version < '3.13' and sys_platform == 'linux' and platform_machine == 'x86_64'"
LINUX = "sys_platform == 'linux' and platform_machine == 'x86_64'"
NO_WHEEL = "python_version >= '3.13' or sys_platform != 'linux' or platform_machine != 'x86_64'"

EXTRAS = {
    # Training by fairseq-train.
    "train": [f"ve-fairseq>=0.12.3; {HAS_WHEEL}", f"fairseq-fixed>=0.12.3; {NO_WHEEL}", "sacrebleu>=2.3"],
    # The agents for SimulEval. With pip alone, its requirement bitarray==2.6.0 is compiled.
    "simuleval": ["simuleval>=1.1.4"],
    # `nast-s2x evaluate`, `score` and `compare`.
    "evaluate": ["sacrebleu>=2.3", "matplotlib>=3.8", "jinja2>=3.1"],
    # sacreBLEU's tokenizer of Japanese: MeCab with the dictionary IPADIC.
    "japanese": ["sacrebleu[ja]>=2.3"],
    # Whisper as the recogniser of ASR-BLEU. Its models come from a folder or from the Hugging Face hub.
    "whisper": ["faster-whisper>=1.0"],
    # Units of target speech: scikit-learn for `nast-s2x units fit`, transformers for (m)HuBERT models.
    "units": ["scikit-learn>=1.3", "transformers>=4.45"],
    # `nast-s2x convert parquet` (pyarrow), and `nast-s2x download` (huggingface_hub).
    "data": ["pyarrow>=15", "huggingface_hub>=0.30"],
    # `nast-s2x serve`.
    "serve": ["starlette>=0.40", "uvicorn>=0.30", "websockets>=13"],
    # `nast-s2x live`: sounddevice for microphone and loudspeaker, websockets for --server.
    "live": ["sounddevice>=0.4.6", "websockets>=13"],
    # The speech processor for simulstream; librosa makes it large.
    "simulstream": ["simulstream>=1.0"],
    # Programs that tests compare with: simulstream as a client of the server, and OmniSTEval, of that version, for the
    # figures of long recordings.
    "clients": ["simulstream>=1.0", "omnisteval==0.1.10"],
    # The checks of scripts/test.sh. Triton's interpreter runs the GPU form of the alignment on a CPU; its version is
    # the one that a CUDA build of torch requires, and is not pinned. openai is a client for a test of the server; its
    # extra `realtime` would bring nothing but an older websockets than the one that everything here is tested with.
    "dev": [
        f"triton>=3; {LINUX}",
        "hypothesis>=6.100",
        "pytest>=8",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.5",
        "ruff>=0.5",
        "mypy>=1.15",
        "types-PyYAML>=6",
        "sacrebleu>=2.3",
        "openai>=3.57",
    ],
}
# faster-whisper brings its own inference engine, simulstream librosa, japanese a dictionary, and clients are for a few
# tests: these are installed only on request.
ON_REQUEST = ("whisper", "japanese", "simulstream", "clients")
EXTRAS["all"] = sorted(
    {requirement for name, extra in EXTRAS.items() if name not in ON_REQUEST for requirement in extra}
)

setup(
    name="nast-s2x",
    version=VERSION,
    description="Non-autoregressive end-to-end simultaneous speech-to-any translation",
    long_description=README.read_text("utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="MIT",
    author="The nast_s2x authors",
    python_requires=">=3.11",
    packages=[*find_packages(include=["nast_s2x", "nast_s2x.*"]), "nast_s2x.configs"],
    # Recipes and configurations are at the top of the repository and in the package once installed: see
    # nast_s2x/resources.py.
    package_dir={"nast_s2x.configs": "configs"},
    package_data={
        "": ["py.typed", "*.css", "*.js", "*.html", "*.svg", "*.j2", "*.json", "*.yaml"],
        "nast_s2x.configs": ["simulstream/*.yaml"],
    },
    install_requires=[
        # From 2.6 on, torch.load (called with its defaults by fairseq) executes nothing that a file contains.
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
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
