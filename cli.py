"""The `magister` command: thin and lazy, one function a command; the work is imported when it is asked for.

Exit codes: 0 done, 1 a run that ended with its named failure, 2 wrong usage.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from .teachers.knowledge.columns import Filters

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the scores to this file.")]
Data = Annotated[str, typer.Argument(help="A reader's name, reader:path, a folder, a .jsonl file or hub:owner/name.")]
TaskKey = Annotated[str, typer.Argument(help="A task's key, see `magister tasks`.")]
Spec = Annotated[str, typer.Option("--teacher", help="A teacher's spec, see `magister teachers`.")]
Corpus = Annotated[Path, typer.Argument(help="A corpus folder.")]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Instead of the prompts' own limits of an answer.")]
MinAgreement = Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Quarantine what agrees less with gold.")]
Prompt = Annotated[str | None, typer.Option(help="Only rows of this template.")]
# Which rows of a corpus: the flags of `Filters`.
Unhinted = Annotated[bool, typer.Option("--unhinted", help="No row whose prompt showed gold.")]
Unique = Annotated[bool, typer.Option("--unique", help="No example that nearly repeats an earlier one's text.")]
UniqueImages = Annotated[bool, typer.Option("--unique-images", help="No example with an earlier one's picture.")]
NeedsImage = Annotated[bool, typer.Option("--needs-image", help="Only answers that the picture changed (probed ones).")]
Grounded = Annotated[
    Literal["text", "picture_text"] | None,
    typer.Option(help="Only values that stand in the text, or in a picture's too."),
]
AtLeastAgreement = Annotated[
    float | None, typer.Option("--min-agreement", min=0.0, max=1.0, help="Only rows that agree so far with gold.")
]
AtLeastVote = Annotated[
    float | None, typer.Option("--min-vote", min=0.0, max=1.0, help="Only rows with this share of the samples' votes.")
]


def amount(text: str) -> Decimal:
    """A decimal number of dollars, exactly as it was written."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or value < 0:
        raise typer.BadParameter(f"{text!r} is no amount of dollars, such as 0.15")
    return value


def usd(help: str) -> Any:
    """An option that takes dollars."""
    return typer.Option(parser=amount, metavar="USD", help=help)


app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def group(name: str, text: str) -> typer.Typer:
    """A command that lists what there is, with subcommands beside it."""
    made = typer.Typer(help=text, invoke_without_command=True, pretty_exceptions_enable=False)
    app.add_typer(made, name=name)
    return made


tasks = group("tasks", "The tasks.")
prompts = group("prompts", "The prompt templates.")
teachers = group("teachers", "The teachers.")
students = group("students", "The students.")
datasets = group("datasets", "The data sets that can be read.")
corpus = typer.Typer(help="Look at, check, repair, share and import knowledge corpora.", no_args_is_help=True)
app.add_typer(corpus, name="corpus")


# What there is -----------------------------------------------------------------------------------------------


@tasks.callback()
def tasks_list(context: typer.Context, as_json: Json = False) -> None:
    """List the tasks."""
    if context.invoked_subcommand is None:
        from .tasks import TASKS

        table(
            {t.key: {"task": t.title, "reads": t.reads, "answers": t.answers} for t in TASKS.values()},
            as_json,
        )


@tasks.command("show")
def tasks_show(name: TaskKey) -> None:
    """The fields of a task's example, answer and schema, as JSON schemas."""
    task = one(name, all_tasks(), "task")
    show({part: getattr(task, part).model_json_schema() for part in ("Example", "Answer", "Schema")})


@prompts.callback()
def prompts_list(context: typer.Context, as_json: Json = False) -> None:
    """List the prompt templates: users' folders (MAGISTER_PROMPTS) first."""
    if context.invoked_subcommand is None:
        from .prompts.library import templates

        rows = {t.name: {"output": t.front.output, "description": t.front.description} for t in templates()}
        table(rows, as_json)


@prompts.command("show")
def prompts_show(name: str) -> None:
    """The text of a template."""
    from .prompts.library import find

    print(find(name).path.read_text(encoding="utf-8"), end="")


