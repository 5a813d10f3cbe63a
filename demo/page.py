"""What the demo says and shows: one line a step for the terminal, and the sections of its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ..distill.judge import Judgement
from ..eval import attributes, report
from ..eval.sections import Bar, Bars, Examples, Section, Table, Text
from ..teachers.knowledge import corpus

TOY = (
    "A toy: 62 posts to learn from, 12 to be judged on, and its settings were chosen with these 12 in sight, so the "
    "figures are optimistic. docs/results.md has real ones."
)

#: Shown in full in the report.
POSTS, PRODUCTS, EXPLANATIONS, QUARANTINED = 12, 6, 10, 6


def counted(stats: Mapping[str, Any]) -> str:
    """A corpus in a line: kept, quarantined and failed by reason, agreement with gold."""
    status = stats["status"]
    said = f"{stats['rows']} rows: {status['kept']} kept"
    for name in ("quarantined", "failed"):
        reasons = ", ".join(f"{reason} {n}" for reason, n in stats[name].items())
        said += f", {status[name]} {name}" + (f" ({reasons})" if reasons else "")
    if stats["agreement"] is not None:
        said += f"; mean agreement of the parsed answers with gold {stats['agreement']:.2f}"
    return said


def in_short(judged: Judgement) -> str:
    """A system's F1 in a line."""
    counts = {name: n for name, n in {**judged.scores.counts, **judged.counts}.items() if name == "unparseable" and n}
    lost = f", {counts['unparseable']} answers could not be parsed" if counts else ""
    return f"F1 {report.percent(judged.scores.metrics['f1'])} on {len(judged.examples)} test examples{lost}"


def extractions(judged: Judgement, number: int) -> list[str]:
    """The first answers beside gold, one line each."""
    lines = []
    for example, answer in islice(zip(judged.examples, judged.answers, strict=True), number):
        said = _values(answer) if answer else "no answer that could be parsed"
        lines += [f"{example.text}", f"  said: {said}", f"  gold: {_values(example.gold)}"]
    return lines


def sections(
    corpora: Sequence[Path],
    written: Path,
    students: Mapping[str, Judgement],
    teacher: Judgement,
    extracted: Judgement,
    commands: Sequence[str],
    about: Mapping[str, Any],
) -> list[Section]:
    """The report.

    Args:
        corpora: what the teacher was asked; the first is the knowledge that students read.
        written: the hand-written knowledge.
        students: judged on the test posts, by what they read.
        teacher, extracted: the teacher judged on the test posts and products.
        commands: what to type to have it step by step.
        about: ``teacher`` and ``seconds``.
    """
    systems = {f"student: {name}": judged for name, judged in students.items()}
    systems[f"teacher: {teacher.variant}"] = teacher
    return [
        Text("What this is", _ABOUT.format(**about)),
        _corpora(corpora),
        _quarantined(corpora),
        _knowledge(corpora[0], written, students),
        *_scores(systems),
        _posts(students),
        _products(extracted),
        *report.score_sections(extracted.scores, "Extraction"),
        Text("The commands", "\n".join(commands), code=True),
    ]


_ABOUT = """\
A small teacher ({teacher}) was asked about the posts and products of Magister's sampler. Its answers were checked and \
kept as a corpus. The same compact student was then trained three times on the same posts: on the text alone, with the \
teacher's knowledge read beside the text, and with knowledge that we wrote by hand. At last the teacher extracted \
attributes from products it had seen no examples of. All of it took {seconds:.0f} seconds on this machine, offline.

The hand-written knowledge stands in for a strong teacher. It was written by those who wrote the posts and their gold, \
so it shows what good knowledge may be worth at best. The posts, the products and the pictures are our own (CC0).

The students learned from 62 posts and were judged on 12. That is a toy: so few posts hardly teach a student to use \
what it reads beside them, and differences within the intervals mean nothing. The posts, the students' settings and \
the extraction's template were chosen with these test examples in sight: the figures are optimistic. Figures on public \
data are in docs/results.md."""


def _corpora(corpora: Sequence[Path]) -> Table:
    rows = []
    for folder in corpora:
        stats = corpus.stats(folder)
        agreement = "" if stats["agreement"] is None else f"{stats['agreement']:.2f}"
        counts = (str(stats["status"][status]) for status in corpus.STATUSES)
        rows.append((", ".join(stats["prompts"]), *counts, agreement))
    note = "Agreement: of the parsed answers with gold, 1 is an exact match."
    return Table(
        "What the teacher said, and what was kept", ("prompt", *corpus.STATUSES, "agreement"), tuple(rows), note
    )


def _quarantined(corpora: Sequence[Path]) -> Table:
    rows = [row for folder in corpora for row in corpus.rows(folder, status="quarantined")]
    cells = tuple((r["id"], r["reason"], r["detail"] or "", _short(r["text"])) for r in rows[:QUARANTINED])
    note = f"{len(cells)} of {len(rows)}. They stay in the corpus with their reasons; no student reads them."
    return Table("Some of what was not kept", ("example", "reason", "in words", "answer"), cells, note)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 120 else text[:117] + "..."


def _knowledge(folder: Path, written: Path, students: Mapping[str, Judgement]) -> Table:
    said, by_hand = corpus.texts(folder), corpus.texts(written)
    examples = next(iter(students.values())).examples[:EXPLANATIONS]
    rows = tuple((e.text, said.get(e.id, "(quarantined)"), by_hand.get(e.id, "")) for e in examples)
    note = "Explanations of test posts. The teacher's are often wrong; students read them as they are."
    return Table("Knowledge", ("post", "the teacher's", "hand-written"), rows, note)


def _scores(systems: Mapping[str, Judgement]) -> list[Section]:
    bars = tuple(
        Bar(name, *judged.scores.metrics["f1"], group="teacher" if name.startswith("teacher") else "student")
        for name, judged in systems.items()
    )
    rows = tuple(
        (
            name, *(report.percent(judged.scores.metrics[metric]) for metric in ("f1", "boundary_f1")),
            f"{judged.seconds:.0f}",
        )
        for name, judged in systems.items()
    )  # fmt: skip
    header = ("", "F1", "boundary F1", "seconds")
    note = f"{TOY} Seconds: of training a student, of the teacher's answers."
    return [
        Bars("Names in the test posts: F1", bars, "Per cent, with percentile bootstrap 95 % intervals over posts."),
        Table("The same in figures", header, rows, note),
    ]


def _posts(students: Mapping[str, Judgement]) -> Examples:
    answers = {name: judged.answers for name, judged in students.items()}
    examples = next(iter(students.values())).examples[:POSTS]
    cards = [report.card("ner", e, {n: of[i] for n, of in answers.items()}) for i, e in enumerate(examples)]
    return Examples("The test posts", tuple(cards))


def _products(extracted: Judgement) -> Examples:
    pairs = islice(zip(extracted.examples, extracted.answers, strict=True), PRODUCTS)
    cards = tuple(report.card("attributes", e, {"teacher": answer}) for e, answer in pairs)
    note = f"The first {PRODUCTS}. Over all: {in_short(extracted)}."
    return Examples("Zero-shot extraction from products", cards, note)


def _values(answer: Any) -> str:
    return "; ".join(f"{name}: {' / '.join(attributes.values(answer, name)) or '–'}" for name in answer.values)
