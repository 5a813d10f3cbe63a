"""The records of all runs in ``docs/results/``, and the page ``docs/results.md`` rendered from them.

By data set: a table, learning curves, claims, commands. ``DATASET.md`` beside the records, where there is one, is
printed under that data set's table: what a reader must know to compare its figures. ``claims.json`` in the folder is a
list of `Claim`: it names the differences that are claimed, with their aims; whether they hold is computed from the
records.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, FiniteFloat

from ..tasks.record import Record
from . import markdown
from .bootstrap import over_seeds
from .record import (
    Measure,
    RecordFault,
    ResultRecord,
    Text,
    load_json,
    measures,
    read,
    slug,
    validated,
    write,
)
from .score import PRIMARY

__all__ = [
    "Claim",
    "Measure",
    "RecordFault",
    "ResultRecord",
    "measures",
    "read",
    "read_all",
    "read_claims",
    "render",
    "slug",
    "write",
]

#: The file beside the records that names the claims.
CLAIMS = "claims.json"

#: The runs of one row: same system, variant, training size, backbone and protocol; they differ in their seed.
Runs = tuple[ResultRecord, ...]

_HEAD = """# Results

Rendered by `magister report` from the records in `docs/results/`; do not edit. All figures are per cent.
"mean ± sd" is over training seeds (sample standard deviation). The interval is the 95 % percentile bootstrap
over test examples; with several seeds, the mean of their ends. Seconds are the mean wall clock of a run.
"""


class Claim(Record):
    """A claimed difference: on one data set, ``variant`` over ``over`` by at least ``aim`` (a fraction).

    ``over_system`` is the system of ``over`` where it is another one, for example a floor.
    """

    dataset: Text
    system: Text
    variant: Text
    over: Text
    metric: Text
    aim: Annotated[FiniteFloat, Field(ge=-1, le=1)]
    over_system: str = ""


def read_all(folder: str | Path) -> tuple[ResultRecord, ...]:
    """All records of a folder, sorted by run; a `RecordFault` if two are of the same run."""
    folder = Path(folder)
    if not folder.is_dir():
        raise RecordFault(str(folder), "there is no such folder", "run something that leaves a record first")
    records = [read(path) for path in sorted(folder.glob("*.json")) if path.name != CLAIMS]
    first: dict[tuple[Any, ...], ResultRecord] = {}
    for record in records:
        other = first.setdefault(record.run, record)
        if other is not record:
            problem = f"the same task, data set, system, variant, training size and seed as {other.name}.json"
            raise RecordFault(str(folder / f"{record.name}.json"), problem, "remove one of the two")
    return tuple(sorted(records, key=lambda record: record.run))


def read_claims(folder: str | Path) -> tuple[Claim, ...]:
    """The claims of a folder, in the file's order; none if it has no ``claims.json``."""
    path = Path(folder) / CLAIMS
    if not path.is_file():
        return ()
    data = load_json(path)
    if not isinstance(data, list):
        raise RecordFault(str(path), "not a list of claims")
    return tuple(validated(Claim, path, item, f"claim {i + 1}: ") for i, item in enumerate(data))


def render(folder: str | Path) -> str:
    """The page ``docs/results.md`` of a folder of records; the same records give the same page.

    A `RecordFault` names the first record or claim that cannot be used.
    """
    records, claims = read_all(folder), read_claims(folder)
    parts = [_HEAD]
    for (task, dataset), group in groupby(records, key=lambda r: (r.task, r.dataset)):
        rows = _rows(tuple(group))
        full = _full_size(rows)
        mine = [claim for claim in claims if claim.dataset == dataset]
        sections = [f"## {markdown.escape(dataset)} ({task})\n", _table(full, task), _note(Path(folder), dataset)]
        sections += [_curve(rows, task)]
        sections += [_claims(mine, full), _protocols(full), _commands(rows)]
        parts += filter(None, sections)
    if strays := sorted({c.dataset for c in claims} - {r.dataset for r in records}):
        parts.append(f"Claims on data sets without a record yet: {', '.join(strays)}.\n")
    return "\n".join(parts)


def _rows(records: Runs) -> list[Runs]:
    """Records by row, each sorted by seed."""
    key = lambda r: (r.system, r.variant, r.examples.get("train", 0), r.backbone, r.protocol)
    return [tuple(group) for _, group in groupby(sorted(records, key=lambda r: (*key(r), r.seed)), key=key)]


def _full_size(rows: Sequence[Runs]) -> list[Runs]:
    """The rows at each (system, variant)'s largest training size; smaller ones are for its learning curve."""
    largest: dict[tuple[str, str], int] = {}
    for run, *_ in rows:
        key = run.system, run.variant
        largest[key] = max(largest.get(key, 0), run.examples.get("train", 0))
    return [row for row in rows if row[0].examples.get("train", 0) == largest[row[0].system, row[0].variant]]


def _note(folder: Path, dataset: str) -> str:
    """What is to be known of a data set's figures, as written in ``DATASET.md``; nothing if there is no such file."""
    path = folder / f"{slug(dataset)}.md"
    return path.read_text(encoding="utf-8").strip() + "\n" if path.is_file() else ""