@prompts.command("lint")
def prompts_lint(
    folder: Annotated[Path | None, typer.Argument(help="Your templates; ours if left out.")] = None,
) -> None:
    """Render every template on probe examples with no model; exit 1 if one is at fault."""
    from .prompts.lint import lint

    results = lint(folder)
    for result in results:
        for fault in result.faults:
            print(f"{result.name}: {fault}")
    bad = sum(bool(result.faults) for result in results)
    print(f"{len(results)} templates: {len(results) - bad} sound, {bad} at fault")
    raise typer.Exit(1 if bad else 0)


@prompts.command("render")
def prompts_render(
    name: str,
    data: Data,
    row: Annotated[int, typer.Option(help="Which example, from 0.")] = 0,
    split: str = "train",
    as_json: Json = False,
) -> None:
    """What a teacher would be asked about one example: the exact turns, with pictures where they stand."""
    from .prompts.library import find
    from .prompts.preview import preview
    from .tasks.readers import read

    template = find(name)
    prompt = preview(template, read(data), split, row)
    if as_json:
        return show(prompt.model_dump())
    for message in prompt.messages:
        print(f"--- {message.role}")
        print("".join(f"[picture {p.image.label}]" if p.image else p.text or "" for p in message.parts))
    print(f"--- {prompt.template} {prompt.digest[:12]}, at most {prompt.max_tokens} tokens")


@teachers.callback()
def teachers_list(context: typer.Context, as_json: Json = False) -> None:
    """List the forms of a teacher's spec."""
    if context.invoked_subcommand is None:
        from .teachers.spec import FORMS

        table({form: {"what": text} for form, text in FORMS.items()}, as_json)


@teachers.command("show")
def teachers_show(spec: str) -> None:
    """What identifies a teacher in every corpus row (loads it)."""
    from .teachers.spec import teacher

    made = teacher(spec)
    show({"spec": made.spec, "sees_images": made.sees_images, **made.identity()})
    made.close()


@students.callback()
def students_list(context: typer.Context, as_json: Json = False) -> None:
    """List the students."""
    if context.invoked_subcommand is None:
        table(all_students(), as_json)


@students.command("show")
def students_show(
    name: Annotated[str, typer.Argument(help="A student's name, or the folder of a trained one.")],
) -> None:
    """What a student is made of, or the card of a trained one."""
    card = Path(name, "README.md")
    print(card.read_text(encoding="utf-8") if card.is_file() else module_text(one(name, all_students(), "student")))


@datasets.callback()
def datasets_list(context: typer.Context, as_json: Json = False) -> None:
    """List the data sets that can be read by name."""
    if context.invoked_subcommand is None:
        from .tasks.readers import READERS

        table({k: {"task": r.task or "any", "what": r.description} for k, r in READERS.items()}, as_json)


@datasets.command("show")
def datasets_show(data: Data, as_json: Json = False) -> None:
    """Read a data set and count it: examples by split, what was refused, the schema."""
    from .tasks.readers import read

    found = read(data)
    counts = {split: len(examples) for split, examples in found.splits.items()}
    if as_json:
        faults = [str(f) for f in found.faults]
        schema = found.schema.model_dump()
        return show({"name": found.name, "task": found.task, "splits": counts, "notes": found.notes,
                     "faults": faults, "schema": schema})  # fmt: skip
    print(f"{found.name} ({found.task}): " + ", ".join(f"{split} {n}" for split, n in counts.items()))
    for note, n in found.notes.items():
        print(f"  {note}: {n}")
    for line in found.refused():
        print(f"  {line}")


@datasets.command("audit")
def datasets_audit(
    data: Data,
    features: Annotated[
        Path | None, typer.Option(help="JSON lines of an id and features of your own, such as a number of crops.")
    ] = None,
    split: Annotated[str, typer.Option(help="Judged on this split, after the training split.")] = "test",
    as_json: Json = False,
) -> None:
    """Whether the form of given pairs (order, pictures, your own features) tells which are related."""
    from .eval import audit
    from .tasks.readers import read
    from .tasks.task import DataFault

    found = read(data)
    if found.task != "relations":
        raise DataFault(data, f"is data for {found.task}", "the audit is for given pairs of relations")
    own = audit.read_features(features) if features else None
    findings = audit.audit(found.split("train"), found.split(split), found.schema.none, own)
    if as_json:
        return show({"protocol": audit.PROTOCOL, "findings": [f.as_dict() for f in findings]})
    for f in findings:
        low, high = f"{f.balanced.low:.1%}", f"{f.balanced.high:.1%}"
        print(f"{f.verdict:6}  {f.balanced.value:6.1%} ({low} – {high})  {f.feature:22} {f.telling}")
    print(audit.PROTOCOL)


