"""Imports point downward only: every room imports what its line of the table allows, and nothing else."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "nast_s2x"

BASE = {"torch", "numpy"}
#: Rooms that every room may import.
GROUND = {"errors", "files", "typed", "arrays", "temporary", "processes", "progress", "texts", "device"}
_MODEL = {"batches", "chunking", "ctc", "labels", "network"}
_SYSTEM = _MODEL | {"frontend", "checkpoints", "corpus", "vocoder"}
#: room -> (rooms of this package, libraries); the standard library, numpy, GROUND and the room itself always count.
#: Optional libraries are listed too: only functions that need one import it.
ROOMS: dict[str, tuple[set[str], set[str]]] = {
    "errors": (set(), set()),
    "temporary": (set(), set()),
    "files": (set(), {"yaml"}),
    "typed": (set(), set()),
    "arrays": (set(), set()),
    "processes": (set(), set()),
    "progress": (set(), {"tqdm"}),
    "texts": (set(), set()),
    "device": (set(), {"torch"}),
    "resources": (set(), set()),
    "writing": (set(), set()),
    "batches": (set(), {"torch"}),
    "chunking": ({"batches"}, {"torch"}),
    "ctc": ({"batches"}, {"torch", "triton"}),
    "labels": ({"ctc"}, {"sentencepiece"}),
    "frontend": (set(), BASE | {"soundfile", "soxr", "kaldi_native_fbank", "sounddevice"}),
    "network": ({"batches", "chunking", "labels", "ctc"}, {"torch", "triton"}),
    "losses": ({"batches", "ctc", "chunking"}, {"torch"}),
    "checkpoints": (
        {"chunking", "network", "frontend"},
        BASE | {"safetensors", "transformers", "huggingface_hub"},
    ),
    "corpus": ({"labels", "frontend", "chunking", "writing"}, BASE | {"sentencepiece", "yaml", "tqdm", "pyarrow"}),
    "units": (
        {"checkpoints", "frontend", "corpus"},
        BASE | {"safetensors", "tqdm", "sklearn", "threadpoolctl", "transformers", "fairseq", "omegaconf"},
    ),
    "vocoder": ({"checkpoints", "frontend", "corpus"}, BASE | {"safetensors", "soundfile", "tensorboard"}),
    "inference": (_SYSTEM | {"writing"}, BASE | {"sentencepiece", "safetensors", "yaml", "tqdm"}),
    "metrics": ({"writing"}, {"sacrebleu"}),
    "training": ({"resources"}, {"fairseq", "fairseq_cli"}),
    "agents": ({"inference"}, BASE | {"simuleval", "simulstream"}),
    "serving": ({"inference", "frontend"}, BASE | {"starlette", "uvicorn", "websockets"}),
    "recognisers": (
        {"inference", "ctc", "checkpoints", "frontend", "labels", "chunking"},
        BASE | {"safetensors", "tqdm", "faster_whisper", "transformers"},
    ),
    "evaluation": (
        {"inference", "metrics", "recognisers", "corpus", "frontend", "chunking", "vocoder", "writing"},
        BASE | {"sacrebleu", "jinja2", "markupsafe", "matplotlib", "yaml", "tqdm"},
    ),
    "benchmarks": (
        _SYSTEM | {"losses", "inference", "metrics", "resources", "serving"},
        BASE | {"fairseq", "tqdm", "soundfile", "websockets"},
    ),
}
_BELOW_FAIRSEQ = {"batches", "chunking", "ctc", "labels", "network", "losses", "frontend", "corpus", "checkpoints"}
for _room in ("models", "criterions", "tasks"):
    ROOMS[_room] = (
        _BELOW_FAIRSEQ | {"models", "criterions", "tasks", "metrics", "inference"},
        BASE | {"fairseq", "omegaconf", "sacrebleu", "sentencepiece", "tqdm", "yaml"},
    )
#: Rooms of the table that are not built yet.
PLANNED: set[str] = set()


def room_files(room: str) -> list[Path]:
    """Python files of a room: a module of its own, or a folder."""
    module = PACKAGE / f"{room}.py"
    return [module] if module.exists() else sorted((PACKAGE / room).rglob("*.py"))


def imports(source: str, module: str) -> set[str]:
    """Absolute names that a module imports anywhere in it, in functions and for type checkers too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*module.split(".")[: -node.level], *filter(None, [base])])
            # `from nast_s2x import data` imports a room as much as `from nast_s2x.data import x`.
            names |= {f"{base}.{alias.name}" if base == "nast_s2x" else base for alias in node.names}
    return names


