"""The flagship student: one compact backbone with LoRA and the heads of both tasks, in one checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ..prompts.questions import questions
from ..tasks import attributes, ner, relations
from ..tasks.attributes import attribute_of
from .collate import Found, Item, Layout, group
from .encoders.shapes import InputShapes
from .encoders.text import TextEncoder, UnsupportedBackbone
from .fused import as_answer
from .fusion.prefix import VisualPrefix
from .fusion.prompt import ConditionalPrompt
from .heads.crf import CRF
from .heads.generative import GenerativeHead
from .heads.pair import PairHead
from .heads.ranking import RankingHead
from .heads.rationale import RationaleHead
from .heads.span import SpanHead
from .heads.tagging import TaggingHead
from .reading import BatchReading
from .settings import BackboneConfig, Clash
from .student import Batch, Output, View
from .system import System, UnsupportedView

#: Its name in ``STUDENTS``.
NAME = "unified"

HeadName = Literal["tagging", "span", "ranking", "generative", "pair"]

#: Which heads can answer what. All that a student has are trained; the first in its ``heads`` answers.
SERVES: dict[str, tuple[HeadName, ...]] = {
    "ner": ("tagging", "span", "generative"),
    "verbatim": ("span", "generative"),
    "free": ("span", "generative"),
    "number": ("span", "generative"),
    "date": ("span", "generative"),
    "one_of": ("ranking", "generative"),
    "boolean": ("ranking", "generative"),
    "several": ("generative",),
    "relations": ("pair",),
}

#: The task of each head that serves only one.
HEAD_TASKS = {"tagging": "ner", "ranking": "attributes", "pair": "relations"}

#: Packaged backbones without a decoder; others are judged when their config is read.
ENCODERS = ("minilm",)

#: What stands before a text in the two-prefix form (Hsieh et al., ACL Findings 2023).
PREDICT, EXPLAIN = "predict:", "explain:"

#: The head that explains, beside those that answer.
RATIONALE = "rationale"


class UnifiedConfig(BackboneConfig):
    """What a `Unified` is made of. ``config.json`` keeps it.

    Attributes:
        prefix_length: visual keys and values per attention layer; 0 leaves pictures to the ranking head alone.
        prompt_length: vectors of the conditional prompt; 0 for none.
        heads: what it answers with. Of those that can serve, the first answers.
        word_shapes: whether it is told each word's casing, which a lower-case vocabulary hides.
        copies: whether each word of a tagged text also reads its repetitions in the side text (`fusion.copies`).
        queries: the span head's wordings by entity type or attribute; `Unified.create` adds those of
            `prompts.questions` that are missing.
        span_threshold: how far a span must score above "no answer".
        two_prefix: whether it learns to explain besides to answer; texts then begin with ``predict:`` or ``explain:``.
        masked_share: how much of an explanation an encoder has to fill in.
        max_new_tokens: the longest answer that the generative head writes.
    """

    tasks = ("ner", "attributes", "relations")
    objectives = ("gold", "two_prefix", "prompt_distillation", "queries")
    derived = frozenset({"view", "two_prefix"})

    prefix_length: int = Field(4, ge=0)
    prompt_length: int = Field(0, ge=0)
    heads: tuple[HeadName, ...] = Field(("tagging",), min_length=1)
    word_shapes: bool = False
    copies: bool = False
    queries: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    span_threshold: float = 0.0
    two_prefix: bool = False
    masked_share: float = Field(0.5, gt=0, le=1)
    max_new_tokens: int = Field(128, ge=1)

    def clashes(self, recipe: Any) -> Iterator[Clash]:
        """Heads that do not fit the task, the backbone or the objective; pictures that nothing lets in."""
        task, objective = recipe.task, recipe.objective
        if objective == "prompt_distillation" and not self.prompt_length and not recipe.teacher_run:
            yield (
                ("objective", "prompt_length", "teacher_run"),
                "prompt_distillation needs prompt_length above 0 (the student's prompt) or a teacher_run",
            )
        for head, own in HEAD_TASKS.items():
            if head in self.heads and task != own:
                yield ("heads", "task"), f"the head {head} is for the task {own}, not {task}"
        if objective == "queries" and "span" not in self.heads:
            yield ("objective", "heads"), "objective queries is learned by the span head: heads: [span]"
        if "generative" in self.heads and self.backbone in ENCODERS:
            yield (
                ("heads", "backbone"),
                f"the head generative needs a decoder, and {self.backbone} is an encoder",
            )
        if recipe.images and not self.prefix_length:
            yield (
                ("images", "prefix_length"),
                "images: true needs prefix_length above 0: pictures enter there",
            )


class Unified(System):
    """One backbone, its adapter, a visual prefix, a conditional prompt and heads for the tasks of its schemas.

    Build it with `create` or `from_pretrained`.

    Attributes:
        heads: its heads by name.
    """

    NAME = NAME
    Config = UnifiedConfig
    encoder: TextEncoder

    def build(self) -> None:
        """Its parts."""
        config, encoder, levels = self.config, self.encoder, self.levels
        self.layout = Layout(encoder, config.context_tokens, PREDICT if config.two_prefix else "")
        width = encoder.hidden
        self.shapes = InputShapes(width, config.word_shapes, marks="relations" in self.schemas)
        self.prompt = ConditionalPrompt(width, config.prompt_length) if config.prompt_length else None
        self.prefix = None
        if levels and config.prefix_length:
            self.prefix = VisualPrefix(levels, encoder.plain.config, config.prefix_length)
        self.heads = nn.ModuleDict({name: self._head(name) for name in config.heads})
        if config.two_prefix:
            self.heads[RATIONALE] = RationaleHead(encoder, config.masked_share)

    @classmethod
    def create(cls, config: UnifiedConfig, schemas: Mapping[str, Any], examples: Sequence[Any] = ()) -> Unified:
        """A new student on a pretrained backbone, with our questions where the config has none.

        Raises:
            UnsupportedBackbone: the backbone cannot carry one of the heads.
            UnsupportedView: a head whose task has no schema.
        """
        asked = {label: texts for key, schema in schemas.items() for label, texts in questions(key, schema).items()}
        return super().create(config.model_copy(update={"queries": {**asked, **config.queries}}), schemas, examples)

    def _head(self, name: HeadName) -> nn.Module:
        config, width = self.config, self.encoder.hidden
        needs = HEAD_TASKS.get(name)
        if needs and needs not in self.schemas:
            raise UnsupportedView(f"the head {name} is for the task {needs}, which has no schema here")
        if name == "tagging":
            return TaggingHead(width, self.schemas["ner"].labels, config.dropout, config.copies)
        if name == "pair":
            return PairHead(width, self.schemas["relations"], config.dropout)
        if name == "span":
            return SpanHead(width, config.dropout, config.queries, config.span_threshold)
        if name == "ranking":
            channels = self.levels[-1][1] if self.levels else None
            return RankingHead(width, channels, config.dropout, self.schemas["attributes"])
        if not self.encoder.decoder:
            raise UnsupportedBackbone(
                f"{config.backbone} is an encoder and cannot write: the head generative needs a decoder (gemma-270m)"
            )
        return GenerativeHead(self.schemas, config.max_new_tokens)

    def collate(self, examples: Sequence[Any], view: View | None = None) -> Batch:
        """Tensors of some examples for every head that can serve them, with gold labels where they have any."""
        view = view or self.view
        if view.explain:
            return self._collate(examples, view, {RATIONALE: [Item(i, e) for i, e in enumerate(examples)]})
        return self._collate(examples, view, self._asked(examples, every_head=True))

    def _asked(self, examples: Sequence[Any], every_head: bool) -> dict[str, list[Item]]:
        """What each head is asked: with ``every_head`` all that can serve, else the first of them."""
        asked: dict[str, list[Item]] = {}
        for index, example in enumerate(examples):
            for (name, together), labels in self._labels(example, every_head).items():
                groups = [tuple(labels)] if together else [(label,) for label in labels]
                asked.setdefault(name, []).extend(Item(index, example, labels) for labels in groups)
        return asked

    def _labels(self, example: Any, every_head: bool) -> dict[tuple[str, bool], list[str]]:
        """The labels that each head is asked of an example, and whether it is asked all of them at once."""
        found: dict[tuple[str, bool], list[str]] = {}

        def ask(kind: str, labels: Sequence[str]) -> None:
            serving = [name for name in self.config.heads if name in SERVES[kind]]
            if not serving:
                needed = " or ".join(SERVES[kind])
                raise UnsupportedView(
                    f"example {example.id}: {kind} ({', '.join(labels)}) needs the head {needed}; "
                    f"this student has: {', '.join(self.config.heads)}"
                )
            for name in serving if every_head else serving[:1]:
                found.setdefault((name, name in ("tagging", "generative", "pair")), []).extend(labels)

        if isinstance(example, ner.Example):
            ask("ner", self._schema("ner").labels)
            return found
        if isinstance(example, relations.Example):
            ask("relations", self._schema("relations").labels)
            return found
        schema = self._schema("attributes")
        for name in example.asked:
            attribute = attribute_of(schema, example, name)
            ask("several" if attribute.many else attribute.type, [name])
        return found

    def _schema(self, key: str) -> Any:
        if key not in self.schemas:
            raise UnsupportedView(f"this student was built for: {', '.join(self.schemas)}; not for {key}")
        return self.schemas[key]

    def _collate(self, examples: Sequence[Any], view: View, asked: Mapping[str, list[Item]]) -> Batch:
        self._check(view, asked)
        layout = replace(self.layout, lead=EXPLAIN) if view.explain else self.layout
        tensors: dict[str, Tensor] = {}
        counts = Counter[str]()
        for name, items in asked.items():
            own, given_up = self._of(name).collate(items, layout, view, self.training)
            tensors |= {f"{name}.{key}": value for key, value in own.items()}
            counts += given_up
        if view.images:
            pictures, given_up = self.pictures(examples)
            tensors |= pictures
            counts += given_up
        return Batch(tensors, examples, view, dict(counts))

    def _check(self, view: View, asked: Mapping[str, list[Item]]) -> None:
        """Refuse a view that this student cannot be shown."""
        if view.prompt and self.prompt is None:
            raise UnsupportedView("this student has no conditional prompt (prompt_length=0)")
        if view.images and self.levels is None:
            raise UnsupportedView("this student cannot see (image_encoder=None)")
        if view.explain and not self.config.two_prefix:
            raise UnsupportedView("this student does not explain (two_prefix=False)")
        unable = sorted({"tagging", "span", RATIONALE} & asked.keys())
        if not view.text and unable:
            raise UnsupportedView(f"without text there is nothing to mark for: {', '.join(unable)}")

    @property
    def crf(self) -> CRF:
        """The tagging head's, whose posteriors objectives compare."""
        crf: CRF = self._of("tagging").crf
        return crf

    def _of(self, name: str) -> Any:
        return self.heads[name]

    def forward(self, batch: Batch) -> Output:
        """Losses and scores of a batch; its loss is the sum of the heads'.

        ``scores`` hold ``emissions [B, W, K]`` with ``word_mask [B, W]`` (tagging, one row a text), ``span [R, U, U]``
        and ``ranking [I, O + 1]``.
        """
        reading = BatchReading(self, batch)
        losses: dict[str, Tensor] = {}
        scores: dict[str, Tensor] = {}
        for name in self.heads:
            own = group(batch.tensors, name)
            if own:
                loss, found = self._of(name)(reading, own)
                scores |= found
                if loss is not None:
                    losses[name] = loss
        total = torch.stack(list(losses.values())).sum() if losses else None
        return Output(total, losses, scores)

    def answer(self, examples: Sequence[Any], view: View) -> tuple[list[tuple[Any, Any]], Mapping[str, int]]:
        """What the first head that can serve says of each example; no probability where the generative head wrote."""
        if view.explain:
            raise UnsupportedView("predict answers; a view that explains is for training")
        asked = self._asked(examples, every_head=False)
        batch = self._collate(examples, view, asked).to(self.device)
        given_up = Counter(batch.counts)
        found: list[list[Found]] = [[] for _ in examples]
        reading = BatchReading(self, batch)
        for name, items in asked.items():
            own = group(batch.tensors, name)
            if name == "generative":
                said, unread = self._of(name).answer_all(reading, items, self.layout, own)
                given_up.update(unread)
            else:
                _, scores = self._of(name)(reading, own)
                if self.watch is not None:
                    self.watch(batch, scores)
                said = self._of(name).answers(items, self.layout, scores, own)
            for item, one in zip(items, said, strict=True):
                found[item.index].append(one)
        return [_answer(example, own_found) for example, own_found in zip(examples, found, strict=True)], given_up


def _answer(example: Any, found: Sequence[Found]) -> tuple[Any, Any]:
    """One example's answer and its probabilities, of what the heads found."""
    if isinstance(example, ner.Example):
        entities = sorted(
            (pair for one in found if isinstance(one, list) for pair in one),
            key=lambda pair: (pair[0].start is None, pair[0].start or 0),
        )
        return ner.Answer(entities=tuple(e for e, _ in entities)), [score for _, score in entities]
    if isinstance(example, relations.Example):
        (label,) = found
        return as_answer(label)
    merged = {name: said for one in found if isinstance(one, dict) for name, said in one.items()}
    values = {name: merged[name][0] for name in example.asked}
    return attributes.Answer(values=values), {name: merged[name][1] for name in example.asked}