# The work ----------------------------------------------------------------------------------------------------


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the report, corpus and students go.")] = Path("runs/demo"),
) -> None:
    """The main job on bundled examples, offline: teacher, corpus, students, scores, a report."""
    from .demo import run

    run(out)


@app.command()
def generate(
    task: TaskKey,
    data: Data,
    teacher: Spec,
    out: Annotated[Path, typer.Option(help="The corpus folder.")],
    prompts: Annotated[str, typer.Option(help="Template names, with commas between.")] = "zero_shot",
    split: str = "train",
    samples: Annotated[int, typer.Option(min=1, help="Answers a question; their agreement becomes votes.")] = 1,
    temperature: Annotated[float, typer.Option(min=0.0, help="Several samples need one above 0.")] = 0.0,
    seed: int = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first examples.")] = None,
    max_tokens: MaxTokens = None,
    candidates: Annotated[int, typer.Option(min=2, help="So many to choose among, where the data bring none.")] = 10,
    min_agreement: MinAgreement = None,
    probe_images: Annotated[
        bool, typer.Option("--probe-images", help="Ask everything with a picture once more without it.")
    ] = False,
    budget_tokens: Annotated[int | None, typer.Option(min=0, help="Stop before more tokens than this.")] = None,
    budget_usd: Annotated[Decimal | None, usd("Stop before more dollars than this.")] = None,
    price_in: Annotated[Decimal | None, usd("Dollars per million tokens read.")] = None,
    price_out: Annotated[Decimal | None, usd("Dollars per million tokens written.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Most requests at once (openai: only).")] = None,
    rpm: Annotated[float | None, typer.Option(min=1, help="Requests a minute (openai: only).")] = None,
    tpm: Annotated[float | None, typer.Option(min=1, help="Tokens a minute (openai: only).")] = None,
    ray: Annotated[bool, typer.Option("--ray", help="Ask by several workers, over Ray (extra: ray).")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="How many, with --ray: 2 if not given.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the first prompt and what all would cost; ask nothing.")
    ] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Ask again what failed before.")] = False,
    as_json: Json = False,
) -> None:
    """Ask a teacher about every example; what it says becomes a verified corpus. The same command resumes."""
    from .teachers.generation.budget import Budget
    from .teachers.generation.run import corpus_from

    one(task, all_tasks(), "task")
    if workers is not None and not ray:
        raise typer.BadParameter("--workers needs --ray")
    if budget_usd is not None and (price_in is None or price_out is None):
        raise typer.BadParameter("--budget-usd needs --price-in and --price-out (0 for a model of your own)")
    with interruptible():
        summary = corpus_from(
            task, data, teacher, prompts.split(","), out, split=split, samples=samples, temperature=temperature,
            seed=seed, limit=limit, max_tokens=max_tokens, candidates=candidates, min_agreement=min_agreement,
            probe=probe_images,
            budget=Budget(tokens=budget_tokens, usd=budget_usd, price_in=price_in, price_out=price_out),
            limits={"concurrency": concurrency, "rpm": rpm, "tpm": tpm}, dry_run=dry_run, retry_failed=retry_failed,
            workers=(workers or 2) if ray else 0, say=say,
        )  # fmt: skip
    summed(summary, as_json)


