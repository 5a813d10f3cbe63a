"""The knowledge corpus: a folder that `datasets.load_dataset`, pyarrow and a reader's eyes can open.

``data/`` holds every row, kept or not, in Parquet (`shards`, `columns`), and ``README.md`` says what they are (`card`).
Nothing is thrown away: what a student reads is chosen by `texts`, and why a row is not among it stands in its columns
``status`` and ``reason``.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...prompts.parse import Fault, parse_rationale
from ...tasks.task import DataFault
from ..ledger import jsonl
from . import shards
from .card import Card
from .card import render as render_card
from .columns import COLUMNS, NAMES, STATUSES, Filters
from .shards import write_atomically
from .verify import weight

__all__ = ["COLUMNS", "STATUSES", "Card", "Filters", "build", "import_texts", "rows", "stats", "texts",
           "write_atomically"]  # fmt: skip

CARD = Path("README.md")

#: Templates whose texts make new examples and are not knowledge about their own: `texts` reads them only by
#: name.
AUGMENTATIONS = ("rationale.style", "rationale.entity", "rationale.image")

#: So many rows are shown in the card, each of another prompt, and so many are looked at to find them.
_SHOWN, _LOOKED_AT = 3, 2_000
#: What `stats` has no need of.
_LONG = ("text", "reasoning", "answer", "evidence", "detail", "images", "key", "digest", "teacher_digest", "time")


def build(
    folder: Path, rows: Iterable[Mapping[str, Any]], card: Card, shard_bytes: int = shards.SHARD_BYTES
) -> dict[str, Any]:
    """Write a corpus folder; each file appears whole or not at all. Returns its `stats`.

    Args:
        rows: one mapping a row; a column that is left out is null (``weight`` follows from status and vote), an
            unknown one is an error.
        shard_bytes: a Parquet file is closed once it is larger.
    """
    folder = Path(folder)
    weighed = (row if "weight" in row else {**row, "weight": weight(row["status"], row.get("vote"))} for row in rows)
    shards.write(folder, weighed, shard_bytes)
    counts = stats(folder)
    text = render_card(card, counts, COLUMNS, shards.PATTERN, _sample(folder))
    write_atomically(folder / CARD, lambda path: path.write_text(text, encoding="utf-8"))
    return counts


def rows(
    folder: Path, status: str | None = None, prompt: str | None = None, filters: Filters | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of a corpus in their order, of one status or one template if asked, and such as `Filters` want.

    Raises:
        DataFault: the folder is no corpus, or has no such template.
    """
    if status is not None and status not in STATUSES:
        raise DataFault(str(folder), f"no status {status!r}", f"there are: {', '.join(STATUSES)}")
    found = prompt is None
    for row in shards.read(folder):
        named = prompt is None or _is_named(row["prompt"], prompt)
        found = found or named
        if named and status in (None, row["status"]) and not (filters and filters.leaves_out(row)):
            yield row
    if not found:
        there = ", ".join(stats(folder)["prompts"]) or "none"
        raise DataFault(str(folder), f"no rows of the prompt {prompt!r}", f"there are: {there}")


