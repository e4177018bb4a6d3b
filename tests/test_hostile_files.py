"""Hostile files through every command that reads them; scripts/fuzz.py runs as many as one likes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="needs the extra units")
pytest.importorskip("pyarrow", reason="needs the extra data")
pytest.importorskip("matplotlib", reason="needs the extra evaluate")
pytest.importorskip("fairseq", reason="needs the extra train")

from hostile_cases import Case, draw, load_commands, run_case
from hostile_runs import CANARY, OUTPUT, clear, run_command
from hostile_stage import built, good, targets

TARGETS = list(targets())
KINDS = sorted({target.kind for target in TARGETS})
SLOW_CASES = 1200


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    load_commands()
    return built(tmp_path_factory.mktemp("hostile") / "stage")


def check(stage: Path, folder: Path, cases: Iterator[Case]) -> None:
    """Run the cases and list those that failed."""
    failed = []
    for case in cases:
        outcome = run_case(stage, folder, case)
        if outcome.problem:
            failed.append(f"{case.name} {case.target.file}: {case.command}: {outcome.problem}")
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_used_or_refused(stage: Path, tmp_path: Path, kind: str) -> None:
    """One case of each file: accepted, or refused in one line that names it; nothing executed or touched."""
    chosen = [target for target in TARGETS if target.kind == kind]
    check(stage, tmp_path / "case", draw(stage, chosen, len(chosen), seed=len(chosen) * 1000))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_files(stage: Path, tmp_path: Path) -> None:
    check(stage, tmp_path / "case", draw(stage, TARGETS, SLOW_CASES, seed=0))


@pytest.mark.parametrize("some", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["some", "all"])
def test_good_files_are_accepted(stage: Path, tmp_path: Path, some: bool) -> None:
    """Otherwise a refusal would show nothing."""
    refused = []
    for target in {target.kind: target for target in TARGETS}.values() if some else TARGETS:
        outcome = run_case(stage, tmp_path / "case", Case("good", target, good(stage, target), target.commands[0]))
        if not outcome.is_accepted or outcome.problem:
            refused.append(f"{target.file}: {target.commands[0]}: {outcome.status} {outcome.problem} {outcome.error}")
    assert not refused, "\n".join(refused)


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (f"open('{OUTPUT}/{CANARY}', 'w').close()", "code was executed"),
        ("import os; os.system('true')", "touched: os.system"),
        ("open('elsewhere', 'w')", "touched: open"),
        ("raise KeyError('x')", "status 70"),
        ("x = bytearray(20 << 30)", "status 70: MemoryError"),
        ("import os; os.abort()", "status -6"),
        ("raise NastError('something is wrong')", "the message names none of"),
        ("import sys; print('error: one\\nerror: bad.json', file=sys.stderr); sys.exit(1)", "more than one line"),
        ("raise NastError('bad.json is wrong')", ""),
        ("pass", ""),
    ],
)
def test_what_counts_as_a_failure(tmp_path: Path, code: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judgement itself: a command that does each of these."""
    import nast_s2x.cli.doctor
    from nast_s2x.errors import NastError

    def run(args: object) -> int:
        exec(code, {"NastError": NastError})
        return 0

    monkeypatch.setattr(nast_s2x.cli.doctor, "run", run)
    clear(tmp_path / "case")
    (tmp_path / "case" / OUTPUT).mkdir()
    outcome = run_command(["doctor"], tmp_path / "case", ["bad.json"])
    assert outcome.problem.startswith(problem) and bool(outcome.problem) == bool(problem), outcome


def test_cases_follow_from_their_seed(stage: Path) -> None:
    first, again = (list(draw(stage, TARGETS, 5, seed=40)) for _ in range(2))
    assert first == again and len({case.content for case in first}) == 5