@app.command()
def evidence(
    data: Data,
    out: Annotated[Path, typer.Option(help="A new file of JSON lines; a recipe reads it as knowledge=FILE.")],
    encoder: Annotated[str, typer.Option(help="The text encoder by whose vectors captions are found.")] = "minilm",
    count: Annotated[int, typer.Option(min=1, help="At most so many texts of each kind.")] = 3,
    least: Annotated[float, typer.Option(min=-1, max=1, help="A lower cosine is no evidence.")] = 0.3,
    as_json: Json = False,
) -> None:
    """Search a data set's training captions for evidence beside each example, and pin it for training."""
    from .distill.evidence import pin_captions

    def told(done: int, total: int) -> None:
        if done % 1000 == 0 or done == total:
            say(f"{done:,} of {total:,} examples")

    counts = pin_captions(data, out, encoder, count, least, told)
    show(counts) if as_json else print(", ".join(f"{name} {n:,}" for name, n in counts.items()))


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C says what is saved: typer alone would end the command without a word."""
    try:
        yield
    except KeyboardInterrupt as stop:
        say(str(stop) or "stopped by Ctrl-C before anything was asked")
        raise typer.Exit(130) from None


def summed(summary: Any, as_json: bool) -> None:
    """What a run did, for people or programs."""
    show(summary.as_dict()) if as_json else print(summary)


@corpus.command("retry")
def corpus_retry(
    corpus: Corpus,
    reason: Annotated[str, typer.Option(help="Reasons with commas between: length,loop,transport.")],
    max_tokens: MaxTokens = None,
    as_json: Json = False,
) -> None:
    """Ask again for the rows that ended with these reasons, by the settings that the corpus was made with."""
    from .teachers.generation.generate import REASONS
    from .teachers.generation.run import retry

    reasons = [name.strip() for name in reason.split(",") if name.strip()]
    for name in reasons:
        one(name, dict.fromkeys(REASONS), "reason")
    changes = {} if max_tokens is None else {"max_tokens": max_tokens}
    with interruptible():
        summary = retry(corpus, reasons, say, **changes)
    summed(summary, as_json)


@corpus.command("verify")
def corpus_verify(corpus: Corpus, min_agreement: MinAgreement = None, as_json: Json = False) -> None:
    """Parse and verify every reply again, from the ledger; nothing is asked."""
    from .teachers.generation.run import verify

    changes = {} if min_agreement is None else {"min_agreement": min_agreement}
    summed(verify(corpus, say, **changes), as_json)


@corpus.command("export")
def corpus_export(
    corpus: Corpus,
    file: Annotated[Path, typer.Argument(help="A .jsonl or .parquet file that is not there yet.")],
    status: Annotated[str, typer.Option(help="kept, quarantined, failed or all.")] = "kept",
    prompt: Prompt = None,
    unhinted: Unhinted = False,
    unique: Unique = False,
    unique_images: UniqueImages = False,
    needs_image: NeedsImage = False,
    grounded: Grounded = None,
    min_agreement: AtLeastAgreement = None,
    min_vote: AtLeastVote = None,
) -> None:
    """Write a corpus's rows as one file."""
    from .teachers.knowledge.share import export

    wanted = filters(unhinted, unique, unique_images, needs_image, grounded, min_agreement, min_vote)
    done = export(corpus, file, None if status == "all" else status, prompt, wanted)
    left = "".join(f" + {n:,} left out by {why.replace('_', ' ')}" for why, n in done["left_out"].items())
    print(f"{done['rows']:,} rows = {done['written']:,} written{left}; written: {file}")


@corpus.command("push")
def corpus_push(
    corpus: Corpus,
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="A data set on the Hugging Face hub.")],
    private: Annotated[bool, typer.Option("--private/--public", help="Who may see a data set that is new.")] = True,
) -> None:
    """Put a corpus's card and rows on the Hugging Face hub; the token is HF_TOKEN's or `hf auth login`'s."""
    from .teachers.knowledge.share import push

    print(f"pushed: {push(corpus, name, private)}")


@corpus.command("audit")
def corpus_audit(corpus: Corpus) -> None:
    """Look for leaked gold in the prompts and texts of a corpus; exit 1 if there is some. Nothing is asked."""
    from .teachers.generation.run import audited

    found = audited(corpus, say)
    print(found)
    raise typer.Exit(0 if found.clean else 1)


