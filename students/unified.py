"""The flagship student: one compact backbone with LoRA and the heads of both tasks, in one checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from ..prompts.questions import questions
from ..tasks import attributes, ner
from ..tasks.images import Image, ImageFault
from ..tasks.record import Record
from ..tasks.task import DataFault
from . import saving
from .collate import Item, Layout, shape_count
from .encoders import text as text_encoder
from .encoders.text import TextEncoder, UnsupportedBackbone
from .fusion.prompt import ConditionalPrompt
from .heads.tagging import TaggingHead
from .student import Batch, Output, View

HeadName = Literal["tagging", "span", "ranking", "generative"]

#: Its name in ``STUDENTS``.
NAME = "unified"

#: Which heads can answer what; of those a student has, the first in its ``heads`` answers, and all are trained.
SERVES: dict[str, tuple[HeadName, ...]] = {
    "ner": ("tagging", "span", "generative"),
    "verbatim": ("span", "generative"),
    "free": ("span", "generative"),
    "one_of": ("ranking", "generative"),
}

#: What an unlabelled first word stands for in the two-prefix form (Hsieh et al., ACL Findings 2023).
PREDICT, EXPLAIN = "predict:", "explain:"


class UnifiedConfig(Record):
    """What a `Unified` is made of. ``config.json`` keeps it.

    Attributes:
        backbone: a packaged model's short name, a path or a hub name.
        lora_rank: rank of the adapter on every linear layer of the backbone; 0 trains the backbone itself.
        lora_alpha, lora_dropout: peft's settings of the same names.
        image_encoder: an `encoders.image.ImageEncoder`'s name, or None for a student that never sees.
        prefix_length: visual key/value vectors per attention layer; 0 leaves pictures to the ranking head alone.
        prompt_length: vectors of the conditional prompt; 0 for none.
        heads: what it answers with. Of those that can serve, the first answers.
        word_shapes: whether it is told each word's casing, for lower-case vocabularies.
        max_tokens: the longest row in sub-tokens, or None for the backbone's own limit.
        context_tokens: the most sub-tokens of side text in a row, or None for as many as fit.
        dropout: on the states that heads read.
        view: what it is shown when nothing is said.
        queries: the questions' wordings by entity type or attribute; those missing are asked as `prompts` does.
        span_threshold: how far a span must score above "no answer".
        two_prefix: whether it learns to explain besides to answer; texts then begin with ``predict:`` or ``explain:``.
        masked_share: how much of an explanation an encoder is made to fill in.
    """

    backbone: str
    lora_rank: int = Field(16, ge=0)
    lora_alpha: float = 32.0
    lora_dropout: float = 0.0
    image_encoder: str | None = None
    prefix_length: int = Field(4, ge=0)
    prompt_length: int = Field(0, ge=0)
    heads: tuple[HeadName, ...] = ("tagging",)
    word_shapes: bool = False
    max_tokens: int | None = None
    context_tokens: int | None = None
    dropout: float = 0.1
    view: View = View()
    queries: dict[str, tuple[str, ...]] = {}
    span_threshold: float = 0.0
    two_prefix: bool = False
    masked_share: float = Field(0.5, gt=0, le=1)


class Unified(nn.Module):
    """One backbone, its adapter, a visual prefix, a conditional prompt and heads for the tasks of its schemas.

    Build it with `create` or `from_pretrained`. ``features`` may be replaced by a cache that gives what
    `ImageEncoder.encode` gives for a list of pictures.
    """

    def __init__(self, config: UnifiedConfig, schemas: Mapping[str, Any], encoder: TextEncoder) -> None:
        super().__init__()
        self.config, self.schemas, self.view = config, dict(schemas), config.view
        self.encoder = encoder
        self.layout = Layout(encoder, config.context_tokens)
        width = encoder.hidden
        self.shapes = nn.Embedding(shape_count(), width, padding_idx=0) if config.word_shapes else None
        if self.shapes is not None:
            nn.init.zeros_(self.shapes.weight)  # starts as the backbone that never heard of shapes
        self.prompt = ConditionalPrompt(width, config.prompt_length) if config.prompt_length else None
        self.heads = nn.ModuleDict({name: self._head(name) for name in config.heads})

    @classmethod
    def create(cls, config: UnifiedConfig, schemas: Mapping[str, Any]) -> Unified:
        """A new student on a pretrained backbone; ``schemas`` by task key."""
        encoder = text_encoder.load(config.backbone, max_tokens=config.max_tokens)
        if config.lora_rank:
            encoder.model = text_encoder.with_lora(
                encoder.model, config.lora_rank, config.lora_alpha, config.lora_dropout
            )
        return cls(config, schemas, encoder)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Unified:
        """The student that `save_pretrained` wrote."""
        folder = Path(folder)
        settings = saving.read_config(folder, NAME)
        config = UnifiedConfig(**settings["config"])
        encoder = saving.read_encoder(folder, config.backbone, config.max_tokens)
        student = cls(config, settings["schemas"], encoder)
        saving.read_weights(folder, student)
        return student.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json``, ``model.safetensors``, ``adapter/`` or ``backbone/``, ``tokenizer/``, ``README.md``."""
        settings = {
            "config": self.config.model_dump(mode="json"),
            "schemas": {key: schema.model_dump(mode="json") for key, schema in self.schemas.items()},
        }
        saving.write(Path(folder), NAME, self, self.encoder, settings)

    def _head(self, name: HeadName) -> nn.Module:
        width, dropout = self.encoder.hidden, self.config.dropout
        if name == "tagging":
            return TaggingHead(width, self.schemas["ner"].labels, dropout)
        raise NotImplementedError(name)

    def collate(self, examples: Sequence[Any], view: View | None = None) -> Batch:
        """Tensors of some examples for every head that can serve them, with gold labels where they have any."""
        return self._collate(examples, view or self.view, self._items(examples, every_head=True))

    def _items(self, examples: Sequence[Any], every_head: bool) -> dict[HeadName, list[Item]]:
        """What each head is asked; with ``every_head`` all that can serve, else the first of them."""
        asked: dict[HeadName, list[Item]] = {}
        for index, example in enumerate(examples):
            asked.setdefault("tagging", []).append(Item(index, example))
        return asked

    def _collate(self, examples: Sequence[Any], view: View, asked: Mapping[HeadName, list[Item]]) -> Batch:
        tensors: dict[str, Tensor] = {}
        counts = Counter[str]()
        for name, items in asked.items():
            own, given_up = self._of(name).collate(items, self.layout, view, self.training)
            tensors |= {f"{name}.{key}": value for key, value in own.items()}
            counts += given_up
        return Batch(tensors, examples, view, dict(counts))

    def forward(self, batch: Batch) -> Output:
        """Losses and scores of a batch; the loss is the sum over the heads."""
        losses: dict[str, Tensor] = {}
        scores: dict[str, Tensor] = {}
        for name in self.config.heads:
            own = group(batch.tensors, name)
            if own:
                loss, found = self._of(name)(self._encode(own, batch), own)
                scores |= found
                if loss is not None:
                    losses[name] = loss
        total = torch.stack(list(losses.values())).sum() if losses else None
        return Output(total, losses, scores)

    def _of(self, name: str) -> Any:
        return self.heads[name]

    def _encode(self, rows: dict[str, Tensor], batch: Batch) -> Tensor:
        """States ``[R, T, d]`` of one head's rows under the batch's view."""
        added = None if self.shapes is None else self.shapes(rows["shapes"])
        before = None
        if batch.view.prompt:
            if self.prompt is None:
                raise UnsupportedBackbone("this student has no conditional prompt: prompt_length=0")
            before = self.prompt(self.encoder.embeddings(rows["input_ids"]), rows["text"])
        return self.encoder(rows["input_ids"], rows["attention_mask"], rows["token_type_ids"], added, before)

    @torch.inference_mode()
    def predict(self, examples: Sequence[Any], view: View | None = None, batch_size: int = 32, return_scores: bool = False) -> Any:
        """The answers, in the order given."""
        view = view or self.view
        was_training = self.training
        self.eval()
        order = sorted(range(len(examples)), key=lambda i: len(examples[i].text))
        found: list[Any] = [None] * len(examples)
        for start in range(0, len(order), batch_size):
            at = order[start : start + batch_size]
            part = [examples[i] for i in at]
            asked = self._items(part, every_head=False)
            batch = self._collate(part, view, asked).to(self.device)
            scores = self(batch).scores
            for name, items in asked.items():
                for item, answer in zip(items, self._of(name).answers(items, self.layout, scores), strict=True):
                    found[at[item.index]] = answer
        self.train(was_training)
        return found if return_scores else [a for a, _ in found]

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def parameter_groups(self, learning_rate: float, head_learning_rate: float) -> list[dict[str, Any]]:
        """Every trainable parameter once: the backbone's (or its adapter's), then all others."""
        backbone = {id(p) for p in self.encoder.parameters()}
        trained = [p for p in self.parameters() if p.requires_grad]
        return [
            {"name": "backbone", "params": [p for p in trained if id(p) in backbone], "lr": learning_rate},
            {"name": "heads", "params": [p for p in trained if id(p) not in backbone], "lr": head_learning_rate},
        ]


def group(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of one head, without its name before theirs."""
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
