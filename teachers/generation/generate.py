"""A teacher's knowledge of a data set: examples and templates in, a corpus folder out, nothing paid for twice.

Every request is rendered and keyed (`plan`), what the ledger already holds is left out, the rest is asked as far as the
budget goes (`collect`), each reply is on the disk before it counts, and the corpus is built from the ledger (`rows`).
Whatever stops a run, the same command goes on where it stopped.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ...prompts.library import Template, find, full_name
from ...prompts.questions import WORDINGS
from ...tasks.task import DataFault, Task
from ..knowledge import corpus
from ..knowledge.probe import without_image
from ..ledger.ledger import Ledger
from ..ledger.merge import merge
from ..teacher import Request, Teacher
from .budget import Budget, Meter, resumed
from .collect import Collect, Collected, Interrupted, Progress, Stopped, collect
from .plan import Describe, Item, Sampling, asking_order, plan
from .rows import FAILURES, REASONS, Rows
from .run_folder import CALL, LEDGER, PARTS, SETTINGS, check_folder, check_run, digest
from .summary import Summary, spoken

__all__ = ["FAILURES", "REASONS", "Interrupted", "Stopped", "Summary", "generate"]


def generate(
    task: Task,
    examples: Sequence[Any],
    schema: Any,
    teacher: Teacher,
    prompts: Sequence[str],
    out: Path,
    *,
    samples: int = 1,
    limit: int | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    max_tokens: int | None = None,
    demonstrations: Sequence[Any] = (),
    shots: int = 6,
    min_agreement: float | None = None,
    require_grounded: bool = True,
    probe: bool = False,
    budget: Budget = Budget(),  # noqa: B008 - immutable
    resume: bool = True,
    retry_failed: bool = False,
    only: Collection[str] | None = None,
    describe: Describe | None = None,
    asking: Collect = collect,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    dry_run: bool = False,
    call: Mapping[str, Any] | None = None,
    command: str = "",
    license: str = "",
    notes: Mapping[str, int] | None = None,
    known: Mapping[str, frozenset[str]] | None = None,
) -> Summary:
    """Ask a teacher every template about every example, and build the corpus in ``out``.

    Args:
        examples: of one split, in order, each id once.
        prompts: templates by name: ``ner/zero_shot``, or only ``zero_shot``.
        out: the corpus folder; more examples, templates or samples of the same run may be added to it later.
        samples: answers a question; several need a temperature above 0, or templates with several wordings.
        limit: only the first so many examples.
        max_tokens: instead of the templates' own limits; raising it asks again only what met the limit.
        demonstrations: training examples out of which the ``shots`` most similar are shown with each
            question.
        min_agreement, require_grounded: what is kept, see `verify.verdict`; can be changed without asking
            again.
        probe: ask every question with a picture once more without it, see `probe`.
        budget: what all runs into this folder may spend.
        resume: False refuses a folder that already holds replies.
        retry_failed: ask again what failed before; failures are settled otherwise.
        only: ask only for rows that ended with one of these `REASONS` before; none at all asks nothing: the corpus is
            built again from the ledger.
        describe: puts pictures into words for a teacher that cannot see; without it they are left out, and
            counted.
        asking: how what waits is asked: by this process, or by several workers (`scale.Scaled`).
        say: told of the estimate, before the first call.
        dry_run: render, count and estimate everything; ask nothing and write nothing.
        call: kept in the folder, so that the run can be called again by it alone.
        command, license: for the corpus's card. notes: more remarks for it.
        known: of `completion`, other right answers by example id, which an answer is not blamed for.

    Raises:
        DataFault: it cannot be run like this, or ``out`` belongs to another run; says what differs.
        LedgerFault: the folder is in use by another process, or the disk is full.
        Interrupted: Ctrl-C.
        Stopped: the engine broke down.
    """
    out, examples = Path(out), list(islice(examples, limit))
    templates = [find(full_name(name, task.key)) for name in prompts]
    _check(task, examples, templates, samples, temperature, demonstrations)
    _check_reasons(only)
    budget.check()
    check_folder(out)
    sampling = Sampling(samples, temperature, seed, max_tokens)

    def planned(
        examples: Sequence[Any], templates: Sequence[Template], blind: bool = False
    ) -> tuple[list[Item], dict[str, int]]:
        return plan(task, examples, schema, teacher, templates, sampling, demonstrations, shots, describe, blind=blind)

    items, remarks = planned(examples, templates)
    blind = _blind(items, examples, templates, planned) if probe else {}
    everything = [*items, *blind.values()]
    requests = asking_order(everything)
    remarks = dict(notes or {}) | remarks | ({"probes_without_the_picture": len(blind)} if probe else {})
    identity = dict(teacher.identity())
    settings: dict[str, Any] = {
        "task": task.key,
        "teacher": identity,
        "schema": digest(schema.model_dump_json()),
        "temperature": temperature,
        "seed": seed,
        "demonstrations": {"shots": shots, "ids": digest(*(e.id for e in demonstrations))} if demonstrations else None,
        "pictures": "seen" if teacher.sees_images else "described" if describe else "left out",
        "prompts": {template.name: template.digest for template in templates},
        "samples": samples,
        "examples": {"count": len(examples), "ids": digest(*(e.id for e in examples))},
    }
    rows = Rows(
        task, examples, schema, teacher.spec, identity, min_agreement, require_grounded, blind=blind, known=known
    )
    if dry_run and not (out / LEDGER).exists():
        return _dry(items, remarks, requests, requests, Meter(budget, teacher))
    with Ledger(out / LEDGER) as ledger:
        merged = merge(ledger, sorted((out / PARTS).glob("*.jsonl")))  # a run by several workers was killed
        check_run(out, settings, examples, resume or not len(ledger))
        waiting = {r.key: r for r in _waiting(rows, everything, ledger, requests, retry_failed, only)}
        if only is not None and len(ledger) and not any(request.key in ledger for request in requests):
            raise DataFault(str(out), "its ledger answers other questions", "were the data or their pictures changed?")
        if only is not None:
            rows.left.update(_never_asked(out, items))
        meter = resumed(budget, teacher, ledger, requests)
        remarks |= merged.remarks() | _remarks(ledger, everything, requests, waiting)
        if dry_run:
            return _dry(items, remarks, requests, list(waiting.values()), meter, ledger)
        kept = settings if call is None else {**settings, CALL: dict(call)}
        corpus.write_atomically(out / SETTINGS, lambda path: path.write_text(json.dumps(kept, indent=2)))
        if say is not None and waiting:
            say(f"to ask: {meter.estimate(waiting.values())}; spent so far: {meter}")
        done = asking(ledger, teacher, waiting, len(requests), meter, progress) if waiting else Collected()
        rows.left.update(done.left)
        remarks |= Counter(getattr(teacher, "notes", {})) + done.notes
        remarks |= {"answers_whose_tokens_were_estimated": done.uncounted} if done.uncounted else {}
        to_come = sum(r.key not in ledger and rows.left.get(r.key, "pending") == "pending" for r in requests)
        remarks |= {"replies_still_to_come": to_come} if to_come else {}
        card = _card(rows, settings, meter, command, license, remarks)
        corpus.build(out, rows.make(items, ledger), card)
    return _summary(items, requests, waiting, rows, done, meter, remarks)


def _card(
    rows: Rows, settings: Mapping[str, Any], meter: Meter, command: str, license: str, remarks: Mapping[str, int]
) -> corpus.Card:
    return corpus.Card(
        name=f"{rows.task.title.capitalize()}: a teacher's knowledge",
        source=f"Answers of the teacher `{rows.spec}`, made and verified with Magister.",
        templates=settings["prompts"],
        settings=settings,
        filters={"min_agreement": rows.min_agreement, "require_grounded": rows.require_grounded},
        cost=meter.usd,
        command=command,
        license=license,
        notes=remarks,
    )


def _summary(
    items: Sequence[Item],
    requests: Sequence[Request],
    waiting: Mapping[str, Request],
    rows: Rows,
    done: Collected,
    meter: Meter,
    remarks: dict[str, int],
) -> Summary:
    return Summary(
        asked=len(items),
        kept=rows.tally["kept", ""],
        quarantined={reason: n for (status, reason), n in rows.tally.items() if status == "quarantined"},
        failed={reason: n for (status, reason), n in rows.tally.items() if status == "failed"},
        pending=rows.tally["pending", ""],
        to_ask=len(waiting),
        replies=done.replies,
        resumed=len(requests) - len(waiting),
        prompt_tokens=done.prompt_tokens,
        completion_tokens=done.completion_tokens,
        cached_tokens=done.cached_tokens,
        seconds=done.seconds,
        spent=str(meter),
        notes=remarks,
    )


def _blind(
    items: Sequence[Item],
    examples: Sequence[Any],
    templates: Sequence[Template],
    planned: Callable[[Sequence[Any], Sequence[Template], bool], tuple[list[Item], dict[str, int]]],
) -> dict[int, Item]:
    """An item's place to the same question without the picture, for answers that can be compared."""
    bare = [example for e in examples if (example := without_image(e)) is not None]
    compared = [template for template in templates if template.front.output != "text"]
    if not bare or not compared:
        return {}

    def question(item: Item) -> tuple[Any, ...]:
        return item.example.id, item.template.name, item.about, item.sample

    without = {question(item): item for item in planned(bare, compared, True)[0] if item.request is not None}
    return {n: without[question(i)] for n, i in enumerate(items) if i.request is not None and question(i) in without}