@corpus.command("stats")
def corpus_stats(
    corpus: Corpus,
    unhinted: Unhinted = False,
    unique: Unique = False,
    unique_images: UniqueImages = False,
    needs_image: NeedsImage = False,
    grounded: Grounded = None,
    min_agreement: AtLeastAgreement = None,
    min_vote: AtLeastVote = None,
) -> None:
    """Counts of a corpus: by status, reason and template; tokens."""
    from .teachers.knowledge.corpus import stats

    show(stats(corpus, filters(unhinted, unique, unique_images, needs_image, grounded, min_agreement, min_vote)))


@corpus.command("show")
def corpus_show(
    corpus: Corpus,
    status: Annotated[str | None, typer.Option(help="kept, quarantined or failed.")] = None,
    prompt: Prompt = None,
    limit: Annotated[int | None, typer.Option(min=1, help="So many rows (10), or examples of a page (40).")] = None,
    page: Annotated[Path | None, typer.Option(help="Write an HTML page with texts, pictures and gold.")] = None,
    data: Annotated[str | None, typer.Option(help="Where the page's pictures are, if the corpus cannot tell.")] = None,
    unhinted: Unhinted = False,
    unique: Unique = False,
    unique_images: UniqueImages = False,
    needs_image: NeedsImage = False,
    grounded: Grounded = None,
    min_agreement: AtLeastAgreement = None,
    min_vote: AtLeastVote = None,
    as_json: Json = False,
) -> None:
    """Show rows: what was asked, what came back, what became of it; with --page beside text and picture."""
    from .teachers.knowledge.corpus import rows
    from .teachers.knowledge.show import EXAMPLES, text

    wanted = filters(unhinted, unique, unique_images, needs_image, grounded, min_agreement, min_vote)
    if page is not None:
        return written(corpus, page, data, status=status, prompt=prompt, filters=wanted, limit=limit or EXAMPLES)
    for number, row in enumerate(rows(corpus, status, prompt, wanted)):
        if number == (limit or 10):
            return say("there are more: --limit N shows them, --page FILE.html beside text and picture")
        print(json.dumps(row, ensure_ascii=False) if as_json else text(row))