def stats(folder: Path, filters: Filters | None = None) -> dict[str, Any]:
    """Counts of a corpus, or of those of its rows that `Filters` want.

    ``rows``; ``examples`` (distinct ids); rows by ``status``; ``quarantined`` and ``failed`` by reason;
    ``prompts``, each by status; ``grounded`` by where; ``marked``: how many rows are ``hinted``, ``repaired``,
    ``duplicate_of`` or ``image_duplicate_of`` another, and how many were probed (``answer_changed`` says something)
    and ``changed_without_image``; ``repaired``; ``prompt_tokens``, ``completion_tokens``; means of ``agreement`` and
    ``image_delta`` over the rows that have one; with filters, rows ``left_out`` by flag.
    """
    left_out: Counter[str] = Counter()
    status: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {"quarantined": Counter(), "failed": Counter()}
    prompts: dict[str, Counter[str]] = {}
    grounded: Counter[str] = Counter()
    ids: set[str] = set()
    sums: Counter[str] = Counter()
    means: dict[str, list[float]] = {"agreement": [], "image_delta": []}
    for row in shards.read(folder, [name for name in NAMES if name not in _LONG]):
        if filters and (flag := filters.leaves_out(row)):
            left_out[flag] += 1
            continue
        status[row["status"]] += 1
        prompts.setdefault(row["prompt"], Counter())[row["status"]] += 1
        if row["reason"] is not None:
            reasons[row["status"]][row["reason"]] += 1
        grounded.update([row["grounded"]] if row["grounded"] else [])
        ids.add(row["id"])
        for name in ("hinted", "repaired", "duplicate_of", "image_duplicate_of"):
            sums[name] += bool(row[name])
        sums["probed"] += row["answer_changed"] is not None
        sums["changed_without_image"] += bool(row["answer_changed"])
        for name in ("prompt_tokens", "completion_tokens"):
            sums[name] += row[name] or 0
        for name, values in means.items():
            values += [] if row[name] is None else [row[name]]
    tokens = {name: sums.pop(name, 0) for name in ("prompt_tokens", "completion_tokens")}
    return {
        "rows": status.total(),
        "examples": len(ids),
        "status": {name: status[name] for name in STATUSES},
        "quarantined": dict(reasons["quarantined"].most_common()),
        "failed": dict(reasons["failed"].most_common()),
        "prompts": {name: dict(counter) for name, counter in prompts.items()},
        "grounded": dict(grounded.most_common()),
        "marked": {name: number for name, number in sums.items() if number},
        "repaired": sums["repaired"],
        **tokens,
        **{name: sum(values) / len(values) if values else None for name, values in means.items()},
        **({"left_out": dict(left_out.most_common())} if filters else {}),
    }


def _sample(folder: Path) -> list[dict[str, Any]]:
    """Some kept rows, each of another prompt."""
    shown: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(shards.read(folder)):
        if len(shown) == _SHOWN or number == _LOOKED_AT:
            break
        if row["status"] == "kept":
            shown.setdefault(row["prompt"], row)
    return list(shown.values())


def texts(path: Path, prompt: str | Sequence[str] | None = None, filters: Filters | None = None) -> dict[str, str]:
    """What a student reads: example id to knowledge text.

    A corpus folder gives its kept rows. Without ``prompt`` these are the ones in free text (rationales,
    imported knowledge) but for the `AUGMENTATIONS`; with it, those of the prompts named, in that order. Of
    several samples the one with the highest vote is read, else the first. The texts of several prompts are
    joined by a line end.

    A ``.jsonl`` or ``.jsonl.gz`` file gives its lines, read as `import_texts` reads them. Here a line that
    cannot be read is refused; lines that contradict another or hold no knowledge are left out with a warning.

    Free text is read in its clean form (`parse_rationale`).

    Args:
        prompt: full names (``ner/rationale.noun.v1``), or shorter ones (``rationale.noun``).
        filters: which of a corpus's kept rows are read; all of them if it is left out.

    Raises:
        DataFault: nothing can be read from there, or no kept row answers to ``prompt``.
    """
    path = Path(path)
    if not path.is_dir():
        if prompt is not None or filters is not None:
            raise DataFault(str(path), "a file of texts has no prompts to choose from", "leave prompt and filters out")
        return _texts_of_file(path)
    wanted = [prompt] if isinstance(prompt, str) else prompt
    chosen: dict[str, dict[tuple[str, str], tuple[float, str]]] = {}
    for row in rows(path, status="kept", filters=filters):
        if not _is_knowledge(row) if wanted is None else _place(row["prompt"], wanted) is None:
            continue
        of_example = chosen.setdefault(row["id"], {})
        question, vote = (row["prompt"], row["about"] or ""), row["vote"] or 0.0
        if question not in of_example or vote > of_example[question][0]:
            of_example[question] = (vote, row["text"])
    there = {name for of_example in chosen.values() for name, _ in of_example}
    missing = [name for name in wanted or () if not any(_is_named(full, name) for full in there)]
    if missing or not chosen:
        known = stats(path)["prompts"]
        said = ", ".join(f"{name} ({counts.get('kept', 0)} kept)" for name, counts in known.items()) or "none"
        what = f"of the prompt {missing[0]!r}" if missing else "of knowledge in free text"
        raise DataFault(str(path), f"no kept row {what}", f"choose out of its prompts: {said}")
    return {example: _joined(of_example, wanted) for example, of_example in chosen.items()}


def _is_named(full: str, name: str) -> bool:
    """Whether a name, with or without task and version, means the full one (``ner/zero_shot.v1``)."""
    mode = full.rpartition("/")[2]
    return name in (full, mode, full.rpartition(".v")[0], mode.rpartition(".v")[0])


