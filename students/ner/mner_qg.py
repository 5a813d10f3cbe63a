"""MNER-QG: one guideline query a type, spans of it found in text and query-guided regions (Jia et al., AAAI 2023)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ...prompts.questions import questions
from ...tasks import ner
from ..collate import Item, Layout
from ..encoders.shapes import InputShapes
from ..encoders.text import TextEncoder, UnsupportedBackbone
from ..fusion.coattention import Block
from ..fusion.gated import RegionGate
from ..heads.enumerated import SpanMLP, enumerate_spans
from ..heads.span import gold_spans, wording
from ..settings import BackboneConfig, Clash
from ..student import Batch, Output, View
from ..system import System, UnsupportedView
from ..units import Laid, lay, unit_states


class MNERQGConfig(BackboneConfig):
    """What an `MNERQG` is made of.

    The paper's loss weights, apart from 1 for starts, ends and spans, and its thresholds are not known to us.

    Attributes:
        word_shapes: whether it is told each word's casing, which a lower-case vocabulary hides.
        queries: wordings by entity type, any of them in training, the first at test; `MNERQG.create` adds those of
            `prompts.questions` that are missing.
        existence: whether it says first if there is any entity of the type; that gates what is taken of the picture,
            and where it says no there is no span.
        grounding: whether the query says how far each region is let through; else all regions stand open.
        existence_weight: of its loss.
        existence_positive: weight of an item with an entity in it; most (text, type) items have none.
        attention_heads: of the attention over regions; they divide the backbone's width.
        width: of the span scorer's hidden layer.
        longest: spans of more words are no entities.
        threshold: what a probability of start, end and span must exceed. The system is precise and finds little: a
            lower one is worth trying on validation.
        existence_threshold: what the probability of existence must reach.
    """

    tasks = ("ner",)

    word_shapes: bool = False
    queries: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(default_factory=dict)
    existence: bool = True
    grounding: bool = True
    existence_weight: float = Field(0.5, ge=0)
    existence_positive: float = Field(2.0, gt=0)
    attention_heads: int = Field(8, ge=1)
    width: int = Field(128, ge=1)
    longest: int = Field(12, ge=1)
    threshold: float = Field(0.5, ge=0, lt=1)
    existence_threshold: float = Field(0.5, ge=0, le=1)

    def clashes(self, recipe: Any) -> Iterator[Clash]:
        """No text to mark."""
        if not recipe.text:
            yield ("text", "student"), "mner_qg marks entities in the text: text: true"


class MNERQG(System):
    """Reads ``[CLS] query [SEP] text [SEP]`` once a type: four passes a tweet of four types.

    ``H`` are the row's states, ``q`` the mean of those of ``[CLS] query [SEP]``, ``r_k`` the regions (cells of a
    7 x 7 grid, projected):

    - grounding: ``c_k = sigmoid(q^T W r_k / sqrt(d) + w . r_k + b)``, the region's confidence for this type;
    - ``V = CA(H, c r)`` (`fusion.coattention.Block`), 0 without a picture;
    - existence: ``p_e = sigmoid(w_h . H_cls + w_v . V_cls + b)``, and ``H' = H + p_e V``;
    - ``p_s(i), p_t(j)`` by a linear layer on the words' ``H'``, ``p(i, j)`` by an MLP on ``[H'_i; H'_j]``;
    - ``L = L_s + L_t + L_span + e L_e``, binary cross entropies, each a mean over (text, type) items. Spans are judged
      where starts and ends, gold or predicted, meet: the predicted ones are the negatives.

    At test a span needs all its probabilities above their thresholds, and of overlapping spans of whatever type the one
    with the highest ``p_e p(i, j)`` stays.

    Of the paper the grounding *loss* is left out, since it needs boxes (Twitter-GMNER has them, without its pictures):
    which region matters is learned from the spans alone, over a frozen encoder's cells in place of a grounding network.
    Ablations: ``existence: false`` (``p_e = 1``), ``grounding: false`` (``c = 1``). It starts from any encoder.
    """

    NAME = "mner_qg"
    Config = MNERQGConfig
    GRID, DEPTHS = 7, 1
    encoder: TextEncoder
    config: MNERQGConfig

    @classmethod
    def create(cls, config: MNERQGConfig, schemas: Mapping[str, Any], examples: Sequence[Any] = ()) -> Self:
        """A new student on a pretrained backbone, with our questions where the config has none."""
        asked = {**(questions("ner", schemas["ner"]) if "ner" in schemas else {}), **config.queries}
        return super().create(config.model_copy(update={"queries": asked}), schemas, examples)

    def build(self) -> None:
        """Its parts."""
        config, encoder = self.config, self.encoder
        if set(self.schemas) != {"ner"}:
            raise UnsupportedView(f"mner_qg is for the task ner; schemas given: {', '.join(self.schemas) or 'none'}")
        self.labels = self.schemas["ner"].labels
        if set(config.queries) != set(self.labels):
            raise UnsupportedView(f"queries of {', '.join(config.queries)}, but the types are {', '.join(self.labels)}")
        if encoder.decoder:
            raise UnsupportedBackbone(f"{config.backbone} has no [CLS] that has read the text: take an encoder (BERT)")
        hidden = encoder.hidden
        self.layout = Layout(encoder, config.context_tokens)
        self.shapes = InputShapes(hidden, config.word_shapes, marks=False)
        self.dropout = nn.Dropout(config.dropout)
        self.ends = nn.Linear(hidden, 2)
        self.spans = SpanMLP(hidden, config.width, 1, 1)
        self.exists = nn.Linear(hidden, 1) if config.existence else None
        if self.levels:
            channels = self.levels[0][1]
            self.regions = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, hidden))
            self.ground = RegionGate(hidden, hidden, "bilinear") if config.grounding else None
            self.look = Block(hidden, config.attention_heads, hidden, config.dropout)
            self.exists_seen = nn.Linear(hidden, 1, bias=False) if config.existence else None

    # --- reading ---

    def collate(self, examples: Sequence[ner.Example], view: View | None = None) -> Batch:
        """A row for each text and type (and window), with its gold, and the pictures' features."""
        return self._collate(examples, view or self.view)[0]

    def _collate(self, examples: Sequence[ner.Example], view: View) -> tuple[Batch, Laid]:
        """`units.lay`'s tensors; ``item [R]``: whose row it is; ``gold [G, 3]``: item, first and last word of gold
        spans; ``learn [I]``: which items have gold."""
        self.check_texts(examples, view, "ner")
        items = [Item(i, example, (label,)) for i, example in enumerate(examples) for label in self.labels]
        asked = lambda item: wording(self.config.queries, item.labels[0], self.training)
        laid = lay(self.layout, items, view, asked)
        tensors, counts = laid.tensors, laid.counts
        gold: list[tuple[int, int, int]] = []
        for number, (item, text) in enumerate(zip(items, laid.texts, strict=True)):
            spans, remarks = gold_spans(item.example, item.labels[0], text)
            short = [(i, j) for i, j in spans or () if j - i < self.config.longest]
            counts += remarks
            counts["entities_too_long"] += len(spans or ()) - len(short)
            gold += [(number, i, j) for i, j in short]
        tensors["gold"] = torch.tensor(gold, dtype=torch.long).view(-1, 3)
        tensors["learn"] = torch.tensor([item.example.gold is not None for item in items])
        tensors["item"] = torch.tensor([n for n, rows in enumerate(laid.rows) for _ in rows])
        tensors["units"] = tensors["learn"].sum()[None]
        if view.images:
            pictures, given_up = self.pictures(examples)
            tensors |= pictures
            counts += given_up
        return Batch(tensors, examples, view, dict(+counts)), laid

    def forward(self, batch: Batch) -> Output:
        """The losses; ``start``, ``end [I, W]``, ``span [I, W, L]`` and ``existence [I]`` (all logits; `-inf` where
        there is no word, or no span).
        """
        tensors = batch.tensors
        states: Tensor = self.encoder(
            tensors["input_ids"], tensors["attention_mask"], tensors["token_type_ids"], self.shapes(tensors["shapes"])
        )
        states, by_row = self.fuse(states, tensors)
        words, mask = self.dropout(unit_states(states, tensors)), tensors["word_mask"]
        last, there = enumerate_spans(mask, self.config.longest)
        start, end = self.ends(words).float().masked_fill(~mask[..., None], -torch.inf).unbind(-1)
        span = self.spans(words, last)[..., 0].masked_fill(~there, -torch.inf)
        scores = {"start": start, "end": end, "span": span}
        if by_row is not None:  # a type exists in a text of several windows if it does in one of them
            none = by_row.new_full(mask.shape[:1], -torch.inf)
            scores["existence"] = none.scatter_reduce(0, tensors["item"], by_row, "amax")
        if not tensors["learn"].any():
            return Output(None, {}, scores)
        losses = self._losses(scores, last, there, tensors)
        return Output(torch.stack(list(losses.values())).sum(), losses, scores)

    def fuse(self, states: Tensor, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """``H' [R, T, d]`` and the rows' logits of existence ``[R]`` (None: they are not asked for)."""
        exists = None if self.exists is None else self.exists(states[:, 0])[:, 0].float()
        if "image.present" not in tensors:
            return states, exists
        of_row = tensors["example"]
        present = tensors["image.present"][of_row]
        regions = self.regions(tensors["image.level0"])[of_row]
        if self.ground is not None:
            regions = regions * self.confidence(states, regions, tensors)[..., None]
        seen = self.look(states, regions, present[:, None].expand(regions.shape[:2])) * present[:, None, None]
        if exists is None or self.exists_seen is None:
            return states + seen, exists
        exists = exists + self.exists_seen(seen[:, 0])[:, 0].float()
        return states + exists.sigmoid()[:, None, None] * seen, exists

    def confidence(self, states: Tensor, regions: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        """``c [R, K]``, how far the query of each row lets each region ``[R, K, d]`` through."""
        assert self.ground is not None
        asked = (tensors["token_type_ids"] == 0) & tensors["attention_mask"].bool()
        query = (states * asked[..., None]).sum(1) / asked.sum(1, keepdim=True) / states.shape[-1] ** 0.5
        confidence: Tensor = self.ground(query, regions, tensors["image.present"][tensors["example"]])
        return confidence

    # --- learning ---

    def _losses(
        self, scores: dict[str, Tensor], last: Tensor, there: Tensor, tensors: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        item, first, final = tensors["gold"].unbind(1)
        learn, mask = tensors["learn"], tensors["word_mask"]
        starts, ends, spans = (torch.zeros_like(scores[name]) for name in ("start", "end", "span"))
        starts[item, first] = 1.0
        ends[item, final] = 1.0
        spans[item, first, final - first] = 1.0
        begins, stops = (starts > 0) | (scores["start"] > 0), (ends > 0) | (scores["end"] > 0)
        candidates = there & begins[:, :, None] & stops[:, last]
        losses = {
            "start": _mean(scores["start"], starts, mask, learn),
            "end": _mean(scores["end"], ends, mask, learn),
            "span": _mean(scores["span"], spans, candidates, learn),
        }
        if "existence" in scores:
            held = torch.zeros_like(scores["existence"])
            held[item] = 1.0
            weight = held.new_tensor(self.config.existence_positive)
            wrong = F.binary_cross_entropy_with_logits(scores["existence"][learn], held[learn], pos_weight=weight)
            losses["existence"] = self.config.existence_weight * wrong
        return losses

    # --- answering ---

    def answer(self, examples: Sequence[ner.Example], view: View) -> tuple[list[tuple[Any, Any]], Mapping[str, int]]:
        """The entities of each text, with their probabilities ``p_e p(i, j)``."""
        batch, laid = self._collate([e.model_copy(update={"gold": None}) for e in examples], view)
        scores = self(batch.to(self.device)).scores
        found: list[list[tuple[float, int, int, str]]] = [[] for _ in examples]
        for number, first, length, sure in self._spans(scores):
            index, kind = divmod(number, len(self.labels))
            places = laid.texts[number].spans
            found[index].append((sure, places[first][0], places[first + length][1], self.labels[kind]))
        return [_entities(example, own) for example, own in zip(examples, found, strict=True)], batch.counts

    def _spans(self, scores: dict[str, Tensor]) -> Iterator[tuple[int, int, int, float]]:
        """Spans above the thresholds: item, first word, words behind it, probability."""
        start, end, span = (scores[name].sigmoid() for name in ("start", "end", "span"))
        last, _ = enumerate_spans(torch.ones_like(start, dtype=torch.bool), self.config.longest)
        bar = self.config.threshold
        keep = (span > bar) & (start > bar)[:, :, None] & (end > bar)[:, last]
        if "existence" in scores:
            existence = scores["existence"].sigmoid()
            keep &= (existence >= self.config.existence_threshold)[:, None, None]
            span = existence[:, None, None] * span
        for place in keep.nonzero().tolist():
            number, first, length = place
            yield number, first, length, float(span[number, first, length])


def _mean(logits: Tensor, gold: Tensor, mask: Tensor, learn: Tensor) -> Tensor:
    """Binary cross entropy: the mean over what the mask has of an item (0 if that is nothing), then over the items."""
    wrong = F.binary_cross_entropy_with_logits(logits.masked_fill(~mask, 0.0), gold, reduction="none") * mask
    each = wrong.flatten(1).sum(1) / mask.flatten(1).sum(1).clamp(min=1)
    return each[learn].mean()


def _entities(example: ner.Example, found: Sequence[tuple[float, int, int, str]]) -> tuple[ner.Answer, list[float]]:
    """Of spans ``(probability, start, end, type)`` those that overlap no surer one, in the order of the text."""
    kept: list[tuple[float, int, int, str]] = []
    for one in sorted(found, key=lambda span: -span[0]):
        if all(one[2] <= start or end <= one[1] for _, start, end, _ in kept):
            kept.append(one)
    kept.sort(key=lambda span: span[1])
    entities = tuple(ner.Entity(text=example.text[a:b], type=kind, start=a, end=b) for _, a, b, kind in kept)
    return ner.Answer(entities=entities), [sure for sure, *_ in kept]