def written(corpus: Path, page: Path, data: str | None, **which: Any) -> None:
    """Write a corpus's page, with the texts and pictures out of ``data``, else out of what it was made of."""
    from itertools import chain

    from .tasks.readers import read
    from .tasks.task import DataFault
    from .teachers.generation.run import sources
    from .teachers.knowledge.show import page as write

    examples: Iterable[Any] = ()
    if data is not None:
        examples = chain.from_iterable(read(data).splits.values())
    else:
        try:
            examples = sources(corpus, say)[2]
        except DataFault as fault:
            say(f"without texts and pictures, which --data can name: {fault}")
    counts = write(corpus, page, examples, **which)
    print(", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in counts.items()) + f"; written: {page}")


def filters(
    unhinted: bool, unique: bool, unique_images: bool, needs_image: bool, grounded: str | None,
    min_agreement: float | None, min_vote: float | None,
) -> Filters | None:  # fmt: skip
    """The rows that the flags ask for; None if there is no flag."""
    from .teachers.knowledge.columns import Filters

    made = Filters(unhinted, unique, unique_images, needs_image, grounded or "", min_agreement, min_vote)
    return made if made.as_dict() else None


@corpus.command("card")
def corpus_card(corpus: Corpus) -> None:
    """Print the corpus's card."""
    print((corpus / "README.md").read_text(encoding="utf-8"))


@corpus.command("import")
def corpus_import(
    file: Annotated[Path, typer.Argument(help="JSON lines of {id, text}, plain or .gz.")],
    out: Annotated[Path, typer.Option(help="The corpus folder.")],
    name: Annotated[str, typer.Option(help="What to call this knowledge.")] = "knowledge",
    id_field: Annotated[str | None, typer.Option(help="The field with the example's id.")] = None,
    text_field: Annotated[str | None, typer.Option(help="The field with the text.")] = None,
) -> None:
    """Make a corpus of knowledge that exists already."""
    from .teachers.knowledge.corpus import import_texts

    done = import_texts(file, out, id_field=id_field, text_field=text_field, name=name)
    for fault in done.faults:
        say(f"refused: {fault}")
    print(f"{done.lines} lines = {done.rows} rows + {len(done.faults)} refused + {done.repeated} repeated "
          f"+ {done.contradicted} contradicting; written to {out}")  # fmt: skip


@app.command()
def distill(
    recipe: Annotated[
        Path, typer.Argument(help="A recipe (YAML), or the name of one of ours: ner/unified-twitter2017.")
    ],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value ...")] = None,
) -> None:
    """Train a student by a recipe. The same command resumes after Ctrl-C or a crash."""
    from .distill.recipe import read
    from .distill.train import train

    train(read(recipe, overrides or []))


@app.command()
def evaluate(
    run: Annotated[str, typer.Argument(help="A trained student's run folder, floor:NAME, or - with --teacher.")],
    task: TaskKey,
    data: Data,
    split: str = "test",
    mode: Annotated[
        str | None,
        typer.Option(help="Of a distilled run: A text, B and caption, C and knowledge, D text first, C in doubt."),
    ] = None,
    teacher: Annotated[str | None, typer.Option("--teacher", help="Judge this teacher instead of a run.")] = None,
    prompt: Annotated[str, typer.Option(help="The template a teacher is asked with.")] = "few_shot",
    shots: Annotated[int, typer.Option(min=0, help="How many training examples a teacher is shown.")] = 4,
    limit: Annotated[int | None, typer.Option(min=1)] = None,
    json_file: JsonFile = None,
    html: Annotated[Path | None, typer.Option(help="Also write an HTML report.")] = None,
    record: Annotated[
        Path | None, typer.Option(help="Also leave a result record in this folder (docs/results).")
    ] = None,
) -> None:
    """Judge a student (or a teacher) on a split, with bootstrap 95 % intervals."""
    from .distill import judge

    one(task, all_tasks(), "task")
    if mode is not None:
        from .distill.modes import MODES

        one(mode, MODES, "mode")
        if teacher is not None or run.startswith("floor:"):
            raise typer.BadParameter("--mode is for a trained student's run")
    if teacher is not None:
        from .extraction.demonstrations import Nearest

        picker = Nearest if task == "attributes" else None
        result = judge.teacher(teacher, task, data, split, prompt, limit=limit, shots=shots, picker=picker)
    elif run.startswith("floor:"):
        result = judge.floor(run.removeprefix("floor:"), task, data, split, limit=limit)
    else:
        result = judge.student(Path(run), task, data, split, limit=limit, mode=mode)
    print(judge.text(result))
    for path, write in (
        (json_file, judge.write_json),
        (html, judge.write_html),
        (record, judge.write_record),
    ):
        if path is not None:
            print(f"written: {write(result, path)}")


@app.command()
def extract(
    texts: Annotated[
        list[str] | None, typer.Argument(help="Product texts; JSON lines on standard input if left out.")
    ] = None,
    attributes: Annotated[str, typer.Option(help="Attribute names, with commas between.")] = "",
    schema: Annotated[
        Path | None, typer.Option(help="The attributes in full: a JSON Schema, a NuExtract template, a CSV, our dump.")
    ] = None,
    image: Annotated[
        list[Path] | None, typer.Option(help="A picture of the one product given; may be repeated.")
    ] = None,
    category: Annotated[str, typer.Option(help="The category of the products given as texts.")] = "",
    teacher: Annotated[str | None, typer.Option("--teacher", help="A teacher's spec, see `magister teachers`.")] = None,
    student: Annotated[Path | None, typer.Option(help="A trained student's run folder.")] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="A catalogue: .jsonl, .csv, .tsv or .parquet, of any size.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where rows go, resumable: .jsonl, .parquet or a folder. Printed if left out.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="The template a teacher is asked with.")] = None,
    demonstrations: Annotated[
        str | None, typer.Option(help="Data whose training split gives worked examples (and the schema).")
    ] = None,
    shots: Annotated[int, typer.Option(min=0, help="How many worked examples are shown.")] = 6,
    votes: Annotated[int, typer.Option(min=1, help="Answers a product, attributes in other orders; most win.")] = 1,
    vote_below: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Vote only on products with an attribute less sure.")
    ] = None,
    confidence: Annotated[bool, typer.Option("--confidence", help="Ask the teacher for log-probabilities.")] = False,
    normalise: Annotated[bool, typer.Option("--normalise", help="Also give canonical forms: units, dates.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Leave out copied values that stand nowhere.")] = False,
    window: Annotated[int | None, typer.Option(min=100, help="Most characters asked about at once.")] = None,
    text_column: Annotated[str, typer.Option(help="The column of texts; guessed if left out.")] = "",
    id_column: Annotated[str, typer.Option(help="The column of ids; guessed if left out.")] = "",
    category_column: Annotated[str, typer.Option(help="The column of categories; guessed if left out.")] = "",
    image_column: Annotated[str, typer.Option(help="The column of pictures; guessed if left out.")] = "",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="With --out: ask again what failed.")] = False,
    as_json: Json = False,
) -> None:
    """Extract attributes zero-shot: one JSON line a product, null for absent. With --out the same command resumes."""
    from .extraction import Counts, Product, catalogue
    from .extraction import extract as rows_of
    from .extraction.columns import Named
    from .extraction.run import extract_to

    if bool(teacher) == bool(student):
        raise typer.BadParameter("give one of --teacher and --student")
    names = [name.strip() for name in attributes.split(",") if name.strip()]
    if not names and not student and not schema and not demonstrations:
        raise typer.BadParameter("name the attributes: --attributes color,material, or --schema FILE")
    if texts and source:
        raise typer.BadParameter("give texts or --from, not both")
    if image and len(texts or ()) != 1:
        raise typer.BadParameter("--image is for one product given as a text; a catalogue has a column of pictures")
    if retry_failed and out is None:
        raise typer.BadParameter("--retry-failed needs --out, the run whose failures are asked again")
    options: dict[str, Any] = {
        "schema": schema, "teacher": teacher, "student": student, "prompt": prompt, "shots": shots, "votes": votes,
        "vote_below": vote_below, "confidence": confidence, "normalise": normalise, "strict": strict, "window": window,
    }  # fmt: skip
    if demonstrations is not None:
        options |= worked(demonstrations, shots, schema)
    named = Named(text_column, id_column, category_column, image_column)
    if texts:
        pictures = tuple(str(path) for path in image or ())
        products: Iterable[Any] = [Product(text=t, category=category, images=pictures) for t in texts]
    elif source:
        products = catalogue.read(source, named, say)
    else:
        products = catalogue.of_lines(sys.stdin.buffer, "standard input", Path(), named, say)
    with interruptible():
        if out is not None:
            counts = extract_to(out, products, names, retry_failed=retry_failed, say=say, **options)
            summed(counts, as_json)
            return
        counts = Counts()
        for row in rows_of(products, names, counts=counts, **options):
            print(json.dumps(row, ensure_ascii=False), flush=True)
    say(str(counts))


