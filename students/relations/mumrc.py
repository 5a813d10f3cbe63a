"""MUMRC: all triples of a text, its spans and their pairs read with several queries at once (MUMRC, ICME 2023)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ...tasks import ner, relations
from ..collate import Item, group
from ..encoders.shapes import InputShapes
from ..encoders.text import TextEncoder
from ..fusion.directional import AND, QueriedLayout, check, read
from ..heads.enumerated import SpanMLP, enumerate_spans
from ..heads.pair import PairHead
from ..settings import BackboneConfig, Clash
from ..student import Batch, Output, View
from ..system import System, UnsupportedView
from ..units import lay, unit_states
from .joint import known_pairs, mentions_of, words_of

#: What is asked of a text, and of a pair of its spans; in the order in which ``queries`` takes them.
OF_TEXT = (
    "Which entities are in the text?",
    "What names does the text mention?",
    "Find all people, organisations, places and other named things.",
)
OF_PAIR = (
    "Which relation does {head} have to {tail}?",
    "How is {head} related to {tail}?",
    "What holds between {head} and {tail}?",
)

#: Pairs are judged by so many at once.
_AT_ONCE = 64


class MUMRCConfig(BackboneConfig):
    """What a `MUMRC` is made of.

    Attributes:
        queries: so many synonymous queries stand behind each row; 0 is the paper's system without them.
        word_shapes: whether it is told each word's casing, which a lower-case vocabulary hides.
        longest: spans of more words are not looked at.
        width: of the span classifier's two hidden layers.
        span_threshold: a span more probable than this is an entity.
        most: at most so many spans of a text, the surest, are paired; every ordered pair is a row.
        relation_weight: of the second stage's loss.
    """

    tasks = ("relations",)

    queries: int = Field(3, ge=0, le=len(OF_TEXT))
    word_shapes: bool = False
    longest: int = Field(8, ge=1)
    width: int = Field(300, ge=1)
    span_threshold: float = Field(0.5, gt=0, lt=1)
    most: int = Field(6, ge=2)
    relation_weight: float = Field(1.0, gt=0)

    def clashes(self, recipe: Any) -> Iterator[Clash]:
        """No text to find spans in."""
        if not recipe.text:
            yield ("text", "student"), "mumrc finds spans of the text: text: true"


class MUMRC(System):
    """Two stages, spans and then pairs of them, on one encoder that reads text, queries and picture in one row.

    - Stage 1: every span of up to 8 words is an entity or none, ``MLP([h_first; h_last])`` (`heads.enumerated`).
    - Stage 2: every ordered pair of spans found, marked in the text, has a relation or none (`heads.pair`); a given
      pair is judged by this stage alone, so that both forms of the task are served.
    - Behind the text stand synonymous queries that do not see one another, and the picture's cells, projected to the
      width of the input vectors (`fusion.directional`).

    ``L = L_spans + relation_weight L_pairs``, cross entropies summed over what is classified and divided by the number
    of texts. Both stages share the encoder and are trained together; in the paper each has an encoder of its own. It
    starts from any BERT, in place of VisualBERT's checkpoint, with 16 cells and the picture's own vector, in place of
    CLIP's tokens of the whole picture and of crops that give the label away.

    The entities it learns are the mentions of gold triples, since no others are kept: a tweet without a triple counts
    as one without entities. Ordered pairs of mentions that no triple joins have no relation. Where two triples join one
    pair, the first is learned (counted ``triples_of_one_pair``).
    """

    NAME = "mumrc"
    Config = MUMRCConfig
    GRID, DEPTHS = 4, 1
    encoder: TextEncoder
    config: MUMRCConfig

    def build(self) -> None:
        """Its parts."""
        config, encoder, hidden = self.config, self.encoder, self.encoder.hidden
        if set(self.schemas) != {"relations"}:
            raise UnsupportedView(f"mumrc is for the task relations; schemas: {', '.join(self.schemas) or 'none'}")
        check(encoder)
        self.layout = QueriedLayout(encoder, config.context_tokens)
        self.shapes = InputShapes(hidden, config.word_shapes, marks=True)
        self.cells = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, hidden)) for _, channels in self.levels or ()
        )
        self.dropout = nn.Dropout(config.dropout)
        self.spans = SpanMLP(hidden, config.width, 2, 2, config.dropout)
        self.pairs = PairHead(hidden, self.schemas["relations"], config.dropout)

    # --- reading ---

    def collate(self, examples: Sequence[relations.Example], view: View | None = None) -> Batch:
        """A row for each text without a pair and one for each pair, given or, where there is gold, of its mentions."""
        view = view or self.view
        self.check_texts(examples, view, "relations")
        texts = [Item(i, example) for i, example in enumerate(examples) if example.pair is None]
        pairs, counts = [], Counter[str]()
        for index, example in enumerate(examples):
            if example.pair is not None:
                pairs.append(Item(index, example))
            else:
                known, remarks = known_pairs(example, self.schemas["relations"].none)
                pairs += [Item(index, one) for one in known]
                counts += remarks
        tensors, given_up = self._rows(texts, pairs, view)
        counts += given_up
        if view.images:
            pictures, given_up = self.pictures(examples)
            tensors, counts = tensors | pictures, counts + given_up
        tensors["units"] = torch.tensor([len(examples)])
        return Batch(tensors, examples, view, dict(+counts))

    def _rows(self, texts: Sequence[Item], pairs: Sequence[Item], view: View) -> tuple[dict[str, Tensor], Counter[str]]:
        """``spans.…``: the texts' rows, ``gold [G, 3]`` (text, first word, words behind it) and ``learn [I]``;
        ``pairs.…``: what `PairHead.collate` gives."""
        tensors: dict[str, Tensor] = {}
        counts = Counter[str]()
        asked = self.config.queries
        if texts:
            laid = lay(self.layout, texts, view, lambda item: AND.join(OF_TEXT[:asked]))
            gold: list[tuple[int, int, int]] = []
            for number, item in enumerate(texts):
                mentions = dict.fromkeys(words_of(item.example, m) for m in mentions_of(item.example))
                short = [(first, last) for first, last in mentions if last - first < self.config.longest]
                counts["mentions_too_long"] += len(mentions) - len(short)
                gold += [(number, first, last - first) for first, last in short]
            laid.tensors["gold"] = torch.tensor(gold, dtype=torch.long).view(-1, 3)
            laid.tensors["learn"] = torch.tensor([item.example.gold is not None for item in texts])
            counts += laid.counts
            tensors |= {f"spans.{name}": value for name, value in laid.tensors.items()}
        if pairs:
            own, given_up = self.pairs.collate(pairs, self.layout, view, self.training, self._of_pair)
            counts += given_up
            tensors |= {f"pairs.{name}": value for name, value in own.items()}
        return tensors, counts

    def _of_pair(self, item: Item) -> str:
        head, tail = (" ".join(mention.text.split()) for mention in item.example.pair)
        return AND.join(query.format(head=head, tail=tail) for query in OF_PAIR[: self.config.queries])

    def forward(self, batch: Batch) -> Output:
        """The losses; ``span [I, W, L, 2]`` (logits of none and entity) with ``there [I, W, L]``, ``pair [P, R + 1]``,
        of those that there are."""
        tensors = batch.tensors
        count = tensors["units"].sum()
        losses: dict[str, Tensor] = {}
        scores: dict[str, Tensor] = {}
        texts, pairs = group(tensors, "spans"), group(tensors, "pairs")
        if texts:
            words = self.dropout(unit_states(self._states(texts, tensors), texts))
            last, there = enumerate_spans(texts["word_mask"], self.config.longest)
            scores |= {"span": self.spans(words, last), "there": there}
            learn = there & texts["learn"][:, None, None]
            if learn.any():
                gold = torch.zeros_like(there, dtype=torch.long)
                gold[tuple(texts["gold"].T)] = 1
                losses["spans"] = F.cross_entropy(scores["span"][learn], gold[learn], reduction="sum") / count
        if pairs:
            wrong, found = self.pairs.score(self._states(pairs, tensors), pairs)
            scores["pair"] = found["pair"]
            if wrong is not None:
                judged = (pairs["relation"] >= 0).sum()
                losses["pairs"] = self.config.relation_weight * wrong * judged / count
        return Output(torch.stack(list(losses.values())).sum() if losses else None, losses, scores)

    def _states(self, rows: dict[str, Tensor], tensors: dict[str, Tensor]) -> Tensor:
        cells = present = None
        if "image.present" in tensors:
            of_row = rows["example"]
            levels = [tensors[f"image.level{n}"] for n in range(len(self.cells))]
            cells = torch.cat([look(level) for look, level in zip(self.cells, levels, strict=True)], 1)[of_row]
            present = tensors["image.present"][of_row]
        return read(self.encoder, rows, self.shapes(rows["shapes"]), cells, present)

    # --- answering ---

    def answer(
        self, examples: Sequence[relations.Example], view: View
    ) -> tuple[list[tuple[Any, Any]], Mapping[str, int]]:
        """The triples of each text with their probabilities (of both mentions and the relation), or the relation of
        its given pair."""
        bare = [example.model_copy(update={"gold": None}) for example in examples]
        batch = self.collate(bare, view).to(self.device)
        scores, counts = self(batch).scores, Counter(batch.counts)
        found: list[tuple[Any, Any]] = [(relations.Answer(), None)] * len(bare)
        given = [i for i, example in enumerate(bare) if example.pair is not None]
        for index, (label, sure) in zip(given, self._judge(scores), strict=True):
            found[index] = relations.Answer(relation=label), sure
        texts = [Item(i, example) for i, example in enumerate(bare) if example.pair is None]
        if texts:
            mentions = self._mentions(texts, scores)
            counts[f"spans_beyond_{self.config.most}"] = sum(max(0, len(own) - self.config.most) for own in mentions)
            triples, given_up = self._triples(texts, mentions, batch)
            counts += given_up
            for item, own in zip(texts, triples, strict=True):
                found[item.index] = relations.Answer(triples=tuple(t for t, _ in own)), [p for _, p in own]
        return found, +counts

    def _triples(
        self, texts: Sequence[Item], mentions: Sequence[Sequence[tuple[ner.Entity, float]]], batch: Batch
    ) -> tuple[list[list[tuple[relations.Triple, float]]], Counter[str]]:
        """Stage 2: the triples of each text, in its order, and their probabilities; a batch's pictures serve again."""
        pairs: list[tuple[int, Item, float]] = []
        for number, (item, own) in enumerate(zip(texts, mentions, strict=True)):
            for (head, p), (tail, q) in permutations(own[: self.config.most], 2):
                asked = item.example.model_copy(update={"pair": (head, tail)})
                pairs.append((number, Item(item.index, asked), p * q))
        pictures = {name: value for name, value in batch.tensors.items() if name.startswith("image.")}
        found: list[list[tuple[relations.Triple, float]]] = [[] for _ in texts]
        counts = Counter[str]()
        for start in range(0, len(pairs), _AT_ONCE):
            some = pairs[start : start + _AT_ONCE]
            rows, given_up = self._rows([], [item for _, item, _ in some], batch.view)
            counts += given_up
            rows["units"] = batch.tensors["units"]
            scores = self(Batch({**rows, **pictures}, batch.examples, batch.view).to(self.device)).scores
            for (number, item, p), (label, sure) in zip(some, self._judge(scores), strict=True):
                if label != self.schemas["relations"].none:
                    head, tail = item.example.pair
                    found[number].append((relations.Triple(head=head, relation=label, tail=tail), p * sure))
        for own_triples in found:
            own_triples.sort(key=lambda one: (one[0].head.start or 0, one[0].tail.start or 0))
        return found, counts

    def _judge(self, scores: dict[str, Tensor]) -> list[tuple[str, float]]:
        """The likeliest label of each pair that was scored, and its probability."""
        if "pair" not in scores:
            return []
        sure, best = scores["pair"].softmax(-1).max(-1)
        return [(self.pairs.labels[label], p) for label, p in zip(best.tolist(), sure.tolist(), strict=True)]

    def _mentions(self, texts: Sequence[Item], scores: dict[str, Tensor]) -> list[list[tuple[ner.Entity, float]]]:
        """The spans of each text that are entities, the surest first; they may overlap."""
        sure = scores["span"].softmax(-1)[..., 1] * scores["there"]
        found: list[list[tuple[ner.Entity, float]]] = []
        for item, own in zip(texts, sure.cpu(), strict=True):
            text, words = item.example.text, ner.word_spans(item.example)
            places = sorted((own > self.config.span_threshold).nonzero().tolist(), key=lambda at: -float(own[*at]))
            spans = [(words[i][0], words[i + more][1], float(own[i, more])) for i, more in places]
            found.append([(ner.Entity(text=text[a:b], type="", start=a, end=b), p) for a, b, p in spans])
        return found