def violations(room: str, names: set[str]) -> list[str]:
    """Imported names that the table does not allow to the room."""
    rooms, libraries = ROOMS[room]
    wrong = []
    for name in sorted(names):
        top, _, rest = name.partition(".")
        if top == "nast_s2x":
            target = rest.split(".")[0]
            allowed = target in rooms | GROUND or target in {room, "__version__", ""}
        else:
            allowed = top in libraries or top == "numpy" or top in sys.stdlib_module_names
        if not allowed:
            wrong.append(name)
    return wrong


def runtime_imports(path: Path, top_level_only: bool) -> set[str]:
    """Modules of this package that a module imports when it runs: not those for type checkers alone."""

    def walk(nodes: list[ast.stmt]) -> Iterator[ast.stmt]:
        for node in nodes:
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                continue
            yield node
            if not (top_level_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
                for name in ("body", "orelse", "finalbody", "handlers"):
                    yield from walk(getattr(node, name, []))

    found = set()
    for node in walk(ast.parse(path.read_text("utf-8")).body):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.startswith("nast_s2x.")}


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """Names on a circle of a graph, empty if it has none."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        for other in sorted(graph.get(name, ())):
            if found := visit(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := visit(name, []))), [])


def test_no_circle_of_modules() -> None:
    """Modules whose bodies import each other."""
    files = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }
    graph = {
        name: {other for other in runtime_imports(path, top_level_only=True) if other in files and other != name}
        for name, path in files.items()
    }
    assert not find_cycle(graph)
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"] and not find_cycle({"a": {"b"}, "b": set()})


def test_no_circle_of_rooms() -> None:
    """Rooms that import each other, imports inside functions included; the plugin's three folders count as one."""
    plugin = {"models": "plugin", "criterions": "plugin", "tasks": "plugin"}
    graph: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        names = {name.split(".")[1] for name in runtime_imports(path, top_level_only=False)}
        room = plugin.get(room, room)
        graph.setdefault(room, set()).update({plugin.get(name, name) for name in names} - {room})
    assert not find_cycle(graph)


@pytest.mark.parametrize("room", sorted(ROOMS.keys() - PLANNED))
def test_room_imports_only_what_is_below(room: str) -> None:
    wrong = {}
    for file in room_files(room):
        module = "nast_s2x." + ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        found = violations(room, imports(file.read_text("utf-8"), module))
        if found:
            wrong[str(file.relative_to(PACKAGE))] = found
    assert not wrong


def test_every_room_has_a_line_in_the_table() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and list(path.glob("*.py"))}
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert folders | modules <= {*ROOMS, "cli"}


def test_the_check_sees_all_kinds_of_imports() -> None:
    source = "import fairseq.data\ndef f():\n    from ..cli import main\n    from nast_s2x import tasks\nimport os\n"
    names = imports(source, "nast_s2x.corpus.audio_ref")
    assert names == {"fairseq.data", "nast_s2x.cli", "nast_s2x.tasks", "os"}
    assert violations("corpus", names) == ["fairseq.data", "nast_s2x.cli", "nast_s2x.tasks"]


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, timeout=120, check=False
    )


def test_package_import_is_light_and_silent() -> None:
    result = run_python("import sys, nast_s2x; print(*sorted({name.split('.')[0] for name in sys.modules}))")
    assert result.returncode == 0 and result.stderr == ""
    assert not {"torch", "numpy", "fairseq", "simuleval", "argparse"} & set(result.stdout.split())


def test_inference_needs_neither_fairseq_nor_simuleval() -> None:
    rooms = (
        "chunking",
        "ctc",
        "labels",
        "network",
        "losses",
        "frontend",
        "checkpoints",
        "corpus",
        "inference",
        "vocoder",
    )
    modules = [
        ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for room in rooms
        for file in room_files(room)
    ]
    # None in sys.modules makes an import of that name fail, as if it were not installed.
    code = (
        "import sys, importlib\n"
        "for name in ('fairseq', 'simuleval', 'sacrebleu', 'omegaconf', 'torchaudio'): sys.modules[name] = None\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
    )
    result = run_python(code)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
