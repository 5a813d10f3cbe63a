"""A teacher's knowledge of a data set: examples and templates in, a corpus folder out, nothing paid for
twice.

Every request is rendered and keyed (`plan`), what the ledger already holds is left out, the rest is asked,
each reply is on the disk before the next is looked at, and the corpus is built from the ledger. Whatever
stops a run, the same command goes on where it stopped.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, get_args

from ..prompts.library import Template, find
from ..tasks.task import DataFault, Task
from . import corpus, verify
from .ledger import Ledger, LedgerFault, Row
from .plan import Describe, Item, Sampling, asking_order, plan
from .run_folder import LEDGER, SETTINGS, check_folder, check_run, digest
from .summary import Summary
from .teacher import Failure, Reply, Request, Teacher

#: ``(settled, of how many, the reply that just came)``.
Progress = Callable[[int, int, Reply], None]

#: Why there is no answer: the teachers' failures; it could not be rendered; the engine ended without a reply.
FAILURES: tuple[str, ...] = (*get_args(Failure), "render", "no_reply")


class Interrupted(KeyboardInterrupt):
    """Ctrl-C: says what is saved and that the same command goes on."""


class Stopped(RuntimeError):
    """The engine broke down, or answered what it was not asked: says what is saved."""


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
    resume: bool = True,
    retry_failed: bool = False,
    describe: Describe | None = None,
    progress: Progress | None = None,
    dry_run: bool = False,
    command: str = "",
    license: str = "",
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
        resume: False refuses a folder that already holds replies.
        retry_failed: ask again what failed before; failures are settled otherwise.
        describe: puts pictures into words for a teacher that cannot see; without it they are left out, and
            counted.
        dry_run: render and count everything; ask nothing and write nothing.
        command, license: for the corpus's card.

    Raises:
        DataFault: it cannot be run like this, or ``out`` belongs to another run; says what differs.
        LedgerFault: the folder is in use by another process, or the disk is full.
        Interrupted: Ctrl-C.
        Stopped: the engine broke down.
    """
    out, examples = Path(out), list(examples)[:limit]
    templates = [find(name if "/" in name else f"{task.key}/{name}") for name in prompts]
    _check(task, examples, templates, samples, temperature, demonstrations)
    check_folder(out)
    sampling = Sampling(samples, temperature, seed, max_tokens)
    items, notes = plan(task, examples, schema, teacher, templates, sampling, demonstrations, shots, describe)
    settings: dict[str, Any] = {
        "task": task.key,
        "teacher": dict(teacher.identity()),
        "schema": digest(schema.model_dump_json()),
        "temperature": temperature,
        "seed": seed,
        "demonstrations": {"shots": shots, "ids": digest(*(e.id for e in demonstrations))} if demonstrations else None,
        "pictures": "seen" if teacher.sees_images else "described" if describe else "left out",
        "prompts": {template.name: template.digest for template in templates},
        "samples": samples,
        "examples": {"count": len(examples), "ids": digest(*(e.id for e in examples))},
    }
    if dry_run and not (out / LEDGER).exists():
        return _dry(items, notes, len(asking_order(items)), 0)
    with Ledger(out / LEDGER) as ledger:
        check_run(out, settings, examples, resume or not len(ledger))
        requests = asking_order(items)
        waiting = {r.key: r for r in requests if not ledger.settled(r, retry_failed)}
        if dry_run:
            return _dry(items, notes, len(waiting), len(requests) - len(waiting))
        corpus.write_atomically(out / SETTINGS, lambda path: path.write_text(json.dumps(settings, indent=2)))
        notes |= _remarks(ledger, items, requests, waiting)
        done = _ask(ledger, teacher, waiting, len(requests), progress)
        tally: Counter[tuple[str, str]] = Counter()
        rows = _rows(items, ledger, task, schema, teacher.spec, min_agreement, require_grounded, tally)
        corpus.build(
            out,
            rows,
            corpus.Card(
                name=f"{task.title.capitalize()}: a teacher's knowledge",
                source=f"Answers of the teacher `{teacher.spec}`, made and verified with Magister.",
                templates=settings["prompts"],
                settings={**settings, "min_agreement": min_agreement, "require_grounded": require_grounded},
                command=command,
                license=license,
                notes=notes,
            ),
        )
    return Summary(
        asked=len(items),
        kept=tally["kept", ""],
        quarantined={reason: n for (status, reason), n in tally.items() if status == "quarantined"},
        failed={reason: n for (status, reason), n in tally.items() if status == "failed"},
        resumed=len(requests) - done["to_ask"],
        notes=notes,
        **done,
    )


