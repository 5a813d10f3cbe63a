"""The flagship student: one compact backbone with LoRA and the heads of both tasks, in one checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ..prompts.questions import questions
from ..tasks import attributes, ner
from ..tasks.images import Image, ImageFault
from ..tasks.record import Record
from ..tasks.task import DataFault
from . import saving
from .collate import Found, Item, Layout, group, shape_count
from .encoders import text as text_encoder
from .encoders.image import ImageEncoder
from .encoders.text import TextEncoder, UnsupportedBackbone
from .fusion.prefix import VisualPrefix
from .fusion.prompt import ConditionalPrompt
from .heads.generative import GenerativeHead
from .heads.ranking import RankingHead
from .heads.rationale import RationaleHead
from .heads.span import SpanHead
from .heads.tagging import TaggingHead
from .reading import BatchReading
from .student import Batch, Output, View

#: Its name in ``STUDENTS``.
NAME = "unified"

HeadName = Literal["tagging", "span", "ranking", "generative"]

#: Which heads can answer what. All that a student has are trained; the first in its ``heads`` answers.
SERVES: dict[str, tuple[HeadName, ...]] = {
    "ner": ("tagging", "span", "generative"),
    "verbatim": ("span", "generative"),
    "free": ("span", "generative"),
    "one_of": ("ranking", "generative"),
}

#: What stands before a text in the two-prefix form (Hsieh et al., ACL Findings 2023).
PREDICT, EXPLAIN = "predict:", "explain:"

#: The head that explains, beside those that answer.
RATIONALE = "rationale"


class UnifiedConfig(Record):
    """What a `Unified` is made of. ``config.json`` keeps it.

    Attributes:
        backbone: a packaged model's short name, a path or a hub name.
        lora_rank: rank of the adapter on every linear layer of the backbone; 0 trains the backbone itself.
        lora_alpha, lora_dropout: peft's settings of the same names; on a CPU dropout costs a fifth of a step.
        image_encoder: an `ImageEncoder`'s name, or None for a student that never sees.
        prefix_length: visual keys and values per attention layer; 0 leaves pictures to the ranking head alone.
        prompt_length: vectors of the conditional prompt; 0 for none.
        heads: what it answers with. Of those that can serve, the first answers.
        word_shapes: whether it is told each word's casing, which a lower-case vocabulary hides.
        copies: whether each word of a tagged text also reads its repetitions in the side text (`fusion.copies`).
        max_tokens: the longest row in sub-tokens, or None for the backbone's own limit.
        context_tokens: the most sub-tokens of side text in a row, or None for as many as fit.
        dropout: on the states that heads read.
        view: what it is shown when nothing is said.
        queries: the span head's wordings by entity type or attribute; `Unified.create` adds those of
            `prompts.questions` that are missing.
        span_threshold: how far a span must score above "no answer".
        two_prefix: whether it learns to explain besides to answer; texts then begin with ``predict:`` or ``explain:``.
        masked_share: how much of an explanation an encoder has to fill in.
        max_new_tokens: the longest answer that the generative head writes.
    """

    backbone: str
    lora_rank: int = Field(16, ge=0)
    lora_alpha: float = Field(32.0, gt=0)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    image_encoder: str | None = None
    prefix_length: int = Field(4, ge=0)
    prompt_length: int = Field(0, ge=0)
    heads: tuple[HeadName, ...] = Field(("tagging",), min_length=1)
    word_shapes: bool = False
    copies: bool = False
    max_tokens: int | None = Field(None, ge=8)
    context_tokens: int | None = Field(None, ge=0)
    dropout: float = Field(0.1, ge=0, lt=1)
    view: View = View()
    queries: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    span_threshold: float = 0.0
    two_prefix: bool = False
    masked_share: float = Field(0.5, gt=0, le=1)
    max_new_tokens: int = Field(128, ge=1)


class UnsupportedView(ValueError):
    """A view, or a question, that this student was not built for: says what is missing."""


class Unified(nn.Module):
    """One backbone, its adapter, a visual prefix, a conditional prompt and heads for the tasks of its schemas.

    Build it with `create` or `from_pretrained`.

    Attributes:
        view: what it is shown when nothing is said.
        heads: its heads by name; ``heads["tagging"].crf`` is the CRF whose posteriors objectives compare.
        features: gives what `ImageEncoder.encode` gives for some pictures; may be replaced by a cache of it.
        refuse_broken_images: whether a broken picture is an `ImageFault`, or missing and counted ``image_broken``.
        given_up: what the last `predict` had to give up, counted (``context_tokens_cut``, ``unreadable_length``).
    """

    def __init__(
        self,
        config: UnifiedConfig,
        schemas: Mapping[str, Any],
        encoder: TextEncoder,
        levels: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        super().__init__()
        self.config, self.schemas, self.view = config, dict(schemas), config.view
        self.levels = levels
        self.encoder = encoder
        self.layout = Layout(encoder, config.context_tokens, PREDICT if config.two_prefix else "")
        self.features: Callable[[Sequence[Image]], list[Tensor]] = self._encode_images
        self.refuse_broken_images = True
        self.given_up: dict[str, int] = {}
        width = encoder.hidden
        self.shapes = nn.Embedding(shape_count(), width, padding_idx=0) if config.word_shapes else None
        if self.shapes is not None:
            nn.init.zeros_(self.shapes.weight)  # begins as a backbone that was never told of shapes
        self.prompt = ConditionalPrompt(width, config.prompt_length) if config.prompt_length else None
        self.prefix = None
        if levels and config.prefix_length:
            self.prefix = VisualPrefix(levels, encoder.plain.config, config.prefix_length)
        self.heads = nn.ModuleDict({name: self._head(name) for name in config.heads})
        if config.two_prefix:
            self.heads[RATIONALE] = RationaleHead(encoder, config.masked_share)

    @classmethod
    def create(cls, config: UnifiedConfig, schemas: Mapping[str, Any]) -> Unified:
        """A new student on a pretrained backbone.

        Args:
            config: what it is made of.
            schemas: the schema of each task it is to serve, by the task's key.

        Raises:
            UnsupportedBackbone: the backbone cannot carry one of the heads.
            UnsupportedView: a head whose task has no schema.
        """
        asked = {label: texts for key, schema in schemas.items() for label, texts in questions(key, schema).items()}
        config = config.model_copy(update={"queries": {**asked, **config.queries}})
        encoder = text_encoder.load(config.backbone, max_tokens=config.max_tokens)
        if config.lora_rank:
            encoder.model = text_encoder.with_lora(
                encoder.model, config.lora_rank, config.lora_alpha, config.lora_dropout
            )
        levels = ImageEncoder(config.image_encoder).levels if config.image_encoder else None
        return cls(config, schemas, encoder, levels)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Unified:
        """The student that `save_pretrained` wrote, in eval mode."""
        folder = Path(folder)
        settings = saving.read_config(folder, NAME)
        config = UnifiedConfig(**settings["config"])
        encoder = saving.read_encoder(folder, config.backbone, config.max_tokens)
        levels = [(cells, channels) for cells, channels in settings["image_levels"] or ()]
        student = cls(config, settings["schemas"], encoder, levels or None)
        saving.read_weights(folder, student)
        return student.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json``, ``model.safetensors``, ``adapter/`` or ``backbone/``, ``tokenizer/``, a card."""
        settings = {
            "config": self.config.model_dump(mode="json"),
            "schemas": {key: schema.model_dump(mode="json") for key, schema in self.schemas.items()},
            "image_levels": self.levels,
        }
        saving.write(Path(folder), NAME, self, self.encoder, settings)

    def _head(self, name: HeadName) -> nn.Module:
        config, width = self.config, self.encoder.hidden
        needs = {"tagging": "ner", "ranking": "attributes"}.get(name)
        if needs and needs not in self.schemas:
            raise UnsupportedView(f"the head {name} is for the task {needs}, which has no schema here")
        if name == "tagging":
            return TaggingHead(width, self.schemas["ner"].labels, config.dropout, config.copies)
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
                found.setdefault((name, name in ("tagging", "generative")), []).extend(labels)

        if isinstance(example, ner.Example):
            ask("ner", self._schema("ner").labels)
            return found
        schema = self._schema("attributes")
        for name in example.asked:
            try:
                ask(schema.attribute(name, example.category).type, [name])
            except KeyError as error:
                raise DataFault(f"example {example.id}", error.args[0]) from None
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
            pictures, given_up = self._pictures(examples)
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

    def _of(self, name: str) -> Any:
        return self.heads[name]

    @cached_property
    def image_encoder(self) -> ImageEncoder:
        """The frozen image encoder, loaded when a picture is first seen."""
        assert self.config.image_encoder is not None
        return ImageEncoder(self.config.image_encoder)

    def _encode_images(self, images: Sequence[Image]) -> list[Tensor]:
        with torch.no_grad():
            return self.image_encoder.encode(images)

    def _pictures(self, examples: Sequence[Any]) -> tuple[dict[str, Tensor], Counter[str]]:
        """Features of each example's first picture, one ``[B, cells, channels]`` a level; nothing if none has one."""
        counts = Counter[str]()
        features: dict[int, list[Tensor]] = {}
        seen = {i: e.images[0] for i, e in enumerate(examples) if e.images}
        counts["image_missing"] = len(examples) - len(seen)
        counts["image_beyond_first"] = sum(len(e.images) - 1 for e in examples if e.images)
        try:
            found = self.features(list(seen.values())) if seen else []
            features = {i: [level[at] for level in found] for at, i in enumerate(seen)}
        except ImageFault:
            if self.refuse_broken_images:
                raise
            for i, image in seen.items():
                try:
                    features[i] = [level[0] for level in self.features([image])]
                except ImageFault:
                    counts["image_broken"] += 1
        if not features:
            return {}, +counts
        tensors = {"image.present": torch.tensor([i in features for i in range(len(examples))])}
        for number, (cells, channels) in enumerate(self.levels or ()):
            blank = torch.zeros(cells, channels)
            rows = [features[i][number].float().cpu() if i in features else blank for i in range(len(examples))]
            tensors[f"image.level{number}"] = torch.stack(rows)
        return tensors, +counts

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

    @torch.no_grad()
    def predict(
        self,
        examples: Sequence[Any],
        view: View | None = None,
        batch_size: int = 32,
        return_scores: bool = False,
    ) -> Any:
        """The tasks' answers, in the order given.

        With ``return_scores`` a list of ``(answer, scores)``: for `ner` the probability of each entity, for
        `attributes` that of each value by attribute; None where the generative head wrote it.
        """
        view = view or self.view
        if view.explain:
            raise UnsupportedView("predict answers; a view that explains is for training")
        was_training = self.training
        self.eval()
        try:
            found, given_up = self._predict(examples, view, batch_size)
        finally:
            self.train(was_training)
        self.given_up = dict(given_up)
        return found if return_scores else [answer for answer, _ in found]

    def _predict(self, examples: Sequence[Any], view: View, batch_size: int) -> tuple[list[Any], Counter[str]]:
        # Texts of like length share a batch, so that little of it is padding.
        order = sorted(range(len(examples)), key=lambda i: len(examples[i].text))
        answers: list[Any] = [None] * len(examples)
        given_up = Counter[str]()
        for start in range(0, len(order), batch_size):
            at = order[start : start + batch_size]
            part = [examples[i] for i in at]
            asked = self._asked(part, every_head=False)
            batch = self._collate(part, view, asked).to(self.device)
            given_up.update(batch.counts)
            found: list[list[Found]] = [[] for _ in part]
            reading = BatchReading(self, batch)
            for name, items in asked.items():
                own = group(batch.tensors, name)
                if name == "generative":
                    said, unread = self._of(name).answer_all(reading, items, self.layout, own)
                    given_up.update(unread)
                else:
                    _, scores = self._of(name)(reading, own)
                    said = self._of(name).answers(items, self.layout, scores, own)
                for item, one in zip(items, said, strict=True):
                    found[item.index].append(one)
            for i, example, own_found in zip(at, part, found, strict=True):
                answers[i] = _answer(example, own_found)
        return answers, given_up

    @property
    def device(self) -> torch.device:
        """Where its weights lie."""
        return next(self.parameters()).device

    def parameter_groups(self, learning_rate: float, head_learning_rate: float) -> list[dict[str, Any]]:
        """Every trainable parameter once: the backbone's (or its adapter's), then all others, as an optimiser wants."""
        trained = [p for p in self.parameters() if p.requires_grad]
        backbone = [p for p in self.encoder.parameters() if p.requires_grad]
        known = {id(p) for p in backbone}
        others = [p for p in trained if id(p) not in known]
        assert len(trained) == len(backbone) + len(others)
        return [
            {"name": "backbone", "params": backbone, "lr": learning_rate},
            {"name": "heads", "params": others, "lr": head_learning_rate},
        ]


def _answer(example: Any, found: Sequence[Found]) -> tuple[Any, Any]:
    """One example's answer and its probabilities, of what the heads found."""
    if isinstance(example, ner.Example):
        entities = sorted(
            (pair for one in found if isinstance(one, list) for pair in one),
            key=lambda pair: (pair[0].start is None, pair[0].start or 0),
        )
        return ner.Answer(entities=tuple(e for e, _ in entities)), [score for _, score in entities]
    merged = {name: said for one in found if isinstance(one, dict) for name, said in one.items()}
    values = {name: merged[name][0] for name in example.asked}
    return attributes.Answer(values=values), {name: merged[name][1] for name in example.asked}
