"""``nast-s2x doctor``: what is installed, in which version, and whether it works."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import io
import json
import os
import platform
import shutil
import sys
import warnings
from dataclasses import asdict, dataclass

PARTS = ("inference", "train", "simuleval", "evaluate", "units", "dev")

#: import name -> (distributions that may provide it, parts that cannot work without it)
DEPENDENCIES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "torch": (("torch",), PARTS),
    "numpy": (("numpy",), PARTS),
    "soundfile": (("soundfile",), PARTS),
    "soxr": (("soxr",), PARTS),
    "kaldi_native_fbank": (("kaldi-native-fbank",), PARTS),
    "sentencepiece": (("sentencepiece",), PARTS),
    "safetensors": (("safetensors",), PARTS),
    "yaml": (("PyYAML",), PARTS),
    "tqdm": (("tqdm",), PARTS),
    "fairseq": (("fairseq-fixed", "fairseq"), ("train",)),
    "sacrebleu": (("sacrebleu",), ("train", "evaluate", "dev")),
    "simuleval": (("simuleval",), ("simuleval", "evaluate")),
    "matplotlib": (("matplotlib",), ("evaluate",)),
    "sklearn": (("scikit-learn",), ("units",)),
    "transformers": (("transformers",), ("units",)),
    "pytest": (("pytest",), ("dev",)),
    "pytest_timeout": (("pytest-timeout",), ("dev",)),
    "ruff": (("ruff",), ("dev",)),
    "torchaudio": (("torchaudio",), ()),
    "faster_whisper": (("faster-whisper",), ()),
}

OK, MISSING, BROKEN = "ok", "missing", "broken"


@dataclass(frozen=True)
class Finding:
    """State of one thing: ``ok``, ``missing`` or ``broken``, with the parts that need it."""

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
        description="Report the version and state of every dependency. Exits with 1 if the asked-for part cannot work.",
    )
    parser.add_argument(
        "--for", dest="part", choices=(*PARTS, "all"), default="inference", help="the part that must work"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the report; 1 if a dependency of the asked-for part is missing or broken, else 0."""
    parts = PARTS if args.part == "all" else (args.part,)
    findings = [check_python(), *(check_module(name) for name in DEPENDENCIES), *machine_notes()]
    failed = [item for item in findings if item.state != OK and set(parts) & set(item.needed_for)]
    if args.json:
        print(json.dumps({"part": args.part, "works": not failed, "findings": [asdict(item) for item in findings]}))
    else:
        _print_table(findings, set(parts))
        print(f"\n{args.part}: {'works' if not failed else 'cannot work: ' + ', '.join(item.name for item in failed)}")
        if failed:
            print(f"bash scripts/install.sh {'' if args.part == 'inference' else args.part}".rstrip() + " installs it.")
    return 1 if failed else 0


def check_python() -> Finding:
    """State of the interpreter: this project needs Python 3.11 or newer."""
    good = sys.version_info >= (3, 11)
    return Finding("python", platform.python_version(), OK if good else BROKEN, PARTS, "" if good else "needs >= 3.11")


def check_module(name: str) -> Finding:
    """Import a dependency, quietly, and say what came of it."""
    distributions, parts = DEPENDENCIES[name]
    version = next(filter(None, map(_version, distributions)), "")
    optional = " (not needed)" if not parts else ""
    if not version:
        return Finding(name, "-", MISSING, parts, f"not installed{optional}")
    try:
        quiet = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stderr(quiet), contextlib.redirect_stdout(quiet):
            warnings.simplefilter("ignore")
            importlib.import_module(name)
    # A broken binary fails in any way it likes (OSError, RuntimeError, AttributeError): report, never crash.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:100]
        return Finding(name, version, BROKEN, parts, f"does not import{optional}: {reason}")
    return Finding(name, version, OK, parts, _remark(name))


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _remark(name: str) -> str:
    if name == "fairseq" and not _version("fairseq-fixed"):
        return "this is fairseq itself; fairseq-fixed is what this project is tested with"
    return ""


def machine_notes() -> list[Finding]:
    """Facts about the machine: processors, CUDA, espeak-ng. None of them can fail a part."""
    notes = [Finding("processors", str(len(os.sched_getaffinity(0))), OK)]
    if check_module("torch").state == OK:
        import torch

        notes.append(Finding("torch threads", str(torch.get_num_threads()), OK))
        if torch.cuda.is_available():
            notes.append(Finding("CUDA", str(torch.version.cuda), OK, note=torch.cuda.get_device_name(0)))
        else:
            notes.append(Finding("CUDA", "-", MISSING, note="no GPU that torch can use; everything runs on the CPU"))
    espeak = shutil.which("espeak-ng")
    note = espeak or "only for building the example corpus (apt-get install espeak-ng)"
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