def _table(rows: Sequence[Runs], task: str) -> str:
    """One line a row; the primary metric with its spread and interval, then the other metrics."""
    named = dict.fromkeys(name for row in rows for r in row for name in r.metrics)
    others = [name for name in named if name != PRIMARY[task]]
    header = ["system", "variant", "backbone", "train", "test", "seeds", f"**{PRIMARY[task]}**", "95 %"]
    header += [*others, "seconds", "revision"]
    body = []
    for row in rows:
        first = row[0]
        cells = [first.system, first.variant, first.backbone, _size(first, "train"), _size(first, "test")]
        cells += [", ".join(str(r.seed) for r in row), f"**{_spread(row, PRIMARY[task])}**", _interval(row)]
        cells += [_spread(row, name) for name in others]
        cells += [f"{over_seeds([r.seconds for r in row]).mean:,.0f}"]
        body.append([*cells, ", ".join(dict.fromkeys(r.revision[:12] for r in row))])
    return markdown.table(header, body)


def _curve(rows: Sequence[Runs], task: str) -> str:
    """Learning curves: the primary metric by training size, for what was run at several sizes."""
    lines: dict[tuple[str, str], dict[int, Runs]] = {}
    for row in rows:
        lines.setdefault((row[0].system, row[0].variant), {})[row[0].examples.get("train", 0)] = row
    lines = {key: line for key, line in lines.items() if len(line) > 1}
    if not lines:
        return ""
    sizes = sorted({size for line in lines.values() for size in line})
    header = ["system", "variant", *(f"{size:,}" for size in sizes)]
    body = [
        [*key, *(_spread(line[size], PRIMARY[task]) if size in line else "–" for size in sizes)]
        for key, line in lines.items()
    ]
    return f"### Learning curves: {PRIMARY[task]} by training examples\n\n" + markdown.table(header, body)


def _claims(claims: Sequence[Claim], rows: Sequence[Runs]) -> str:
    """Each claim against the records: differences of the seeds that both variants have."""
    if not claims:
        return ""
    header = ["claim", "metric", "aim", "mean difference ± sd", "by seed", "outcome"]
    body = []
    for claim in claims:
        over = (claim.over_system or claim.system, claim.over)
        title = f"{claim.system}: {claim.variant} over {' '.join(over) if claim.over_system else claim.over}"
        body.append([title, claim.metric, f"{100 * claim.aim:+.1f}", *_outcome(claim, over, rows)])
    return "### Claims: paired differences by seed\n\n" + markdown.table(header, body)


def _outcome(claim: Claim, over: tuple[str, str], rows: Sequence[Runs]) -> tuple[str, str, str]:
    """Mean difference, differences by seed, and whether the aim is met (or why that cannot be said)."""
    runs = [r for row in rows for r in row if claim.metric in r.metrics]
    ours, theirs = (
        {r.seed: r for r in runs if (r.system, r.variant) == named} for named in ((claim.system, claim.variant), over)
    )
    if not (ours and theirs):
        return "–", "–", "not run yet"
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return "–", "–", "no seed in common"
    if any(ours[seed].protocol != theirs[seed].protocol for seed in seeds):
        return "–", "–", "not comparable: two protocols"
    pairs = [(ours[seed].metrics[claim.metric], theirs[seed].metrics[claim.metric]) for seed in seeds]
    differences = [a.value - b.value for a, b in pairs]
    spread = over_seeds(differences)
    by_seed = ", ".join(f"{seed}: {100 * d:+.2f}" for seed, d in zip(seeds, differences, strict=True))
    met = "met" if spread.mean >= claim.aim - 1e-9 else "not met"
    return f"{100 * spread.mean:+.2f} ± {100 * spread.sd:.2f} (n = {spread.n})", by_seed, met


def _protocols(rows: Sequence[Runs]) -> str:
    """Each protocol once, with what it judged where there are several."""
    protocols: dict[str, list[str]] = {}
    for run, *_ in rows:
        protocols.setdefault(run.protocol, []).append(f"{run.system} / {run.variant}")
    if len(protocols) == 1:
        return f"Protocol: {markdown.escape(next(iter(protocols)))}\n"
    return "\n".join(
        f"Protocol of {markdown.escape(', '.join(who))}: {markdown.escape(what)}\n" for what, who in protocols.items()
    )


def _commands(rows: Sequence[Runs]) -> str:
    """How to have each row again: its command, date, counts and notes."""
    lines = ["<details><summary>Commands, dates, counts and notes</summary>\n"]
    for row in rows:
        first = row[0]
        size = f", {_size(first, 'train')} training examples" if first.examples.get("train") else ""
        lines.append(f"- {markdown.escape(first.system)} / {markdown.escape(first.variant)}{size}")
        for run in row:
            counts = ", ".join(f"{name} {count:,}" for name, count in sorted(run.counts.items()))
            remarks = "; ".join(filter(None, [run.date, counts, run.notes]))
            lines.append(f"  - {markdown.code(run.command)} ({markdown.escape(remarks)})")
    return "\n".join([*lines, "\n</details>\n"])


def _size(record: ResultRecord, split: str) -> str:
    return f"{record.examples[split]:,}" if split in record.examples else "–"


def _spread(runs: Runs, metric: str) -> str:
    """``mean ± sd`` in per cent; without the sd for one seed; a dash where a run lacks the metric."""
    if any(metric not in r.metrics for r in runs):
        return "–"
    spread = over_seeds([r.metrics[metric].value for r in runs])
    return f"{100 * spread.mean:.2f}" + (f" ± {100 * spread.sd:.2f}" if spread.n > 1 else "")


def _interval(runs: Runs) -> str:
    low, high = (
        over_seeds([r.primary.low for r in runs]).mean,
        over_seeds([r.primary.high for r in runs]).mean,
    )
    return f"{100 * low:.1f} – {100 * high:.1f}"
