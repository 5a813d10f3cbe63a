"""The knowledge corpus: a folder that `datasets.load_dataset`, pyarrow and a reader's eyes can open.

``data/train.parquet`` holds every row, kept or not, and ``README.md`` says what they are. Nothing is thrown
away: what a student reads is chosen by `texts`, and why a row is not among it stands in its columns
``status`` and ``reason``.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ..prompts.parse import Fault, parse_rationale
from ..tasks.task import DataFault
from . import jsonl
from .card import Card
from .card import render as render_card

#: The columns: name, Arrow type, what it holds.
COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("id", "string", "the example's id"),
    ("task", "string", "the task's key"),
    ("prompt", "string", "the template's name with version"),
    (
        "about",
        "string",
        "the entity or attribute that the question was about; null where it was about the whole example",
    ),
    ("digest", "string", "SHA-256 of the template file"),
    ("sample", "int32", "number of the sample, from 0"),
    ("text", "string", "the teacher's answer as it was said"),
    (
        "answer",
        "string",
        "the parsed answer as JSON, or null where the answer is free text or cannot be parsed",
    ),
    ("status", "string", "kept, quarantined (answered, but not knowledge) or failed (no answer)"),
    ("reason", "string", "why it is not kept, out of a closed set; null for a kept row"),
    ("detail", "string", "the reason in words"),
    ("agreement", "float", "agreement with the gold answer, 0 to 1; null without gold or answer"),
    ("grounded", "bool", "whether every value was found in the source; null where there is nothing to check"),
    (
        "vote",
        "float",
        "share of the example's samples with the same answer; null with one sample or no answer",
    ),
    ("repaired", "bool", "whether the parser had to repair the form of the answer"),
    ("teacher", "string", "the teacher's spec"),
    ("key", "string", "the request's key in the ledger; null where nothing could be asked"),
    ("prompt_tokens", "int32", "tokens read, as the engine counts them"),
    ("completion_tokens", "int32", "tokens written"),
)
STATUSES = ("kept", "quarantined", "failed")
DATA = Path("data") / "train.parquet"
CARD = Path("README.md")

#: Templates whose texts make new examples and are not knowledge about their own: `texts` reads them only by
#: name.
AUGMENTATIONS = ("rationale.style", "rationale.entity", "rationale.image")

_BATCH = 2_000


def build(folder: Path, rows: Iterable[Mapping[str, Any]], card: Card) -> dict[str, Any]:
    """Write a corpus folder; each file appears whole or not at all. Returns its `stats`.

    Args:
        rows: one mapping a row; a column that is left out is null, an unknown one is an error.
    """
    arrow, parquet = _pyarrow()
    folder = Path(folder)
    schema = arrow.schema([arrow.field(name, _arrow_type(arrow, kind)) for name, kind, _ in COLUMNS])
    known = set(schema.names)
    rows = iter(rows)

    def write(path: Path) -> None:
        with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
            while batch := list(islice(rows, _BATCH)):
                for row in batch:
                    if unknown := row.keys() - known:
                        raise ValueError(f"unknown columns of a corpus row: {', '.join(sorted(unknown))}")
                    status, reason = row["status"], row.get("reason")
                    if status not in STATUSES or (status == "kept") != (reason is None):
                        raise ValueError(f"row {row['id']}: status {status} with the reason {reason}")
                writer.write_table(arrow.Table.from_pylist([_clean(r) for r in batch], schema=schema))

    write_atomically(folder / DATA, write)
    counts = stats(folder)
    text = render_card(card, counts, COLUMNS, DATA.as_posix())
    write_atomically(folder / CARD, lambda path: path.write_text(text, encoding="utf-8"))
    return counts


def rows(folder: Path, status: str | None = None, prompt: str | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a corpus in their order, of one status or one template if asked.

    Raises:
        DataFault: the folder is no corpus, or has no such template.
    """
    _, parquet = _pyarrow()
    if status is not None and status not in STATUSES:
        raise DataFault(str(folder), f"no status {status!r}", f"there are: {', '.join(STATUSES)}")
    with _open(folder, parquet) as file:
        found = prompt is None
        for batch in file.iter_batches(_BATCH):
            for row in batch.to_pylist():
                named = prompt is None or _is_named(row["prompt"], prompt)
                found = found or named
                if named and status in (None, row["status"]):
                    yield row
    if not found:
        there = ", ".join(stats(folder)["prompts"]) or "none"
        raise DataFault(str(folder), f"no rows of the prompt {prompt!r}", f"there are: {there}")


