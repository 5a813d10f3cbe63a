"""A corpus for a person's eyes: rows as text for a terminal, and as one page with text and picture side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...eval.cards import card
from ...eval.page import html_report
from ...eval.sections import Card, Examples, Line, Section, Table
from ...tasks import TASKS
from . import corpus
from .columns import STATUSES, Filters

#: So many examples and pictures are shown on a page by default; a picture weighs some 10 KB there.
EXAMPLES, PICTURES = 40, 60
#: Characters of a text that are shown.
_TEXT = 1_200


def text(row: Mapping[str, Any]) -> str:
    """A row for a terminal: what was asked, what came back, what became of it."""
    asked = f"{row['id']}  {row['prompt']}" + (f" about {row['about']}" if row["about"] else "")
    said = row["text"].strip() or row["detail"] or "(nothing)"
    return f"--- {asked}  #{row['sample']}\n{_cut(said)}\n    {outcome(row)}"


def outcome(row: Mapping[str, Any]) -> str:
    """What became of a row and what was measured, in a line."""
    said = [row["status"] + (f": {row['reason']} ({row['detail']})" if row["reason"] else "")]
    if row["grounded"]:
        said.append(f"grounded: {row['grounded'].replace('_', ' ')}")
    said += [f"{name} {row[name]:.2f}" for name in ("agreement", "vote") if row[name] is not None]
    if row["answer_changed"] is not None:
        delta = "" if row["image_delta"] is None else f" ({row['image_delta']:+.2f})"
        said.append(("another answer" if row["answer_changed"] else "the same answer") + f" without the picture{delta}")
    marks = {"hinted": row["hinted"], "repaired": row["repaired"]}
    said += [mark for mark, there in marks.items() if there]
    said += [f"{name.replace('_', ' ')} {row[name]}" for name in ("duplicate_of", "image_duplicate_of") if row[name]]
    return " · ".join(said)


def page(
    folder: Path,
    file: Path,
    examples: Iterable[Any] = (),
    *,
    status: str | None = None,
    prompt: str | None = None,
    filters: Filters | None = None,
    limit: int = EXAMPLES,
    pictures: int = PICTURES,
) -> dict[str, int]:
    """Write one HTML page that needs nothing else: each example with its pictures, its gold and what was said of it.

    Args:
        examples: those that were asked, as the reader gives them: a corpus holds their ids, not their texts and
            pictures. Rows of others are shown without.
        status, prompt, filters: of which rows.
        limit, pictures: at most so many examples and (small) pictures; the page says what is left out.

    Returns:
        ``examples`` and ``pictures`` shown, ``examples_left_out``, ``pictures_left_out``, ``without_source``.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    left_out: set[str] = set()
    for row in corpus.rows(folder, status, prompt, filters):
        if row["id"] in groups or len(groups) < limit:
            groups.setdefault(row["id"], []).append(row)
        else:
            left_out.add(row["id"])
    sources = {example.id: example for example in examples if example.id in groups}
    counts = {"examples": len(groups), "pictures": 0, "examples_left_out": len(left_out), "pictures_left_out": 0,
              "without_source": len(groups.keys() - sources.keys())}  # fmt: skip
    cards = [_card(id, rows, sources.get(id), counts, pictures) for id, rows in groups.items()]
    sections: list[Section] = [_summary(folder), Examples("Rows", tuple(cards), _note(counts))]
    markup = html_report(f"The corpus {Path(folder).name}", sections)
    corpus.write_atomically(Path(file), lambda path: path.write_text(markup, encoding="utf-8"))
    return counts


def _card(id: str, rows: Sequence[Mapping[str, Any]], example: Any, counts: dict[str, int], most: int) -> Card:
    """One example with everything that was said of it. Counts its pictures, and leaves out those over the limit."""
    task = TASKS.get(rows[0]["task"])
    shown = card(task.key, example, {}) if task and example is not None else Card(id, ())
    lines = list(shown.lines)
    if task and example is not None and (not lines or lines[0].label != "text"):
        lines.insert(0, Line("text", example.text))
    for row in rows:
        lines += _lines(row, task, example)
    kept = shown.images[: max(0, most - counts["pictures"])]
    counts["pictures"] += len(kept)
    counts["pictures_left_out"] += len(shown.images) - len(kept)
    return Card(id, tuple(lines), kept)


def _lines(row: Mapping[str, Any], task: Any, example: Any) -> list[Line]:
    """What was said, as the parsed answer where there is one, judged against gold; and what became of it."""
    mode = row["prompt"].rpartition("/")[2]
    who = f"{mode} #{row['sample']}" + (f" ({row['about']})" if row["about"] else "")
    if task and example is not None and row["answer"]:
        answer = task.Answer.model_validate_json(row["answer"])
        first = card(task.key, example, {who: answer}).lines[-1]
    else:
        first = Line(who, _cut(row["text"].strip()) or "(nothing)")
    return [first, Line("", outcome(row))]


def _summary(folder: Path) -> Table:
    counts = corpus.stats(folder)
    rows = [(name, *(f"{of.get(s, 0):,}" for s in STATUSES)) for name, of in counts["prompts"].items()]
    note = f"{counts['rows']:,} rows on {counts['examples']:,} examples."
    if counts["agreement"] is not None:
        note += f" Mean agreement of the parsed answers with gold: {counts['agreement']:.2f}."
    return Table("Counts", ("prompt", *STATUSES), tuple(rows), note)


def _note(counts: Mapping[str, int]) -> str:
    said = [f"{counts['examples']:,} examples and {counts['pictures']:,} pictures are shown"]
    said += [
        f"{counts[name]:,} {words}"
        for name, words in (
            ("examples_left_out", "more examples are left out"),
            ("pictures_left_out", "more pictures are left out"),
            ("without_source", "examples are shown without text and pictures: the data was not given, or lacks them"),
        )
        if counts[name]
    ]
    return "; ".join(said) + ". A tick or a cross says whether an answer is what gold says."


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT else f"{text[:_TEXT]} ... ({len(text) - _TEXT:,} characters more)"