def _place(full: str, wanted: Sequence[str]) -> int | None:
    return next((i for i, name in enumerate(wanted) if _is_named(full, name)), None)


def _is_knowledge(row: Mapping[str, Any]) -> bool:
    mode = row["prompt"].rpartition("/")[2]
    return row["answer"] is None and not mode.startswith(AUGMENTATIONS)


def _joined(of_example: Mapping[tuple[str, str], tuple[float, str]], wanted: Sequence[str] | None) -> str:
    """The texts of one example, in the order of the prompts wanted, else in the corpus's."""
    questions = list(of_example)
    if wanted is not None:
        questions.sort(key=lambda question: _place(question[0], wanted) or 0)
    return "\n".join(_readable(of_example[question][1]) for question in questions)


def import_texts(
    file: Path,
    out: Path,
    id_field: str | None = None,
    text_field: str | None = None,
    name: str = "knowledge",
    task: str = "",
    license: str = "",
) -> jsonl.Texts:
    """Make a corpus folder of knowledge that is there already, in JSON lines with an id and a text.

    Texts without knowledge in them (blank ones, refusals) become quarantined rows. Lines that cannot be read,
    repeat or contradict another become no row; they are in what is returned, and counted in the card.

    Args:
        id_field, text_field: see `jsonl.read`.
        name: stands in the column ``prompt``.

    Raises:
        DataFault: no line can be read, or ``out`` is in use.
    """
    file, out = Path(file), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataFault(str(out), "is in use", "choose another folder, or empty this one yourself")
    found = jsonl.read(file, id_field, text_field)
    rows = []
    for example, text in found.texts.items():
        row = {"id": example, "task": task, "prompt": name, "sample": 0, "text": text, "status": "kept"}
        row |= {"repaired": False, "teacher": f"import:{file.name}"}
        parsed = parse_rationale(text)
        if isinstance(parsed, Fault):
            row |= {"status": "quarantined", "reason": parsed.name, "detail": parsed.detail}
        rows.append(row)
    notes = {"repeated": found.repeated, "contradicted": found.contradicted, "unreadable": len(found.faults)}
    card = Card(
        name=name,
        source=f"Existing knowledge, imported from the {found.lines:,} lines of `{file.name}`.",
        license=license,
        notes={f"lines_{what}": number for what, number in notes.items() if number},
    )
    build(out, rows, card)
    return found


def answers(path: Path, prompt: str | Sequence[str] | None = None) -> dict[str, Any]:
    """What a student may take for gold: example id to the teacher's answer, as plain JSON.

    Kept rows alone, without those whose prompt showed the gold. Of several answers to an example the one with the
    highest vote counts, else the first. A `DataFault` if there is none.
    """
    wanted = [prompt] if isinstance(prompt, str) else prompt
    chosen: dict[str, tuple[float, Any]] = {}
    for row in rows(path, status="kept", filters=Filters(unhinted=True)):
        if row["answer"] is None or (wanted is not None and _place(row["prompt"], wanted) is None):
            continue
        vote = row["vote"] or 0.0
        if row["id"] not in chosen or vote > chosen[row["id"]][0]:
            chosen[row["id"]] = vote, json.loads(row["answer"])
    if not chosen:
        raise DataFault(str(path), "holds no kept answers", "generate with zero_shot, few_shot or an extract prompt")
    return {name: answer for name, (_, answer) in chosen.items()}


def _texts_of_file(file: Path) -> dict[str, str]:
    found = jsonl.read(file)
    if found.faults:
        raise DataFault(
            str(file),
            f"{len(found.faults):,} of {found.lines:,} lines cannot be read, the first: {found.faults[0]}",
            "mend them, or import the file into a corpus, which leaves them out and counts them",
        )
    parsed = {example: parse_rationale(text) for example, text in found.texts.items()}
    useless = sum(isinstance(said, Fault) for said in parsed.values())
    if found.contradicted or useless:
        said = f"{found.contradicted:,} lines contradict an earlier one (the first is read), "
        said += f"{useless:,} texts are blank, refusals or loops and left out"
        warnings.warn(f"{file}: {said}", stacklevel=3)
    return {example: said.answer for example, said in parsed.items() if not isinstance(said, Fault)}


def _readable(text: str) -> str:
    """Free text in its clean form; anything else, such as an answer in JSON, without blanks around it."""
    parsed = parse_rationale(text)
    return text.strip() if isinstance(parsed, Fault) else parsed.answer