def _never_asked(out: Path, items: Sequence[Item]) -> dict[str, str]:
    """Why requests of the corpus that is there have no reply (`over_budget`, `no_reply`), by key.

    Raises:
        DataFault: a kept row's question cannot be asked any more, since its data or picture have changed.
    """
    if not (out / corpus.CARD).exists():
        return {}
    asked = {item.request.key for item in items if item.request is not None}
    left = {}
    for row in corpus.rows(out, status=None):
        if row["reason"] in ("over_budget", "no_reply"):
            left[row["key"]] = row["reason"]
        elif row["status"] == "kept" and row["key"] not in asked:
            problem = f"the question of its kept row for example {row['id']} ({row['prompt']}) cannot be asked any more"
            raise DataFault(str(out), problem, "put its text and picture back as they were; nothing was changed here")
    return left


def _waiting(
    rows: Rows,
    items: Sequence[Item],
    ledger: Ledger,
    requests: Sequence[Request],
    retry_failed: bool,
    only: Collection[str] | None,
) -> list[Request]:
    """What is to be asked, in the order of asking."""
    if only is None:
        return [request for request in requests if not ledger.settled(request, retry_failed)]
    keys: set[str] = set()
    for item in items if only else ():
        if item.request is None:
            continue
        reply = ledger.row(item.request.key)
        verdict = rows.verdict(item, reply)
        never = reply is None and not {"over_budget", "no_reply"}.isdisjoint(only)
        if never or (verdict is not None and verdict.reason in only):
            keys.add(item.request.key)
    return [request for request in requests if request.key in keys]


