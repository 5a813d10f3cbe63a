"""AVEQA: an attribute as a question, its value as an answer's span, or none (Wang et al., KDD 2020)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ...tasks.attributes import Example
from ..collate import Item, Layout, group, pad
from ..encoders.text import TextEncoder
from ..heads.masked import DistilledMaskedLM, Scores
from ..heads.span import LONGEST, gold_spans
from ..heads.tags import merge_values
from ..queries import QueryConfig, asked, check, wording
from ..student import Batch, Output, View
from ..system import System
from ..units import Laid, lay, unit_states


class AVEQAConfig(QueryConfig):
    """What an `AVEQA` is made of.

    The paper's loss weights and temperature are not known to us; 1, 1 and 2 are ours.

    Attributes:
        masked_weight, no_answer_weight: ``lambda_1`` and ``lambda_2``.
        masked_share, masked_temperature, masked_scores: of the distilled masked language model.
        no_answer_threshold: a probability of no answer above it says absent.
        null_rule: whether that is all that is asked (``threshold``, the paper's), or no answer must, besides, be less
            likely than the best span (``compare``).
        longest: spans of more sub-tokens are no answers.
    """

    masked_weight: float = Field(1.0, ge=0)
    no_answer_weight: float = Field(1.0, ge=0)
    masked_share: float = Field(0.15, gt=0, le=1)
    masked_temperature: float = Field(2.0, gt=0)
    masked_scores: Scores = "embeddings"
    no_answer_threshold: float = Field(0.5, ge=0, le=1)
    null_rule: Literal["threshold", "compare"] = "threshold"
    longest: int = Field(LONGEST, ge=1)


class AVEQA(System):
    """Reads ``[CLS] attribute [SEP] text [SEP]`` once for each attribute asked (Wang et al., Learning to Extract
    Attribute Value from Product via Question Answering, section 3).

    Begin and end are a softmax each over the text's sub-tokens, no answer a sigmoid at [CLS], and a distilled masked
    language model holds the backbone to what it knew: ``L = L_span + lambda_1 L_dMLM + lambda_2 L_no_answer``. Where a
    value stands several times, the span loss is that of all its places together, ``-log sum p_b(i) p_e(j)``.

    A text of several windows has one softmax over all of them, and no answer if no window has one.
    """

    NAME = "aveqa"
    Config = AVEQAConfig
    encoder: TextEncoder
    config: AVEQAConfig

    def build(self) -> None:
        """Its parts."""
        config, encoder = self.config, self.encoder
        self.layout = Layout(encoder, config.context_tokens)
        self.dropout = nn.Dropout(config.dropout)
        self.ends = nn.Linear(encoder.hidden, 2, bias=False)  # a softmax does not see a bias
        self.no_answer = nn.Linear(encoder.hidden, 1)
        self.masked = None
        if config.masked_weight:
            share, temperature = config.masked_share, config.masked_temperature
            self.masked = DistilledMaskedLM(encoder, config.backbone, config.masked_scores, share, temperature)

    def collate(self, examples: Sequence[Example], view: View | None = None) -> Batch:
        """A row for each attribute asked (and window), with its gold; in training masked rows, one title each."""
        view = view or self.view
        items = asked(examples, self.schemas["attributes"], self.config, self.training)
        batch, laid = self._collate(examples, items, view)
        if self.masked is not None and self.training:
            # One of an example's rows is enough: they differ in the attribute alone.
            order = torch.randperm(len(items)).tolist()
            chosen = {items[n].index: n for n in order}
            rows = [row for n in sorted(chosen.values()) for row in laid.rows[n]]
            batch.tensors |= {f"masked.{name}": value for name, value in self.masked.collate(rows).items()}
        return batch

    def _collate(self, examples: Sequence[Example], items: Sequence[Item], view: View) -> tuple[Batch, Laid]:
        """`units.lay`'s tensors; ``null`` and ``item [R]``: where a row's [CLS] stands and whose row it is;
        ``gold_first``, ``gold_last``, ``gold_mask [I, G]``: the gold spans in units; ``learn``, ``absent [I]``."""
        check(examples, items, view)
        schema = self.schemas["attributes"]
        laid = lay(self.layout, items, view, lambda item: wording(item, schema, self.config, self.training))
        tensors, counts = laid.tensors, laid.counts
        gold, learn, absent = [], [], []
        for item, text in zip(items, laid.texts, strict=True):
            spans, remarks = gold_spans(item.example, item.labels[0], text)
            counts += remarks
            short = [(i, j) for i, j in spans or () if j - i < self.config.longest]
            if spans and not short:
                counts["values_too_long"] += 1
            gold.append(short)
            learn.append(spans is not None and bool(short) == bool(spans))
            absent.append(spans == [])
        tensors["null"] = torch.tensor([row.null for rows in laid.rows for row in rows])
        tensors["item"] = torch.tensor([n for n, rows in enumerate(laid.rows) for _ in rows])
        tensors["gold_first"] = pad([[i for i, _ in own] or [0] for own in gold])
        tensors["gold_last"] = pad([[j for _, j in own] or [0] for own in gold])
        tensors["gold_mask"] = pad([[1] * len(own) or [0] for own in gold], dtype=torch.bool)
        tensors["learn"], tensors["absent"] = torch.tensor(learn), torch.tensor(absent)
        tensors["units"] = torch.tensor([max(1, sum(learn))])
        return Batch(tensors, examples, view, dict(counts)), laid

    def forward(self, batch: Batch) -> Output:
        """The losses, means over the items; ``begin``, ``end [I, W]`` (log probabilities) and ``no_answer [I]``
        (logits)."""
        tensors = batch.tensors
        states = self.encoder(tensors["input_ids"], tensors["attention_mask"], tensors["token_type_ids"])
        states = self.dropout(states)
        ends = self.ends(unit_states(states, tensors)).float()
        begin, end = ends.masked_fill(~tensors["word_mask"][..., None], -torch.inf).log_softmax(1).unbind(-1)
        rows = torch.arange(len(states), device=states.device)
        by_row = self.no_answer(states[rows, tensors["null"]])[:, 0].float()
        none = by_row.new_full(begin.shape[:1], torch.inf).scatter_reduce(0, tensors["item"], by_row, "amin")
        scores = {"begin": begin, "end": end, "no_answer": none}
        if all(example.gold is None for example in batch.examples):
            return Output(None, {}, scores)
        losses = self._losses(begin, end, none, tensors)
        weights = {"span": 1.0, "no_answer": self.config.no_answer_weight, "masked": self.config.masked_weight}
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        return Output(total, losses, scores)

    def _losses(self, begin: Tensor, end: Tensor, none: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        learn, count, there = tensors["learn"], tensors["units"][0], tensors["gold_mask"]
        places = begin.gather(1, tensors["gold_first"]) + end.gather(1, tensors["gold_last"])
        places = places.masked_fill(~there, -torch.inf)[there.any(1)]
        span = -places.logsumexp(1).sum() / count
        wrong = F.binary_cross_entropy_with_logits(none, tensors["absent"].float(), reduction="none")
        losses = {"span": span, "no_answer": wrong.masked_fill(~learn, 0.0).sum() / count}
        masked = group(tensors, "masked")
        if self.masked is not None and masked:
            losses["masked"] = self.masked.loss(masked)
        return losses

    def answer(self, examples: Sequence[Example], view: View) -> tuple[list[tuple[Any, Any]], Mapping[str, int]]:
        """For each attribute asked the best span or absence, with its probability."""
        items = asked(examples, self.schemas["attributes"], self.config, training=False)
        if not items:
            return [merge_values(example, ()) for example in examples], Counter()
        batch, laid = self._collate(examples, items, view)
        scores = {name: value.cpu() for name, value in self(batch.to(self.device)).scores.items()}
        none = scores["no_answer"].sigmoid()
        best, first, last = best_spans(scores["begin"], scores["end"], self.config.longest)
        span = (1 - none) * best.exp()
        absent = none > self.config.no_answer_threshold
        if self.config.null_rule == "compare":
            absent |= none > span
        found: list[list[Any]] = [[] for _ in examples]
        for n, (item, text) in enumerate(zip(items, laid.texts, strict=True)):
            start, stop = text.spans[int(first[n])][0], text.spans[int(last[n])][1]
            value = ((), float(none[n])) if absent[n] else ((item.example.text[start:stop],), float(span[n]))
            found[item.index].append({item.labels[0]: value})
        return [merge_values(example, own) for example, own in zip(examples, found, strict=True)], batch.counts


def best_spans(begin: Tensor, end: Tensor, longest: int) -> tuple[Tensor, Tensor, Tensor]:
    """The likeliest span ``b <= e`` of each item: its log probability, first and last unit ``[I]``.

    Args:
        begin, end: log probabilities ``[I, W]``.
        longest: the most units.
    """
    width = begin.shape[1]
    allowed = torch.ones(width, width, dtype=torch.bool, device=begin.device).triu().tril(longest - 1)
    scores = (begin[:, :, None] + end[:, None]).masked_fill(~allowed, -torch.inf).flatten(1)
    best, place = scores.max(1)
    return best, place // width, place % width