def worked(data: str, shots: int, schema: Path | None) -> dict[str, Any]:
    """Demonstrations out of a data set's training split; its schema too, where none is given."""
    from .extraction.demonstrations import Nearest
    from .models.packaged import ModelNotFound
    from .tasks import readers

    dataset = readers.read(data)
    if dataset.task != "attributes":
        raise typer.BadParameter(f"--demonstrations {data}: is data for {dataset.task}, not for attributes")
    say(*dataset.refused())
    pool: Any = dataset.split("train")
    try:
        pool = Nearest(pool, shots=shots)
    except (ImportError, ModelNotFound) as error:
        say(f"demonstrations are picked by their words, not by embedding: {error}")
    return {"demonstrations": pool} | ({} if schema else {"schema": dataset.schema})


@app.command()
def report(
    records: Annotated[Path, typer.Argument(help="The folder of result records.")] = Path("docs/results"),
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("docs/results.md"),
) -> None:
    """Render the results page from the records that the runs left."""
    from .eval.records import render

    out.write_text(render(records), encoding="utf-8")
    print(f"written: {out}")


@app.command()
def active(
    source: Annotated[str, typer.Argument(help="A recipe to simulate with; with --pick a trained run's folder.")],
    out: Annotated[Path, typer.Option(help="The simulation's folder; with --pick a .jsonl file for what was picked.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value ... of the recipe")] = None,
    strategy: Annotated[
        str | None, typer.Option(help="random, least_confidence or tag_flip, with commas between; or all three.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="So many times labels are added.")] = 10,
    batch: Annotated[int, typer.Option(min=1, help="So many labels are added each time.")] = 50,
    start: Annotated[int, typer.Option(min=1, help="Labels of the first round, drawn by the seed.")] = 50,
    seeds: Annotated[int, typer.Option(min=1, help="Simulations of each strategy.")] = 3,
    split: Annotated[Literal["valid", "test"], typer.Option(help="What each round is judged on.")] = "test",
    pick: Annotated[
        tuple[int, str] | None, typer.Option(metavar="N DATA", help="Pick N unlabelled examples of DATA for the run.")
    ] = None,
    record: Annotated[Path | None, typer.Option(help="Also leave result records in this folder.")] = None,
) -> None:
    """Active learning: simulate how many labels a strategy saves, or pick what to label next. Resumes by the round."""
    from .distill import active as learning
    from .distill.recipe import read
    from .distill.rounds import Plan, text, write_records

    strategies = [name.strip() for name in strategy.split(",")] if strategy else list(learning.STRATEGIES)
    if pick is not None:
        if len(strategies) != 1 or overrides:
            raise typer.BadParameter("--pick takes one --strategy and no overrides")
        for name, score in learning.pick(Path(source), pick[1], pick[0], strategies[0], out):
            print(f"{name}\t{score:.4g}")
        return say(f"written: {out}")
    recipe = read(source, overrides or [])
    result = learning.simulate(recipe, out, Plan(start=start, batch=batch, split=split), strategies, rounds, seeds, say)
    print(text(result))
    for path in write_records(recipe, result, out, record) if record is not None else ():
        print(f"written: {path}")


@app.callback(invoke_without_command=True)
def front(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Magister turns what a multimodal LLM knows into compact students for multimodal knowledge graphs."""
    if version:
        from . import __version__

        print(__version__)
        raise typer.Exit


# Helpers -----------------------------------------------------------------------------------------------------


def all_tasks() -> Mapping[str, Any]:
    from .tasks import TASKS

    return TASKS


def all_students() -> Mapping[str, Any]:
    from .students import STUDENTS, describe

    return {name: {"what": describe(name), "module": path.partition(":")[0]} for name, path in STUDENTS.items()}


def module_text(about: Mapping[str, str]) -> str:
    """A module's own docstring, read without importing it."""
    import ast

    path = Path(__file__).parent.joinpath(*about["module"].split(".")).with_suffix(".py")
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def one(name: str, known: Mapping[str, Any], what: str) -> Any:
    """The named one, or wrong usage that lists what there is."""
    if name not in known:
        raise typer.BadParameter(f"unknown {what} {name!r}; there are: {', '.join(known)}")
    return known[name]


def table(rows: Mapping[str, Mapping[str, Any]], as_json: bool) -> None:
    """Rows by name: a table on a terminal, tab-separated lines elsewhere, JSON where asked."""
    if as_json:
        return show([{"name": name, **row} for name, row in rows.items()])
    if not sys.stdout.isatty():
        for name, row in rows.items():
            print("\t".join([name, *map(str, row.values())]))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD)
    for column in ("name", *next(iter(rows.values()), {})):
        made.add_column(column)
    for name, row in rows.items():
        made.add_row(name, *map(str, row.values()))
    Console().print(made)


def show(value: Any) -> None:
    """Print as JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def say(*lines: str | Iterable[str]) -> None:
    """A remark beside the output: to standard error."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)


#: Named errors that are wrong usage; every other named error of ours is a run that failed.
USAGE = {"UnknownTeacher", "UnknownTemplate", "RecipeFault"}


def main() -> None:
    """Run the command; our own named errors become one line and an exit code, never a traceback."""
    try:
        app()
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from what was saved")
        sys.exit(130)
    except Exception as error:
        if not type(error).__module__.startswith("magister"):
            raise
        say(f"{type(error).__name__}: {error}")
        sys.exit(2 if type(error).__name__ in USAGE else 1)


if __name__ == "__main__":
    main()
