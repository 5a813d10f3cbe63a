"""A recipe: everything one training run is made of, as a flat YAML file with strict keys."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, ValidationError

from .. import students
from ..students.settings import StudentConfig


class RecipeFault(ValueError):
    """A recipe that cannot be used: lists every mistake, each with its place and what to do."""

    def __init__(self, where: str, mistakes: Sequence[str]) -> None:
        self.where, self.mistakes = where, tuple(mistakes)
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__("\n".join([f"{where}: {count}", *(f"  - {m}" for m in mistakes)]))


#: One name or a list of them.
Names = Annotated[tuple[str, ...], BeforeValidator(lambda v: () if v is None else (v,) if isinstance(v, str) else v)]


class Recipe(BaseModel):
    """One run. `read` makes one of a YAML file; the resolved copy lies in the run's folder.

    Attributes are grouped in the order in which a run uses them. Lengths are in sub-tokens, fractions in
    0..1. In the file the student's own settings (its ``Config``) are keys beside these; here they are
    ``settings``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    # The student.
    task: Literal["ner", "attributes", "relations"]
    student: str = "unified"
    settings: SerializeAsAny[StudentConfig]

    # The data.
    data: str
    train_split: Names = ("train",)
    valid_split: str = "valid"
    test_split: str = "test"
    valid_fraction: float | None = Field(None, gt=0, lt=1)
    train_fraction: float = Field(1.0, gt=0, le=1)
    train_limit: int | None = Field(None, ge=1)
    valid_limit: int | None = Field(None, ge=1)
    test_limit: int | None = Field(None, ge=1)
    text: bool = True
    context: tuple[str, ...] = ()
    images: bool = False
    knowledge: str | None = None
    knowledge_prompt: str | None = None
    answers: str | None = None
    answers_prompt: str | None = None
    extra_data: tuple[str, ...] = ()
    extra_knowledge: tuple[str, ...] = ()
    extra_split: Names = ("train",)
    extra_limit: int | None = Field(None, ge=1, description="examples taken of each extra set")
    augment: str | None = None
    augment_dimensions: tuple[Literal["style", "entity", "image"], ...] = ("style", "entity", "image")
    without: Names = ()

    # What is learned from.
    objective: Literal["gold", "two_prefix", "prompt_distillation", "cross_view", "queries"] = "gold"
    teacher_context: tuple[str, ...] = ("knowledge",)
    teacher_run: Names = ()
    kd_target: Literal["label", "hidden", "both"] = "label"
    kd_level: Literal["emission", "crf_marginal", "crf_pairwise"] = "crf_marginal"
    kd_direction: Literal["teacher_detached", "both"] = "teacher_detached"
    trust: bool = False
    modality_dropout: float = Field(0.0, ge=0, le=1)
    alpha: float = Field(1.0, ge=0)
    beta: float = Field(1.0, ge=0)
    temperature: float = Field(2.0, gt=0)
    beta_warmup_epochs: float = Field(1.0, ge=0)

    # How it is optimised.
    seed: int = Field(0, ge=0)
    epochs: int = Field(6, ge=1)
    batch_size: int = Field(16, ge=1)
    accumulation: int = Field(1, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    head_learning_rate: float = Field(1e-3, gt=0)
    warmup: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    clip: float = Field(1.0, gt=0)
    schedule: Literal["linear", "constant"] = "linear"
    precision: Literal["bf16", "fp32"] = "bf16"
    evals_per_epoch: int = Field(1, ge=1)
    patience: int = Field(0, ge=0, description="evaluations without a better score before it stops; 0: never")
    threads: int | None = Field(None, ge=1)

    # Where it goes.
    output: str = "runs/unnamed"
    save_steps: int = Field(100, ge=1)

    def clashes(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Settings that contradict each other: the fields concerned, and what to do about it."""
        reads = ("objective", "knowledge")
        told = self.objective == "prompt_distillation" and "knowledge" in self.teacher_context
        if (self.objective == "two_prefix" or told) and not self.knowledge:
            yield (
                reads,
                f"objective {self.objective} needs knowledge: the teacher's texts (a file or a corpus)",
            )
        if self.objective in ("two_prefix", "prompt_distillation") and "knowledge" in self.context:
            yield (
                ("objective", "context"),
                f"objective {self.objective}: its student does not read knowledge, take it out of context",
            )
        if "knowledge" in self.context and not self.knowledge:
            yield (
                ("context", "knowledge"),
                "context names knowledge, but knowledge (where it lies) is not set",
            )
        if self.answers_prompt and not self.answers:
            yield ("answers_prompt", "answers"), "answers_prompt chooses among answers, and answers is not set"
        if self.objective == "two_prefix" and self.alpha > 1:
            yield (
                ("objective", "alpha"),
                "two_prefix weighs alpha * label + (1 - alpha) * rationale: alpha is 0 to 1",
            )
        yield from self._distillation_clashes()
        if len(self.extra_data) != len(self.extra_knowledge):
            yield (
                ("extra_data", "extra_knowledge"),
                f"extra_data names {len(self.extra_data)} sets, extra_knowledge {len(self.extra_knowledge)}: "
                "each set needs its own",
            )
        if self.augment and self.epochs < 2:
            yield ("augment", "epochs"), "augment needs 2 epochs or more: the last one is of real examples alone"
        if self.augment and self.task == "attributes":
            yield (
                ("augment", "task"),
                "augment is for ner and relations: attributes have no mentions to keep",
            )
        if self.task not in self.settings.tasks:
            yield (
                ("task", "student"),
                f"the student {self.student} is for {', '.join(self.settings.tasks)}, not {self.task}",
            )
        if self.objective not in self.settings.objectives:
            yield (
                ("objective", "student"),
                f"the student {self.student} learns by {', '.join(self.settings.objectives)}, not {self.objective}",
            )
        if self.images and not self.settings.image_encoder:
            yield (
                ("images", "image_encoder"),
                "images: true needs an image_encoder, for example efficientnet-lite0",
            )
        if not self.text and not self.images:
            yield ("text", "images"), "text: false needs images: true, or nothing is read at all"
        if self.beta_warmup_epochs > self.epochs:
            yield (
                ("beta_warmup_epochs", "epochs"),
                "beta_warmup_epochs is more than epochs: beta would never count",
            )
        yield from self.settings.clashes(self)

    def _distillation_clashes(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Those of the settings that say how one view teaches another."""
        prompted = self.objective == "prompt_distillation"
        if prompted and set(self.teacher_context) <= set(self.context):
            yield (
                ("teacher_context", "context"),
                "teacher_context must name a side text that context has not, such as knowledge: it is what the teacher "
                "knows more",
            )
        only = {"teacher_run": self.teacher_run, "extra_data": self.extra_data}
        for name, used in {**only, "modality_dropout": self.modality_dropout}.items():
            if used and not prompted:
                yield ("objective", name), f"{name} is only read by the objective prompt_distillation"
        if self.objective == "cross_view" and not self.context:
            yield ("objective", "context"), "cross_view sets a text apart from its side texts: context names none"
        if self.objective == "cross_view" and self.beta >= 1:
            yield (
                ("objective", "beta"),
                "cross_view weighs (1 - beta) * labels + beta * divergence: beta is below 1, and 0.5 as published",
            )
        if self.modality_dropout and not {"knowledge"} < set(self.teacher_context):
            yield (
                ("modality_dropout", "teacher_context"),
                "modality_dropout drops knowledge or what stands beside it: teacher_context: [caption, knowledge]",
            )
        switches = ("kd_target", "kd_level", "kd_direction", "trust")
        switched = [name for name in switches if getattr(self, name) != type(self).model_fields[name].default]
        if switched and self.objective not in ("prompt_distillation", "cross_view"):
            yield (
                ("objective", *switched),
                f"{', '.join(switched)}: only read by the objectives prompt_distillation and cross_view",
            )
        if "kd_level" in switched and self.task != "ner":
            yield ("kd_level", "task"), f"kd_level {self.kd_level} is a tagger's; {self.task} has one distribution"
        live = [name for name in switched if name != "kd_level"]
        live += ["modality_dropout"] if self.modality_dropout else []
        if self.teacher_run and live:
            yield (
                ("teacher_run", *live),
                f"{', '.join(live)}: of a finished teacher_run only its posteriors are there, leave them out",
            )


#: The recipes that come with the package, one folder a task.
SHIPPED = Path(__file__).parent / "recipes"

#: Stand in for a required field that is wrong itself, so that the other checks still run.
_PLACEHOLDERS = {"task": "ner", "data": "?"}


def read(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a YAML file with ``key=value`` overrides; a `RecipeFault` with all its mistakes.

    An override's value is read as YAML: ``context=[caption,knowledge]``, ``lora_rank=8``, ``knowledge=null``.
    """
    path = locate(path)
    try:
        source = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeFault(str(path), [f"cannot be read: {error.strerror}"]) from None
    values, places, mistakes = _pairs(source, str(path))
    seen: set[str] = set()
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip()
        if not equals or not key:
            mistakes.append(f"override {override!r}: write key=value")
            continue
        if key in seen:
            mistakes.append(f"override {override!r}: {key} is overridden twice")
        seen.add(key)
        try:
            values[key], places[key] = yaml.safe_load(text), f"override {override!r}"
        except yaml.YAMLError as error:
            mistakes.append(f"override {override!r}: not a YAML value ({_first_line(error)})")
    values.setdefault("output", f"runs/{path.stem}")
    return check(values, str(path), places, mistakes)


def locate(name: str | Path) -> Path:
    """A recipe's file: the path as given, else a shipped recipe (``ner/unified-twitter2017.yaml``)."""
    path = Path(name)
    if path.exists():
        return path
    shipped = {str(p.relative_to(SHIPPED)): p for p in SHIPPED.rglob("*.yaml")}
    wanted = str(name) if str(name).endswith(".yaml") else f"{name}.yaml"
    if wanted in shipped:
        return shipped[wanted]
    near = difflib.get_close_matches(wanted, shipped, n=1) or sorted(shipped)
    raise RecipeFault(str(name), [f"there is no such file, and no such shipped recipe; there is {', '.join(near)}"])


def check(
    values: Mapping[str, Any],
    where: str = "recipe",
    places: Mapping[str, str] | None = None,
    mistakes: Sequence[str] = (),
) -> Recipe:
    """The recipe of some settings; a `RecipeFault` with all mistakes: unknown keys, wrong values,
    contradictions.
    """
    places, found = places or {}, list(mistakes)
    name = values.get("student", "unified")
    if name not in students.STUDENTS:
        raise RecipeFault(where, [*found, f"student: there is no {name!r}; there are: {', '.join(students.STUDENTS)}"])
    config = students.find(name).Config
    own_keys = config.model_fields.keys() - config.derived
    keys = {*Recipe.model_fields, *own_keys} - {"settings"}
    at = lambda key: f"{places[key]}: " if key in places else ""
    for key in values:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=1)
            found.append(f"{at(key)}unknown key {key!r}" + (f", did you mean {near[0]!r}?" if near else ""))
    given = {k: v for k, v in values.items() if k in keys}
    own, wrong = _made(config, {k: v for k, v in given.items() if k in own_keys}, at, {})
    rest = {k: v for k, v in given.items() if k not in own_keys}
    recipe, more = _made(Recipe, rest, at, _PLACEHOLDERS, settings=own)
    wrong |= more
    found += wrong.values()
    for fields, message in recipe.clashes():
        if not wrong.keys() & set(fields):
            found.append(message)
    if found:
        raise RecipeFault(where, found)
    return recipe


def _made(
    kind: Any, values: Mapping[str, Any], at: Callable[[str], str], stand_ins: Mapping[str, Any], **more: Any
) -> tuple[Any, dict[str, str]]:
    """The record of some settings and, by field, what is wrong with them (the record is then made without these)."""
    try:
        return kind.model_validate({**values, **more}), {}
    except ValidationError as error:
        wrong: dict[str, str] = {}
        for problem in error.errors():
            key = str(problem["loc"][0])
            if problem["type"] == "missing":
                wrong[key] = f"{key}: required, and not there"
            else:
                wrong[key] = f"{at(key)}{key}: {problem['msg']}, not {_shown(problem['input'])}"
        good = {k: v for k, v in values.items() if k not in wrong}
        return kind.model_validate({**stand_ins, **good, **more}), wrong


def flat(recipe: Recipe) -> dict[str, Any]:
    """The recipe as its file has it: the student's own settings beside the run's."""
    run = recipe.model_dump(mode="json", exclude={"settings"})
    own = recipe.settings.model_dump(mode="json", exclude=set(recipe.settings.derived))
    return {"task": run.pop("task"), "student": run.pop("student"), **own, **run}


def dump(recipe: Recipe) -> str:
    """The recipe with every setting written out, as YAML that `read` takes again."""
    return yaml.safe_dump(flat(recipe), sort_keys=False, allow_unicode=True)


def _pairs(source: str, where: str) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Settings, their line numbers, and what is wrong with the file as YAML (a key given twice, most of
    all).
    """
    try:
        loader = yaml.SafeLoader(source)
        node = loader.get_single_node()
        if node is None:
            raise RecipeFault(where, ["the file is empty"])
        if not isinstance(node, yaml.MappingNode):
            raise RecipeFault(where, ["not a list of `key: value` lines"])
        values: dict[str, Any] = {}
        places: dict[str, str] = {}
        mistakes = []
        for key_node, value_node in node.value:
            key, place = str(loader.construct_object(key_node)), f"line {key_node.start_mark.line + 1}"
            if key in values:
                mistakes.append(f"{place}: {key!r} is given again (first on {places[key]})")
                continue
            values[key], places[key] = loader.construct_object(value_node, deep=True), place
    except yaml.YAMLError as error:
        raise RecipeFault(where, [f"not YAML: {_first_line(error)}"]) from None
    return values, places, mistakes


def _first_line(error: yaml.YAMLError) -> str:
    return " ".join(str(error).split())


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