def stats(folder: Path) -> dict[str, Any]:
    """Counts of a corpus.

    ``rows``; ``examples`` (distinct ids); rows by ``status``; ``quarantined`` and ``failed`` by reason;
    ``prompts``, each by status; ``repaired``; ``prompt_tokens``, ``completion_tokens``; mean ``agreement`` of
    the rows that have one.
    """
    _, parquet = _pyarrow()
    status: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {"quarantined": Counter(), "failed": Counter()}
    prompts: dict[str, Counter[str]] = {}
    ids: set[str] = set()
    sums: Counter[str] = Counter()
    agreements: list[float] = []
    columns = [name for name, *_ in COLUMNS if name not in ("text", "answer", "detail", "key", "digest")]
    with _open(folder, parquet) as file:
        for batch in file.iter_batches(_BATCH, columns=columns):
            for row in batch.to_pylist():
                status[row["status"]] += 1
                prompts.setdefault(row["prompt"], Counter())[row["status"]] += 1
                if row["reason"] is not None:
                    reasons[row["status"]][row["reason"]] += 1
                ids.add(row["id"])
                sums["repaired"] += bool(row["repaired"])
                for name in ("prompt_tokens", "completion_tokens"):
                    sums[name] += row[name] or 0
                if row["agreement"] is not None:
                    agreements.append(row["agreement"])
    return {
        "rows": status.total(),
        "examples": len(ids),
        "status": {name: status[name] for name in STATUSES},
        "quarantined": dict(reasons["quarantined"].most_common()),
        "failed": dict(reasons["failed"].most_common()),
        "prompts": {name: dict(counter) for name, counter in prompts.items()},
        "repaired": sums["repaired"],
        "prompt_tokens": sums["prompt_tokens"],
        "completion_tokens": sums["completion_tokens"],
        "agreement": sum(agreements) / len(agreements) if agreements else None,
    }


def texts(path: Path, prompt: str | Sequence[str] | None = None) -> dict[str, str]:
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

    Raises:
        DataFault: nothing can be read from there, or no kept row answers to ``prompt``.
    """
    path = Path(path)
    if not path.is_dir():
        if prompt is not None:
            raise DataFault(str(path), "a file of texts has no prompts to choose from", "leave the prompt out")
        return _texts_of_file(path)
    wanted = [prompt] if isinstance(prompt, str) else prompt
    chosen: dict[str, dict[tuple[str, str], tuple[float, str]]] = {}
    for row in rows(path, status="kept"):
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


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ImportError(
            "a corpus needs pyarrow, which comes with the train extra: pip install 'magister[train]'"
        ) from None
    return pyarrow, pyarrow.parquet


def _arrow_type(arrow: Any, kind: str) -> Any:
    kinds = {"string": arrow.string, "int32": arrow.int32, "float": arrow.float32, "bool": arrow.bool_}
    return kinds[kind]()


def _clean(row: Mapping[str, Any]) -> dict[str, Any]:
    """Half characters (lone surrogates) cannot be stored as UTF-8; they become the replacement character."""
    return {
        name: value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else value
        for name, value in row.items()
    }


def _open(folder: Path, parquet: Any) -> Any:
    path = Path(folder) / DATA
    if not path.is_file():
        raise DataFault(str(folder), f"is no corpus: it has no {DATA}", "make one with generate or corpus import")
    try:
        file = parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise DataFault(str(path), f"cannot be read: {error}", "build it again from its ledger") from None
    if missing := {name for name, *_ in COLUMNS} - set(file.schema_arrow.names):
        file.close()
        raise DataFault(str(path), f"is no corpus: the columns {', '.join(sorted(missing))} are missing")
    return file


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Write beside the place, then move: a reader sees the old file or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(beside)
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        problem = f"could not be written ({error.strerror or error}); what was there before is whole"
        raise OSError(error.errno, problem, str(path)) from error
    finally:
        beside.unlink(missing_ok=True)
