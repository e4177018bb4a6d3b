"""``nast-s2x doctor``: version and state of every dependency."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import io
import json
import platform
import shutil
import sys
import warnings
from dataclasses import asdict, dataclass

from nast_s2x.processes import cpu_count

PARTS = ("inference", "train", "simuleval", "evaluate", "units", "data", "serve", "live", "dev")
"""Parts of the project, named as the extras of scripts/install.sh; together they are ``all``."""

SEPARATE_PARTS = ("whisper",)
"""Parts that ``all`` does not include."""

DEPENDENCIES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "torch": (("torch",), PARTS + SEPARATE_PARTS),
    "numpy": (("numpy",), PARTS + SEPARATE_PARTS),
    "soundfile": (("soundfile",), PARTS + SEPARATE_PARTS),
    "soxr": (("soxr",), PARTS + SEPARATE_PARTS),
    "kaldi_native_fbank": (("kaldi-native-fbank",), PARTS + SEPARATE_PARTS),
    "sentencepiece": (("sentencepiece",), PARTS + SEPARATE_PARTS),
    "safetensors": (("safetensors",), PARTS + SEPARATE_PARTS),
    "yaml": (("PyYAML",), PARTS + SEPARATE_PARTS),
    "tqdm": (("tqdm",), PARTS + SEPARATE_PARTS),
    "fairseq": (("ve-fairseq", "fairseq-fixed", "fairseq"), ("train",)),
    "sacrebleu": (("sacrebleu",), ("train", "evaluate", "dev")),
    "simuleval": (("simuleval",), ("simuleval",)),
    "matplotlib": (("matplotlib",), ("evaluate",)),
    "jinja2": (("Jinja2",), ("evaluate",)),
    "sklearn": (("scikit-learn",), ("units",)),
    "transformers": (("transformers",), ("units",)),
    "pyarrow": (("pyarrow",), ("data",)),
    "huggingface_hub": (("huggingface_hub",), ("data",)),
    "starlette": (("starlette",), ("serve",)),
    "uvicorn": (("uvicorn",), ("serve",)),
    "websockets": (("websockets",), ("serve", "live")),
    "sounddevice": (("sounddevice",), ("live",)),
    "pytest": (("pytest",), ("dev",)),
    "pytest_timeout": (("pytest-timeout",), ("dev",)),
    "xdist": (("pytest-xdist",), ("dev",)),
    "ruff": (("ruff",), ("dev",)),
    "mypy": (("mypy",), ("dev",)),
    "faster_whisper": (("faster-whisper",), ("whisper",)),
    "torchaudio": (("torchaudio",), ()),
}
"""Import name -> (distributions that provide it, parts that do not work without it)."""

ADVICE = {"sounddevice": "Debian, Ubuntu: apt-get install libportaudio2"}
"""Import name -> what to install where the package is there and its import fails."""

OK, MISSING, BROKEN = "ok", "missing", "broken"


@dataclass(frozen=True)
class Finding:
    """State of a dependency or of the machine.

    Attributes:
        name: import name of a package, or name of a property of the machine.
        version: installed version, or the value of the property; ``-`` for none.
        state: ``ok``, ``missing`` or ``broken``.
        needed_for: parts that do not work without it.
        note: remark for the user.
    """

    name: str
    version: str
    state: str
    needed_for: tuple[str, ...] = ()
    note: str = ""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser(
        "doctor",
        help="report the version and state of every dependency",
        description="Report the version and state of every dependency. The exit status is 1 if a dependency of the "
        "chosen part is missing or broken.",
    )
    parser.add_argument(
        "--for",
        dest="part",
        choices=(*PARTS, *SEPARATE_PARTS, "all"),
        default="inference",
        help="the part to check; all is every part but whisper (default: inference)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the report; returns 1 if a dependency of the chosen part is missing or broken, else 0."""
    parts = PARTS if args.part == "all" else (args.part,)
    findings = [check_python(), *(check_module(name) for name in DEPENDENCIES), *machine_notes()]
    failed = [item for item in findings if item.state != OK and set(parts) & set(item.needed_for)]
    if args.json:
        print(json.dumps({"part": args.part, "works": not failed, "findings": [asdict(item) for item in findings]}))
    else:
        _print_table(findings, set(parts))
        print(f"\n{args.part}: {'works' if not failed else 'cannot work: ' + ', '.join(item.name for item in failed)}")
        if any(item.name not in ADVICE or item.state == MISSING for item in failed):
            extra = "" if args.part == "inference" else f" {args.part}"
            print(f"To install what is missing: bash scripts/install.sh{extra}")
    return 1 if failed else 0


def check_python() -> Finding:
    """State of the interpreter, which must be Python 3.11 or newer."""
    good = sys.version_info >= (3, 11)
    note = "" if good else "Python 3.11 or newer is required"
    return Finding("python", platform.python_version(), OK if good else BROKEN, PARTS + SEPARATE_PARTS, note)


def check_module(name: str) -> Finding:
    """State of a package of :data:`DEPENDENCIES`: import it, without output."""
    distributions, parts = DEPENDENCIES[name]
    installed = {item: version for item in distributions if (version := _version(item))}
    optional = "" if parts else " (not needed)"
    if not installed:
        return Finding(name, "-", MISSING, parts, f"not installed{optional}")
    version = next(iter(installed.values()))
    if len(installed) > 1:
        note = f"{' and '.join(installed)} overwrite each other: uninstall both, then install one again"
        return Finding(name, version, BROKEN, parts, note)
    try:
        quiet = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stderr(quiet), contextlib.redirect_stdout(quiet):
            warnings.simplefilter("ignore")
            importlib.import_module(name)
    # A broken compiled module can raise anything (OSError, RuntimeError, AttributeError).
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:100]
        advice = f" ({ADVICE[name]})" if name in ADVICE else ""
        return Finding(name, version, BROKEN, parts, f"import failed{optional}: {reason}{advice}")
    # Where several distributions provide a package, the note names the one that is installed.
    return Finding(name, version, OK, parts, next(iter(installed)) if len(distributions) > 1 else "")


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def machine_notes() -> list[Finding]:
    """Properties of the machine: processors, CUDA, espeak-ng. No part requires them."""
    notes = [Finding("processors", str(cpu_count()), OK)]
    if check_module("torch").state == OK:
        import torch

        notes.append(Finding("torch threads", str(torch.get_num_threads()), OK))
        if torch.cuda.is_available():
            notes.append(Finding("CUDA", str(torch.version.cuda), OK, note=torch.cuda.get_device_name(0)))
        else:
            notes.append(Finding("CUDA", "-", MISSING, note="torch finds no CUDA device"))
    espeak = shutil.which("espeak-ng")
    note = espeak or "needed only to build the example corpus (apt-get install espeak-ng)"
    notes.append(Finding("espeak-ng", "-", OK if espeak else MISSING, note=note))
    return notes


def _print_table(findings: list[Finding], parts: set[str]) -> None:
    width = max(len(item.name) for item in findings)
    versions = max(len(item.version) for item in findings)
    for item in findings:
        state = item.state
        if state != OK and not parts & set(item.needed_for):
            state = "note"
        print(f"{item.name:<{width}}  {item.version:<{versions}}  {state:<7}  {item.note}".rstrip())
