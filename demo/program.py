"""The demo's steps: teacher, corpus, students with and without knowledge, scores, extraction, report."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..distill import judge, recipe, train
from ..eval import report
from ..prompts.library import FOLDERS_VARIABLE
from ..tasks import readers
from ..teachers.describe import Describer
from ..teachers.generation.run import corpus_from
from ..teachers.knowledge import corpus
from . import page

#: What belongs to the sampler in this folder, and is copied beside the results.
SAMPLER = (
    "posts.jsonl", "products.jsonl", "knowledge.jsonl", "student.yaml", "LICENSE", "README.md", "pictures", "prompts",
)  # fmt: skip
SPLITS = "train,valid,test"


@dataclass
class Demo:
    """One run of the demo.

    Attributes:
        out: the folder for everything.
        teacher: the teacher's spec.
        overrides: ``key=value`` settings of every student's recipe.
        limit: so many training posts and products are labelled by the teacher.
        say: prints a line.
        commands: those that the steps so far stand for.
    """

    out: Path
    teacher: str = "demo"
    overrides: Sequence[str] = ()
    limit: int = 16
    say: Callable[[str], None] = lambda line: print(line, flush=True)
    commands: list[str] = field(default_factory=list)

    @cached_property
    def _describer(self) -> Describer:
        """Pictures in words, each described once for all steps and runs."""
        return Describer(self.out / "descriptions")

    @property
    def sampler(self) -> Path:
        """The copy of the sampler beside the results."""
        return self.out / "sampler"

    def run(self) -> Path:
        """All steps; gives the report's path."""
        started = time.monotonic()
        self._lay_out()
        with self._own_prompts():
            knowledge = self.explain()
            answers = [self.label(task) for task in ("ner", "attributes")]
            students = self.distill(knowledge)
            teacher = self.judge_teacher("ner", "posts", "few_shot")
            extracted = self.judge_teacher("attributes", "products", "zero_shot_base")
        self.say("\n5. The report")
        about = {"seconds": round(time.monotonic() - started, 1), "teacher": self.teacher}
        sections = page.sections(
            (knowledge, *answers), self.sampler / "knowledge.jsonl", students, teacher, extracted, self.commands, about
        )
        scores = {name: judged.scores for name, judged in students.items()}
        scores |= {"teacher, few-shot": teacher.scores, "teacher, extraction": extracted.scores}
        path = report.write_report(self.out, "Magister's demo", sections, scores, about)["html"]
        self.say(f"   {about['seconds']:.0f} seconds in all. Open {path}")
        self.say("\nTo go on, extract from a text and a picture of your own:")
        example = ["--image", str(self.sampler / "pictures" / "mug-4.png"), "Tinkerly mug, bone china, 400 ml"]
        self._command("extract", "--teacher", self.teacher, "--attributes", "brand,material,color", *example)
        return path

    def _lay_out(self) -> None:
        """Copy the sampler, so that the commands below are short and can be tried by hand."""
        here = Path(__file__).resolve().parent
        self.sampler.mkdir(parents=True, exist_ok=True)
        for name in SAMPLER:
            source, target = here / name, self.sampler / name
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            else:
                shutil.copyfile(source, target)
        self.say(f"Magister's demo: everything is written to {self.out}; the same command goes on where it stopped.\n")
        self.say("1. The sampler: posts with gold names, products with gold attribute values, and a picture each")
        for name in ("posts", "products"):
            self._command("datasets", "show", self._data(name))
            data = readers.read(self._data(name))
            self.say(f"   {data.name}: " + ", ".join(f"{split} {len(of)}" for split, of in data.splits.items()))

    def explain(self) -> Path:
        """The teacher explains the names in every post: knowledge for the students."""
        self.say("\n2. The teacher: what it knows of the posts and products becomes a corpus")
        if self.teacher == "demo":
            self.say("   (Gemma 3 270M, a base model that cannot see: pictures are put into words. Its first start")
            self.say("   on a machine converts its weights, which takes about a minute.)")
        out = self._generate("ner", "posts", "rationale.noun_few_shot", "knowledge", SPLITS, None)
        for row in [r for r in corpus.rows(out) if r["status"] == "kept"][:3]:
            self.say(f"   {row['id']}: {row['text'].strip()}")
        return out

    def label(self, task: str) -> Path:
        """The teacher answers some training examples like an annotator; gold says how well."""
        data = {"ner": "posts", "attributes": "products"}[task]
        return self._generate(task, data, "few_shot", f"answers-{data}", "train", self.limit)

    def _generate(self, task: str, data: str, prompt: str, folder: str, split: str, limit: int | None) -> Path:
        out = self.out / folder
        limited = [] if limit is None else ["--limit", str(limit)]
        self._command(
            "generate", task, self._data(data), "--teacher", self.teacher, "--prompts", prompt, "--split", split,
            *limited, "--out", str(out), prompts=True,
        )  # fmt: skip
        corpus_from(
            task, self._data(data), self.teacher, [prompt], out, split=split, limit=limit, say=_nothing,
            describe=self._describer.describe,
        )  # fmt: skip
        self.say("   " + page.counted(corpus.stats(out)))
        return out

    def distill(self, knowledge: Path) -> dict[str, judge.Judgement]:
        """Students that differ in what they read beside the post; judged on the test posts."""
        self.say("\n3. The students: the same compact model three times, with LoRA, on the gold of the training posts")
        reads = {
            "text alone": (),
            "text + teacher's knowledge": ("context=[knowledge]", f"knowledge={knowledge}"),
            "text + hand-written": (
                "context=[knowledge]",
                f"knowledge={self.sampler / 'knowledge.jsonl'}",
            ),
        }
        judged = {}
        for (name, more), folder in zip(reads.items(), ("text", "teacher", "hand"), strict=True):
            run = self.out / f"student-{folder}"
            settings = [f"data={self._data('posts')}", *more, *self.overrides, f"output={run}"]
            self._command("distill", str(self.sampler / "student.yaml"), *settings)
            with (self.out / "training.log").open("a") as log, contextlib.redirect_stdout(log):
                train.train(recipe.read(self.sampler / "student.yaml", settings))
            self._command("evaluate", str(run), "ner", self._data("posts"))
            judged[name] = judge.student(run, "ner", self._data("posts"))
            self.say(f"   {name}: " + page.in_short(judged[name]))
        self.say(f"   {page.TOY}")
        return judged

    def judge_teacher(self, task: str, data: str, prompt: str) -> judge.Judgement:
        """The teacher itself on the test split; a few of its answers beside gold where it extracts attributes."""
        if task == "attributes":
            self.say("\n4. Zero-shot extraction: the teacher reads test products; no example of the data is shown")
        self._command(
            "evaluate", "-", task, self._data(data), "--teacher", self.teacher, "--prompt", prompt, prompts=True
        )
        judged = judge.teacher(
            self.teacher, task, self._data(data), prompt=prompt, say=_nothing, describe=self._describer.describe
        )
        self.say("   " + page.in_short(judged))
        if task == "attributes":
            for line in page.extractions(judged, 4):
                self.say(f"   {line}")
        return judged

    def _data(self, name: str) -> str:
        return str(self.sampler / f"{name}.jsonl")

    def _command(self, *words: str, prompts: bool = False) -> None:
        """Print the command that does the step that follows."""
        own = f"{FOLDERS_VARIABLE}={shlex.quote(str(self.sampler / 'prompts'))} " if prompts else ""
        self.commands.append(own + shlex.join(["magister", *words]))
        self.say(f"\n   $ {self.commands[-1]}")

    @contextlib.contextmanager
    def _own_prompts(self) -> Iterator[None]:
        """Our own template folder on the path, as the printed commands have it; and quiet libraries."""
        before = os.environ.get(FOLDERS_VARIABLE)
        os.environ[FOLDERS_VARIABLE] = str(self.sampler / "prompts")
        ours = logging.getLogger("magister")
        level = ours.level
        ours.setLevel(logging.ERROR)
        _quiet()
        try:
            yield
        finally:
            ours.setLevel(level)
            del os.environ[FOLDERS_VARIABLE]
            if before is not None:
                os.environ[FOLDERS_VARIABLE] = before


def _nothing(line: str) -> None:
    """Says nothing: the steps have lines of their own."""


def _quiet() -> None:
    """No progress bars of loading weights between our lines."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
