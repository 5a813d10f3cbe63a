"""MXT-style generation: a question about a product is read with its picture, and the value is written out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ...prompts.align import Aligner
from ...tasks.attributes import Attribute
from .. import saving
from ..collate import Item, Layout, Row, group, pad, stack
from ..encoders import seq2seq, text
from ..encoders.seq2seq import Seq2Seq
from ..fusion.mag import AdaptationGate
from ..heads.beam import Found
from ..heads.span import gold_spans
from ..heads.tags import merge_values
from ..heads.trie import Trie
from ..heads.writing import Memory, Writer, targets
from ..queries import QueryConfig, known, with_absent, wording
from ..student import Batch, Output, View
from ..system import System, UnsupportedView
from ..units import pairs

#: What is written where a value is absent.
NONE = "none"


class MXTConfig(QueryConfig):
    """What an `MXT` is made of.

    Attributes:
        backbone: an encoder-decoder (T5); an encoder's weights are taken for both sides.
        decoder_layers: how many layers of an encoder its warm-started decoder has; 0 for all.
        constrained: whether values that are copied from the text are looked for among its spans alone.
        copying: whether the decoder may copy what it reads, besides writing (`heads.pointer`).
        beams: the width of the search.
        longest: the longest answer, in sub-tokens.
        gate_beta: how far, beside its own length, a picture may shift a token's state (`fusion.mag`).
        confidence: of an answer, the ``product`` of its sub-tokens' probabilities or their geometric ``mean``.
    """

    category: bool = True
    decoder_layers: int = Field(0, ge=0)
    constrained: bool = True
    copying: bool = True
    beams: int = Field(4, ge=1)
    longest: int = Field(24, ge=1)
    gate_beta: float = Field(0.5, gt=0)
    confidence: Literal["product", "mean"] = "product"


class MXT(System):
    """Answers ``category attribute[: options]`` about a product by writing (Khandelwal et al., Large Scale Generative
    Multimodal Attribute Extraction for E-commerce Attributes, ACL 2023 industry track).

    The encoder reads question and text, each state is shifted by what its token sees of the picture (`AdaptationGate`),
    the decoder writes the value or "none". The loss is ``-log P(answer)``, the sum over its sub-tokens.

    Where all possible answers are known (the options of a closed attribute and, if ``constrained``, the spans of the
    text), a sub-token's probability is taken among those that lead to one of them, in learning as in answering: their
    probabilities sum to 1. Every option is scored. A text of several windows is read in all of them, and the decoder
    attends to all at once (Izacard and Grave, EACL 2021).
    """

    NAME = "mxt"
    Config = MXTConfig
    GRID = 7
    DEPTHS = 1
    encoder: Any
    config: MXTConfig

    def build(self) -> None:
        """Its parts."""
        config, encoder, levels = self.config, self.encoder, self.levels
        self.schema = self.schemas["attributes"]
        self.layout = Layout(encoder, config.context_tokens)
        self.dropout = nn.Dropout(config.dropout)
        self.gate = AdaptationGate(encoder.hidden, levels[0][1], config.gate_beta) if levels else None
        self.writer = Writer(encoder, config.copying)

    @classmethod
    def _new_encoder(cls, config: Any) -> Seq2Seq:
        made = seq2seq.load(config.backbone, max_tokens=config.max_tokens, layers=config.decoder_layers)
        if config.lora_rank:
            made.model = text.with_lora(
                made.model, config.lora_rank, config.lora_alpha, config.lora_dropout, whole=made.fresh
            )
        return made

    @classmethod
    def _kept_encoder(cls, folder: Path, config: Any) -> Any:
        load = partial(seq2seq.load, layers=config.decoder_layers)
        return saving.read_encoder(folder, config.backbone, config.max_tokens, load)

    def parameter_groups(self, learning_rate: float, head_learning_rate: float) -> list[dict[str, Any]]:
        """As `System.parameter_groups`; what is fresh of the backbone learns at the heads' rate."""
        fresh = self.encoder.fresh_parameters()
        known = {id(p) for p in fresh}
        groups = super().parameter_groups(learning_rate, head_learning_rate)
        for one in groups:
            one["params"] = [p for p in one["params"] if id(p) not in known]
        groups[-1]["params"] += fresh
        return [one for one in groups if one["params"]]

    # --- what is asked ---

    def _items(self, examples: Sequence[Any], view: View) -> list[Item]:
        """An item for each attribute asked of each product; in training, for its negatives as well."""
        if view.prompt or view.explain:
            raise UnsupportedView("this student has no conditional prompt and gives no explanations")
        if self.training and self.config.negatives:
            examples = [with_absent(e, self.schema, self.config.negatives) for e in examples]
        items = pairs(examples)
        for item in items:
            attribute, where = self._attribute(item), f"example {item.example.id}: {item.labels[0]}"
            if attribute.type == "several_of":
                raise UnsupportedView(f"{where} is a several_of; this student writes one value")
            if attribute.copied and not view.text:
                raise UnsupportedView(f"{where} is copied from the text, and without text there is nothing to copy")
        return items

    def _attribute(self, item: Item) -> Attribute:
        """The attribute asked; one that no schema has is to be copied from the text."""
        return known(item, self.schema) or Attribute(name=item.labels[0])

    def _question(self, item: Item) -> str:
        asked, choices = wording(item, self.schema, self.config, self.training), self._attribute(item).choices
        return f"{asked}: {', '.join(choices)}" if choices else asked

    def _rows(
        self, items: Sequence[Item], examples: Sequence[Any], view: View
    ) -> tuple[dict[str, Tensor], Counter[str]]:
        """Rows, those of each item ``item_row [I, W]`` (-1: none), and pictures."""
        rows: list[Row] = []
        owners, of_item, counts = [], [], Counter[str]()
        for item in items:
            shown, sides = self.layout.read(item.example, view.text), self.layout.sides(item.example, view)
            own, cut = self.layout.rows(shown, item.example.id, self._question(item), sides)
            of_item.append(list(range(len(rows), len(rows) + len(own))))
            rows += own
            owners += [item.index] * len(own)
            counts += cut
        tensors = stack(self.encoder, rows, owners)
        tensors["item_row"] = pad(of_item, -1)
        if view.images:
            pictures, missing = self.pictures(examples)
            tensors |= pictures
            counts += missing
        return tensors, counts

    def _memory(self, tensors: dict[str, Tensor]) -> Memory:
        """The states of each item's rows, one behind the other."""
        states = self.encoder(tensors["input_ids"], tensors["attention_mask"], tensors["token_type_ids"])
        if self.gate is not None:
            owner, seen = tensors["example"], tensors.get("image.level0")
            picture = () if seen is None else (seen[owner], tensors["image.present"][owner])
            states = self.gate(states, *picture)
        rows = tensors["item_row"]
        mask = tensors["attention_mask"][rows] * (rows >= 0)[..., None]
        source = tensors["input_ids"][rows].flatten(1)
        return Memory(self.dropout(states)[rows].flatten(1, 2), mask.flatten(1), source)

    # --- what may be answered ---

    def _tries(self, items: Sequence[Item]) -> list[Trie | None]:
        """The answers that each item may have; None where they are not known."""
        of_text: dict[int, Trie] = {}
        found: list[Trie | None] = []
        for item in items:
            attribute, example = self._attribute(item), item.example
            if attribute.choices:
                found.append(self._trie(attribute.choices))
            elif self.config.constrained and attribute.copied:
                if item.index not in of_text:
                    of_text[item.index] = self._trie()
                    of_text[item.index].add_spans(self.layout.read(example), example.text, self.config.longest)
                found.append(of_text[item.index])
            else:
                found.append(None)
        return found

    def _trie(self, options: Sequence[str] = ()) -> Trie:
        trie, sub = Trie(self.encoder.end), self.encoder.sub_tokens
        for option in options:
            trie.add(sub.text(option), option)
        trie.add(sub.text(NONE), "")
        return trie

    def _gold(self, item: Item, bounded: bool) -> tuple[tuple[int, ...] | None, Counter[str]]:
        """The sub-tokens of an item's answer (of alternatives the first), None where there is nothing to learn."""
        gold, name, sub = item.example.gold, item.labels[0], self.encoder.sub_tokens
        if gold is None or name not in gold.values:
            return None, Counter({"attributes_without_gold": 1} if gold else {})
        if not gold.values[name]:
            return sub.text(NONE), Counter()
        choices = self._attribute(item).choices
        if not choices and bounded:
            shown = self.layout.read(item.example)
            spans, counts = gold_spans(item.example, name, shown)
            written = (sum(shown.pieces[i : j + 1], ()) for i, j in spans or ())
            short = next((ids for ids in written if len(ids) <= self.config.longest), None)
            return short, counts + Counter({"values_too_long": 1} if spans and not short else {})
        value = gold.values[name][0]
        same = [c for c in choices if c.lower() == value.lower()]
        if choices and not same:
            return None, Counter({"values_not_among_options": 1})
        return sub.text(same[0] if same else value), Counter()

    # --- learning and answering ---

    def collate(self, examples: Sequence[Any], view: View | None = None) -> Batch:
        """Rows of the questions and, where there is gold, the answers to write: ``bounded.*`` and ``free.*``."""
        view = view or self.view
        items = self._items(examples, view)
        tensors, counts = self._rows(items, examples, view)
        answers = {}
        tries = self._tries(items)
        for n, (item, trie) in enumerate(zip(items, tries, strict=True)):
            ids, remarks = self._gold(item, trie is not None)
            counts += remarks
            if ids:
                answers[n] = ids
        for name, own in _split(tries).items():
            known = [n for n in own if n in answers]
            if known:
                told = targets(self.encoder, [answers[n] for n in known], [tries[n] for n in known])
                told["item"] = torch.tensor(known)
                tensors |= {f"{name}.{key}": value for key, value in told.items()}
        tensors["units"] = torch.tensor([len(answers)])
        return Batch(tensors, examples, view, dict(counts))

    def forward(self, batch: Batch) -> Output:
        """Mean of ``-log P(answer)`` over the items with gold; their log probabilities are ``scores["answer"]``."""
        memory = self._memory(batch.tensors)
        groups = [own for own in (group(batch.tensors, name) for name in ("bounded", "free")) if own]
        if not groups:
            return Output(None, {}, {})
        said = torch.cat([self.writer(self.encoder, memory.of(own["item"]), own) for own in groups])
        loss = -said.mean()
        return Output(loss, {"answer": loss}, {"answer": said})

    def answer(self, examples: Sequence[Any], view: View) -> tuple[list[tuple[Any, Any]], Mapping[str, int]]:
        """The most probable answer to each question, with its confidence."""
        items = self._items(examples, view)
        if not items:
            return [merge_values(e, ()) for e in examples], {}
        tensors, counts = self._rows(items, examples, view)
        memory = self._memory(Batch(tensors, examples, view).to(self.device).tensors)
        found: list[dict[str, Any]] = [{} for _ in examples]
        tries = self._tries(items)
        for own in _split(tries).values():
            widths = [max(self.config.beams, len(self._attribute(items[n]).choices) + 1) for n in own]
            part = memory.of(torch.tensor(own, device=self.device))
            best = self.writer.write(self.encoder, part, [tries[n] for n in own], widths, self.config.longest)
            for n, one in zip(own, best, strict=True):
                found[items[n].index][items[n].labels[0]] = self._read(items[n], tries[n], one, counts)
        return [merge_values(e, [own]) for e, own in zip(examples, found, strict=True)], +counts

    def _read(
        self, item: Item, trie: Trie | None, best: Found | None, counts: Counter[str]
    ) -> tuple[tuple[str, ...], float | None]:
        """The value that some sub-tokens stand for, as the text writes it, and its confidence."""
        if best is None:
            counts["answers_unfinished"] += 1
            return (), None
        ids, score = best
        sure = min(1.0, torch.tensor(score / (len(ids) + 1 if self.config.confidence == "mean" else 1)).exp().item())
        if trie is not None:
            value = trie.answer(ids)
            return ((value,) if value else ()), sure
        said = self.encoder.sub_tokens.tokenizer.decode(ids, skip_special_tokens=True).strip()
        if said.lower() in ("", NONE):
            return (), sure
        place = Aligner(item.example.text).holds(said)
        if place is None and self._attribute(item).copied:
            counts["values_not_in_text"] += 1
        return ((item.example.text[slice(*place)] if place else said),), sure


def _split(tries: Sequence[Trie | None]) -> dict[str, list[int]]:
    """The items whose answers are known, and the others; only kinds that there are."""
    kinds = {"bounded": [n for n, trie in enumerate(tries) if trie is not None]}
    kinds["free"] = [n for n, trie in enumerate(tries) if trie is None]
    return {name: own for name, own in kinds.items() if own}