def _ask(
    ledger: Ledger, teacher: Teacher, waiting: dict[str, Request], total: int, progress: Progress | None
) -> dict[str, Any]:
    """Ask what is waiting and save every reply as it comes; what this run used. Empties ``waiting`` as it
    goes."""
    to_ask, settled = len(waiting), total - len(waiting)
    identity = teacher.identity()
    read = written = 0
    started = time.monotonic()
    replies: Iterator[Reply] = iter(())

    def saved() -> str:
        count = f"{settled + ledger.arrived():,} of {total:,} answers"
        return f"{count} are saved in {ledger.path}; the same command goes on from there"

    try:
        if waiting:
            replies = iter(teacher.generate(list(waiting.values())))
        for reply in replies:
            request = waiting.pop(reply.key, None)
            if request is None:
                raise Stopped(f"the teacher answered what it was not asked (key {reply.key!r}): {saved()}")
            ledger.append(Row.of(request, reply, teacher.spec, identity))
            read += reply.usage.prompt_tokens
            written += reply.usage.completion_tokens
            if progress is not None:
                progress(total - len(waiting), total, reply)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped by Ctrl-C: {saved()}") from None
    except (LedgerFault, Stopped):
        raise
    except Exception as error:
        raise Stopped(f"stopped by {type(error).__name__}: {error}: {saved()}") from error
    finally:
        if close := getattr(replies, "close", None):
            close()
    return {
        "to_ask": to_ask,
        "replies": to_ask - len(waiting),
        "prompt_tokens": read,
        "completion_tokens": written,
        "seconds": time.monotonic() - started,
    }


def _rows(
    items: Sequence[Item],
    ledger: Ledger,
    task: Task,
    schema: Any,
    spec: str,
    min_agreement: float | None,
    require_grounded: bool,
    tally: Counter[tuple[str, str]],
) -> Iterator[dict[str, Any]]:
    """The corpus rows, counted in ``tally`` by status and reason. Tokens of a shared reply stand in its
    first row."""
    spent: set[str] = set()
    for _, group in groupby(items, key=lambda item: (item.example.id, item.template.name, item.about)):
        rows, verdicts = [], []
        for item in group:
            reply = ledger.row(item.request.key) if item.request else None
            row = _row(item, task, spec)
            if reply is not None:
                row["text"] = reply.text
                if reply.key not in spent:
                    row |= reply.usage.model_dump()
                    spent.add(reply.key)
            rows.append(row)
            verdicts.append(_verdict(item, reply, task, schema, min_agreement, require_grounded))
        for row, found, vote in zip(rows, verdicts, verify.votes([v.answer for v in verdicts]), strict=True):
            tally[found.status, found.reason or ""] += 1
            yield row | {
                "answer": found.answer.model_dump_json() if found.answer else None,
                "status": found.status,
                "reason": found.reason,
                "detail": found.detail or None,
                "agreement": found.agreement,
                "grounded": found.grounded,
                "vote": vote,
                "repaired": found.repaired,
            }


def _row(item: Item, task: Task, spec: str) -> dict[str, Any]:
    """The columns that are known before any reply."""
    return {
        "id": item.example.id,
        "task": task.key,
        "prompt": item.template.name,
        "about": item.about,
        "digest": item.template.digest,
        "sample": item.sample,
        "teacher": spec,
        "key": item.request.key if item.request else None,
    }


def _verdict(
    item: Item,
    reply: Row | None,
    task: Task,
    schema: Any,
    min_agreement: float | None,
    require_grounded: bool,
) -> verify.Verdict:
    """Failed for one of `FAILURES`, or what `verify.verdict` says of the answer."""
    if item.request is None:
        return verify.Verdict("failed", item.reason, str(item.fault))
    if reply is None:
        return verify.Verdict("failed", "no_reply", "the engine ended without a reply to this request")
    if reply.failure is not None:
        return verify.Verdict("failed", reply.failure, reply.detail)
    return verify.verdict(
        task,
        item.example,
        schema,
        item.request.prompt,
        reply.text,
        reply.finish,
        min_agreement,
        require_grounded,
    )


def _remarks(
    ledger: Ledger, items: Sequence[Item], requests: Sequence[Request], waiting: Mapping[str, Request]
) -> dict[str, int]:
    """What should be said of the ledger and of the requests, if there is anything to say."""
    asked = {request.key for request in requests}
    remarks = {
        "rows_that_share_a_reply": sum(item.request is not None for item in items) - len(requests),
        "failed_before_and_not_asked_again": sum(map(ledger.failed, asked - waiting.keys())),
        "replies_in_the_ledger_to_other_requests": len(ledger.keys() - asked),
        "torn_last_lines_dropped": int(ledger.opened.torn_bytes > 0),
        "damaged_lines_in_the_ledger": len(ledger.opened.damaged),
    }
    return {remark: number for remark, number in remarks.items() if number}


def _dry(items: Sequence[Item], notes: dict[str, int], to_ask: int, resumed: int) -> Summary:
    faults = Counter(item.reason for item in items if item.request is None)
    return Summary(
        asked=len(items),
        failed=dict(faults),
        pending=len(items) - faults.total(),
        to_ask=to_ask,
        resumed=resumed,
        notes=notes,
    )


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
        if samples > 1 and temperature == 0 and "wording" not in template.takes:
            raise DataFault(
                template.name,
                f"{samples} samples at temperature 0 ask the very same",
                "set a temperature above 0",
            )
