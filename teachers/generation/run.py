"""From names to a corpus: what `magister generate` does with a data set, a teacher's spec and template names.

The names (`call`) are kept in the corpus folder, so that `retry` and `verify` need the folder alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...prompts.library import find, full_name
from ...tasks import TASKS, readers
from ...tasks.candidates import shortlist
from ...tasks.dataset import Dataset
from ...tasks.known import KnownAnswers
from ...tasks.task import DataFault
from .. import spec
from ..describe import Describer
from ..knowledge import corpus
from ..knowledge.audit import Audit, audit
from ..ledger.row import Row
from ..teacher import Reply, Request, Teacher
from .budget import Budget, dollars
from .call import Call, command, stored, stored_settings
from .collect import Progress
from .generate import FAILURES, Summary, generate
from .plan import Describe
from .run_folder import DESCRIPTIONS

#: Seconds between two lines of progress where there is no terminal.
EVERY = 10.0
#: Tasks whose teachers choose among candidates.
CHOOSING = ("completion", "alignment", "linking")
#: So many training examples are demonstrations to choose from where each needs candidates, which take time to draw.
SHOWN_OF = 2_000


def corpus_from(
    task: str,
    data: str,
    teacher: str,
    prompts: Sequence[str],
    out: Path,
    *,
    describe: Describe | None = None,
    say: Callable[[str], None] = print,
    dry_run: bool = False,
    retry_failed: bool = False,
    resume: bool = True,
    limits: dict[str, Any] | None = None,
    workers: int = 0,
    **options: Any,
) -> Summary:
    """Read the data, make the teacher, ask, verify, write the corpus.

    Demonstrations, where a template shows some, come out of the training split.

    Args:
        describe: puts pictures into words for a teacher that cannot see, in place of a describer that keeps them in
            ``out``.
        limits: of an endpoint: ``concurrency``, ``rpm``, ``tpm``.
        workers: so many ask, over Ray; 0: this process does.
        options: the other fields of a `Call`.
    """
    dataset = _read(task, data, say)
    engine = spec.teacher(teacher, **(limits or {}))
    # An engine's own spec holds no credentials; the one that was typed may.
    # Templates by their full names: a newer version of one must not change what a folder's run means.
    named = tuple(find(full_name(name, task)).name for name in prompts)
    call = Call(task=task, data=data, teacher=engine.spec, prompts=named, **options, **(limits or {}))
    run: dict[str, Any] = {"dry_run": dry_run, "retry_failed": retry_failed, "resume": resume}
    if workers:
        from .ray_data import scaled

        run["asking"] = scaled(teacher, limits or {}, workers, engine)
    return _run(call, dataset, engine, Path(out), say, describe, **run)


def retry(folder: Path, reasons: Collection[str], say: Callable[[str], None] = print, **changes: Any) -> Summary:
    """Ask again for the rows that ended with one of these reasons (`generate.REASONS`), by the run's own settings.

    An answer that was paid for is only replaced by a better one or by a later one of its kind (see `Ledger.row`). The
    very same is asked, seed and all: what is said about answers that came whole is that they may come again.

    Args:
        changes: fields of the `Call` that are to be others, ``max_tokens`` above all.

    Raises:
        DataFault: there is no such reason, or the folder does not say how it was made.
    """
    if not reasons:
        raise DataFault("retry", "no reason is given", "name those that are to be asked again")
    call, dataset = _again(folder, say, **changes)
    raised = changes.get("max_tokens") is not None
    if same := [reason for reason in reasons if reason not in FAILURES and not (raised and reason == "length")]:
        say(f"{', '.join(same)}: the same words are asked with the same seed, so the answers may be the same; "
            "a higher --max-tokens helps what ended with length, another --seed and folder the others")  # fmt: skip
    return _run(call, dataset, spec.teacher(call.teacher, **call.limits), Path(folder), say, only=tuple(reasons))


def verify(folder: Path, say: Callable[[str], None] = print, **changes: Any) -> Summary:
    """Parse and verify every reply of the ledger again, and build the corpus anew; nothing is asked.

    Args:
        changes: ``min_agreement``, ``require_grounded``.

    Raises:
        DataFault: the folder does not say how it was made, or its ledger answers other questions.
    """
    call, dataset = _again(folder, say, **changes)
    return _run(call, dataset, _Recorded(call.teacher, stored_settings(folder)), Path(folder), say, only=())


class _Recorded:
    """The teacher that a folder's answers are of, as its settings describe it: it renders the same questions, but
    answers none."""

    def __init__(self, spec: str, settings: dict[str, Any]) -> None:
        self.spec, self._identity = spec, settings["teacher"]
        self.sees_images = settings["pictures"] == "seen"

    def identity(self) -> dict[str, Any]:
        return dict(self._identity)

    def generate(self, requests: Iterable[Request]) -> Iterator[Reply]:
        return iter(())

    def close(self) -> None:
        pass


def _read(task: str, data: str, say: Callable[[str], None]) -> Dataset:
    """The data set, its refused rows said."""
    dataset = readers.read(data)
    if dataset.task != task:
        raise DataFault(data, f"is data for {dataset.task}, not for {task}")
    for line in dataset.refused():
        say(line)
    return dataset


def _again(folder: Path, say: Callable[[str], None], **changes: Any) -> tuple[Call, Dataset]:
    """The call of a corpus folder, changed, and its data."""
    call = stored(folder).model_copy(update=changes)
    try:
        return call, _read(call.task, call.data, say)
    except DataFault as fault:
        remedy = fault.remedy or "a path is seen from where you are: go to where the generate command was run"
        raise DataFault(fault.where, fault.problem, remedy) from None


def sources(folder: Path, say: Callable[[str], None] = print) -> tuple[Call, Dataset, Sequence[Any], Sequence[Any]]:
    """What a corpus folder was made of, read again: its call, the data, the examples asked and the demonstrations.

    Raises:
        DataFault: the folder does not say how it was made, or the data are gone.
    """
    call, dataset = _again(folder, say)
    examples, demonstrations, _ = _material(call, dataset, say)
    return call, dataset, examples, demonstrations


def audited(folder: Path, say: Callable[[str], None] = print) -> Audit:
    """Audit a corpus folder for leaked gold, against the data it was made of (see `audit.audit`)."""
    call, dataset, examples, demonstrations = sources(folder, say)
    return audit(corpus.rows(folder), TASKS[call.task], examples, dataset.schema, demonstrations, call.shots)


def _run(
    call: Call,
    dataset: Dataset,
    engine: Teacher,
    out: Path,
    say: Callable[[str], None],
    describe: Describe | None = None,
    **options: Any,
) -> Summary:
    try:
        examples, demonstrations, notes = _material(call, dataset, say)
        if not engine.sees_images:
            describe = describe or Describer(out / DESCRIPTIONS).describe
        return generate(
            TASKS[call.task],
            examples,
            dataset.schema,
            engine,
            call.prompts,
            out,
            demonstrations=demonstrations,
            describe=describe,
            progress=progress(say, call.budget),
            say=say,
            command=command(call, out),
            call=call.model_dump(mode="json"),
            notes=notes,
            known=KnownAnswers(dataset.graphs[0]).ids(examples) if call.task == "completion" else None,
            **{name: getattr(call, name) for name in _PASSED_ON},
            **options,
        )
    finally:
        engine.close()


def _material(
    call: Call, dataset: Dataset, say: Callable[[str], None]
) -> tuple[list[Any], Sequence[Any], dict[str, int]]:
    """The examples to ask, those out of which some are shown worked, and counted remarks."""
    examples = [example for name in call.split.split(",") for example in dataset.split(name)][: call.limit]
    demonstrations: Sequence[Any] = ()
    if any("demonstrations" in find(full_name(name, call.task)).takes for name in call.prompts):
        demonstrations = dataset.split("train")
    notes = {"rows_of_the_data_refused": len(dataset.faults)} if dataset.faults else {}
    if call.task in CHOOSING:
        examples, more = _with_candidates(dataset, examples, call, say)
        demonstrations, notes = _worked(dataset, demonstrations, call, say), notes | more
    return examples, demonstrations, notes


_PASSED_ON = (
    "samples", "temperature", "seed", "max_tokens", "shots", "min_agreement", "require_grounded", "probe", "budget",
    "license",
)  # fmt: skip


def _with_candidates(
    dataset: Dataset, examples: list[Any], call: Call, say: Callable[[str], None] | None = None
) -> tuple[list[Any], dict[str, int]]:
    """The examples with candidates for those that have none, and counted remarks, which are said."""
    if all(example.candidates for example in examples):
        return examples, {}
    chosen, notes = shortlist(dataset, examples, call.candidates, call.seed)
    if say is not None:
        counts = ", ".join(f"{name.replace('_', ' ')} {number:,}" for name, number in notes.items() if name != "recall")
        say(f"candidates, {call.candidates} an example: {counts}, recall {notes['recall']:.3f}")
    remarks = {
        "examples_without_a_mention_to_link": notes["without_mention"],
        "examples_whose_answer_is_not_among_their_candidates": notes["with_gold"] - notes["gold_among_candidates"],
        "candidates_drawn_at_random": notes.get("filled", 0),
    }
    return list(chosen), {remark: int(number) for remark, number in remarks.items() if number}


def _worked(dataset: Dataset, demonstrations: Sequence[Any], call: Call, say: Callable[[str], None]) -> Sequence[Any]:
    """Demonstrations with candidates, of which the answer is one: another could not be shown worked."""
    if not demonstrations:
        return ()
    drawn, _ = _with_candidates(dataset, list(demonstrations[:SHOWN_OF]), call)
    worked = [e for e in drawn if e.candidates and e.gold and e.gold.best in (None, *(c.id for c in e.candidates))]
    say(
        f"demonstrations: {len(worked):,} out of the first {len(drawn):,} of {len(demonstrations):,} training examples;"
        " the others' answers are not among their candidates"
    )
    return worked


def progress(say: Callable[[str], None], budget: Budget = Budget()) -> Progress:  # noqa: B008 - immutable
    """A line of progress every few seconds: how far, how fast tokens come, and what they cost where that is known."""
    started = last = time.monotonic()
    read = written = 0

    def line(done: int, total: int, row: Row) -> None:
        nonlocal last, read, written
        read += row.usage.prompt_tokens
        written += row.usage.completion_tokens
        now = time.monotonic()
        if now - last >= EVERY or done == total:
            last = now
            usd = budget.cost(read, written)
            said = f"{done:,} of {total:,} answers, {written / max(now - started, 1e-9):.0f} tokens/s"
            say(said + ("" if usd is None else f", {dollars(usd)} in this run"))

    return line
