"""Run commands on generated hostile files, and keep those that end in anything but a clear error.

    .venv/bin/python scripts/fuzz.py --cases 2000 --seed 7 --output /tmp/fuzz

Every kind of file that a command reads is damaged, given other types and sizes, or made to run code; see
tests/hostile_stage.py for the list. A case passes if the file is accepted, or refused with exit status 1 or 2 and one
line that names it, in bounded time and memory, and if nothing is started or changed outside the output folder. The file
of a failed case, its command and its messages are kept in OUTPUT/failures; --replay OUTPUT/failures runs them again.
Linux and macOS only: each case is a forked process.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from hostile_cases import Case, draw, load_commands, run_case, stored  # noqa: E402
from hostile_stage import built, targets  # noqa: E402


def main() -> int:
    """Run the cases and print the counts; returns 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000, metavar="N", help="number of files (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the first case (default: 0)")
    parser.add_argument("--kind", help="only files of this kind, such as checkpoint")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the files and failures")
    parser.add_argument("--replay", type=Path, metavar="DIR", help="run the cases that are kept in this folder")
    args = parser.parse_args()
    chosen = [target for target in targets() if args.kind in (None, target.kind)]
    if not chosen:
        parser.error(f"no kind {args.kind!r}; kinds are {', '.join(sorted({target.kind for target in targets()}))}")
    load_commands()
    stage = args.output / "stage"
    if not stage.is_dir():
        built(stage)
    cases = stored(args.replay, chosen) if args.replay else draw(stage, chosen, args.cases, args.seed)
    counts: Counter[tuple[str, str]] = Counter()
    slowest = largest = 0.0
    for case in tqdm(cases, total=None if args.replay else args.cases, unit="case"):
        outcome = run_case(stage, args.output / "case", case)
        verdict = "failed" if outcome.problem else "accepted" if outcome.is_accepted else "refused"
        counts[case.target.kind, verdict] += 1
        slowest, largest = max(slowest, outcome.seconds), max(largest, outcome.peak)
        if outcome.problem:
            tqdm.write(f"{case.name}: {case.target.file}: {case.command}\n    {outcome.problem}")
            _keep(args.output / "failures" / case.name, case, outcome.error)
    _table(counts)
    failed = sum(number for (_, verdict), number in counts.items() if verdict == "failed")
    print(
        f"{sum(counts.values())} cases, {failed} failed; the longest took {slowest:.1f} s, the largest {largest:.0f} MB"
    )
    return 1 if failed else 0


def _keep(folder: Path, case: Case, error: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "content").write_bytes(case.content)
    (folder / "stderr").write_text(error)
    (folder / "case.json").write_text(json.dumps({"file": case.target.file, "command": case.command}) + "\n")


def _table(counts: Counter[tuple[str, str]]) -> None:
    kinds = sorted({kind for kind, _ in counts})
    print(f"{'kind':<24}{'refused':>9}{'accepted':>10}{'failed':>8}")
    for kind in kinds:
        refused, accepted, failed = (counts[kind, verdict] for verdict in ("refused", "accepted", "failed"))
        print(f"{kind:<24}{refused:>9}{accepted:>10}{failed:>8}")


if __name__ == "__main__":
    sys.exit(main())