def _remarks(
    ledger: Ledger, items: Sequence[Item], requests: Sequence[Request], waiting: Mapping[str, Request]
) -> dict[str, int]:
    """What should be said of the ledger and of the requests, if there is anything to say."""
    asked = {request.key for request in requests}
    remarks = {
        "rows_that_share_a_reply": sum(item.request is not None for item in items) - len(requests),
        "failed_before_and_not_asked_again": sum(map(ledger.failed, asked - waiting.keys())),
        "replies_in_the_ledger_to_other_requests": ledger.strangers(asked),
        "torn_last_lines_dropped": int(ledger.opened.torn_bytes > 0),
        "damaged_lines_in_the_ledger": len(ledger.opened.damaged),
    }
    return {remark: number for remark, number in remarks.items() if number}


def _dry(
    items: Sequence[Item],
    notes: dict[str, int],
    requests: Sequence[Request],
    waiting: Sequence[Request],
    meter: Meter,
    ledger: Ledger | None = None,
) -> Summary:
    faults = Counter(item.reason for item in items if item.request is None)
    return Summary(
        asked=len(items),
        failed=dict(faults),
        pending=len(items) - faults.total(),
        to_ask=len(waiting),
        resumed=len(requests) - len(waiting),
        notes=notes,
        first_prompt=spoken(requests[0].prompt) if requests else "",
        estimate=meter.estimate(waiting),
        held=len(ledger) if ledger else 0,
        spent=str(meter),
    )


def _check_reasons(only: Collection[str] | None) -> None:
    """Refuse a word that is no reason; the set is closed."""
    for reason in only or ():
        if reason not in REASONS:
            raise DataFault(f"the reason {reason!r}", "there is none of that name", f"there are: {', '.join(REASONS)}")


def _check(
    task: Task,
    examples: Sequence[Any],
    templates: Sequence[Template],
    samples: int,
    temperature: float,
    demonstrations: Sequence[Any],
) -> None:
    """Refuse what cannot be run before anything is rendered."""
    if not examples or not templates or samples < 1:
        raise DataFault(
            task.key, "there is nothing to ask", "at least one example, one prompt and one sample are needed"
        )
    twice = [name for name, n in Counter(e.id for e in examples).items() if n > 1]
    if twice:
        raise DataFault(f"example {twice[0]}", f"{len(twice)} ids stand twice", "a row is named by its example's id")
    for name, number in Counter(template.name for template in templates).items():
        if number > 1:
            raise DataFault(name, "is named twice", "name each prompt once")
    for template in templates:
        if template.front.task != task.key:
            raise DataFault(template.name, f"is a prompt of {template.front.task!r}, not of {task.key!r}")
        if "answer" in template.front.needs:
            raise DataFault(template.name, "asks about a given answer, and generate has none", "choose another prompt")
        if "demonstrations" in template.front.needs and not demonstrations:
            raise DataFault(template.name, "shows worked examples, and there are none", "give demonstrations with gold")
        wordings = WORDINGS if "wording" in template.takes else 1
        if temperature == 0 and samples > wordings:
            raise DataFault(
                template.name,
                f"{samples} samples at temperature 0 ask the very same ({wordings} wordings)",
                "set a temperature above 0",
            )
