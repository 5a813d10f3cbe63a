"""MAE: a query, a text and pictures fused, values of a closed vocabulary ranked by cosine (Logan et al., AKBC 2017)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ...tasks.attributes import Answer, Example
from ...tasks.task import DataFault
from .. import best_of
from ..collate import Item, Layout, group, pad, stack
from ..encoders import frozen
from ..encoders.cnn import KimCNN
from ..encoders.frozen import FrozenTextConfig
from ..fusion.modalities import FusionName, fusion
from ..heads.cosine import NONE, at, draw, margin_loss, softmax_loss
from ..heads.ranking import mean
from ..heads.values import ABSENT, Candidates, ValueVocabulary
from ..saving import CheckpointError
from ..student import Batch, Output, View
from ..system import System, UnsupportedView
from ..units import lay

#: The tables whose rows are names: attributes, values.
_TABLES = ("queries.weight", "table.weight")

#: The scores of an example's values, by attribute.
Scored = dict[str, dict[str, float]]


class MAEConfig(FrozenTextConfig):
    """What a `MAE` is made of; the defaults of ``windows`` and ``margin`` are the paper's.

    Attributes:
        width: of queries, values, modalities.
        windows, filters: of the text's CNN.
        dropout: on what each layer of the towers reads.
        fusion: `fusion.modalities`.
        category: whether the query has the category beside the attribute: a layer over the mean of its word vectors.
        candidates: `heads.values`.
        loss: ``margin``, the paper's; or ``softmax``: cross entropy over the candidates' cosines times ``sharpness``.
        margin: how much nearer the gold value must be than a negative.
        negatives: so many values a slot is compared with; ``within`` of them are the attribute's own.
        start: the folder of a `MAE` (or of the run that trained it) that it goes on from, or None.
    """

    tasks = ("attributes",)

    width: int = Field(256, ge=1)
    windows: tuple[int, ...] = Field((5, 7), min_length=1)
    filters: int = Field(256, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    fusion: FusionName = "concat"
    category: bool = False
    candidates: Candidates = "category"
    loss: Literal["margin", "softmax"] = "margin"
    sharpness: float = Field(20.0, gt=0)
    margin: float = Field(1.0, gt=0)
    negatives: int = Field(1, ge=1)
    within: float = Field(0.5, ge=0, le=1)
    start: str | None = None


class MAE(System):
    """Multimodal attribute extraction by ranking values (Logan et al., AKBC 2017; its released code).

    For a query ``q`` (a vector of the attribute's name), the words ``x`` of a text and up to four pictures ``p``:

    - ``t = FC [q; relu(FC(CNN(x)))]``, the CNN that of `encoders.cnn` over frozen word vectors;
    - ``v = FC [q; max_p relu(FC(p))]`` over the pictures that there are, each the frozen encoder's own vector;
    - ``c`` = fusion of ``q``, ``t`` and ``v`` (`fusion.modalities`; the release has no GMU, the paper has);
    - values with vectors ``e`` are ranked by ``d(c, e) = 1 - cos(c, e)``; the loss of a slot is the mean of ``max(0,
      margin + d(c, e+) - d(c, e-))`` over its gold alternatives and its negatives, each drawn from the attribute's own
      values evenly or from all values by how often training has them (`heads.cosine`).

    Unlike in the release, side texts are read behind the text, and pictures' vectors are brought to one length. The
    category, where ``category`` says so, is part of the query: it is known under every view.
    It answers one value an attribute, out of those that training (or a closed list) has: an unseen one cannot be found.
    """

    NAME = "mae"
    Config = MAEConfig
    GRID, DEPTHS, PICTURES = 1, 1, 4
    config: MAEConfig
    frequencies: Tensor

    def build(self) -> None:
        """Its parts."""
        config, levels = self.config, self.levels
        known, width = self.vocabulary, config.width
        schema = self.schemas["attributes"]
        self.values = ValueVocabulary(schema, known, config.candidates)
        self._queries = {name: i for i, name in enumerate(dict.fromkeys(a.name for a in schema.attributes))}
        words: Any = frozen.of(config, known)  # what a layout asks of an encoder, it has
        self.words, self.layout = words, Layout(words, config.context_tokens)
        self.queries, self.table = nn.Embedding(len(self._queries), width), nn.Embedding(len(self.values.values), width)
        for table in (self.queries, self.table):
            nn.init.uniform_(table.weight, -1 / width, 1 / width)
        self.category = nn.Linear(self.words.width, width) if config.category else None
        dropped = lambda size, share, *then: nn.Sequential(nn.Dropout(share), nn.Linear(size, width), *then)
        self.cnn = KimCNN(self.words.width, config.windows, config.filters)
        self.read = dropped(config.filters, config.dropout, nn.ReLU())
        self.asked_text = dropped(2 * width, config.dropout)
        if levels:
            self.look = dropped(levels[-1][1], config.dropout, nn.ReLU())
            self.asked_pictures = dropped(2 * width, config.dropout)
        self.fusion = fusion(config.fusion, width, width)
        self.register_buffer("frequencies", torch.tensor(self.values.counts, dtype=torch.float32), persistent=False)

    @classmethod
    def prepare(cls, config: Any, schemas: Mapping[str, Any], examples: Sequence[Any]) -> dict[str, Any]:
        """The values of the training gold and, with a file of vectors, the words kept of it."""
        return {**ValueVocabulary.learn(schemas["attributes"], examples), **frozen.learn(config, examples)}

    @classmethod
    def create(cls, config: Any, schemas: Mapping[str, Any], examples: Sequence[Any] = ()) -> MAE:
        """A new student that can answer the values of ``examples``, with the vectors of a file if it names one."""
        student = super().create(config, schemas, examples)
        if config.vectors:
            student.words.fill(config.vectors)
        if config.start:
            student.go_on_from(cls.from_pretrained(best_of(config.start)))
        return student

    def go_on_from(self, earlier: MAE) -> None:
        """Take over all weights; of attributes and values those that both have. A `CheckpointError` if sizes differ."""
        own, theirs = self.state_dict(), earlier.state_dict()
        wrong = [k for k in own.keys() | theirs.keys() if k not in _TABLES and not _alike(own.get(k), theirs.get(k))]
        if wrong:
            raise CheckpointError(f"start: it is made with other settings; differing: {', '.join(sorted(wrong))}")
        names = (self._queries, earlier._queries), (self.values.numbers, earlier.values.numbers)
        for table, (mine, known) in zip(_TABLES, names, strict=True):
            shared = [name for name in mine if name in known]
            to, of = (torch.tensor([numbers[name] for name in shared], dtype=torch.long) for numbers in (mine, known))
            theirs[table] = own[table].index_copy(0, to, theirs[table][of])
        self.load_state_dict(theirs)

    def collate(self, examples: Sequence[Example], view: View | None = None) -> Batch:
        """What `_lay` gives, with gold ``positives [I, P]`` and drawn ``negatives [I, K]``, filled up with -1.

        A slot without gold, or whose gold the vocabulary has not (counted ``values_unknown``), teaches nothing.
        """
        batch, slots = self._lay(examples, view or self.view)
        positives, counts = [], Counter(batch.counts)
        for example, name in slots:
            told = example.gold is not None and name in example.gold.values
            own = self.values.gold(example, name) if told else ()
            counts["attributes_without_gold"] += example.gold is not None and not told
            counts["values_unknown"] += told and not own
            positives.append(own)
        batch.tensors["positives"] = gold = pad(positives, NONE)
        frequencies, config = self.frequencies.cpu(), self.config
        batch.tensors["negatives"] = draw(
            batch.tensors["candidates"], gold, frequencies, config.negatives, config.within
        )
        batch.tensors["units"] = torch.tensor([sum(bool(own) for own in positives)])
        batch.counts = dict(+counts)
        return batch

    def _lay(self, examples: Sequence[Example], view: View) -> tuple[Batch, list[tuple[Example, str]]]:
        """Rows of the texts (`units.lay`) and of the categories (each once), pictures, and of each slot (an attribute
        asked of an example) ``slot_example``, ``query``, ``category [I]``, ``candidates [I, C]`` filled up with -1."""
        self._check(examples, view)
        slots = [(i, e, name) for i, e in enumerate(examples) for name in e.asked]
        tensors: dict[str, Tensor] = {}
        counts = Counter[str]()
        if view.text:
            laid = lay(self.layout, [Item(i, e) for i, e in enumerate(examples)], view)
            tensors, counts = laid.tensors, laid.counts
        if view.images:
            seen, missing = self.pictures(examples)
            tensors, counts = tensors | seen, counts + missing
        candidates = [self.values.candidates(e, name) for _, e, name in slots]
        counts["attributes_without_values"] += sum(not own for own in candidates)
        tensors["slot_example"] = torch.tensor([i for i, _, _ in slots])
        tensors["query"] = torch.tensor([self._queries[name] for _, _, name in slots])
        tensors["candidates"] = pad(candidates, NONE)
        if self.config.category:
            categories = {name: i for i, name in enumerate(dict.fromkeys(e.category for _, e, _ in slots))}
            tensors["category"] = torch.tensor([categories[e.category] for _, e, _ in slots])
            rows = [self.layout.rows(self.layout.words(name), name)[0][0] for name in categories]
            told = stack(self.words, rows, range(len(rows)))
            tensors |= {f"categories.{key}": value for key, value in told.items()}
        return Batch(tensors, examples, view, dict(+counts)), [(e, name) for _, e, name in slots]

    def _check(self, examples: Sequence[Example], view: View) -> None:
        if view.prompt or view.explain:
            raise UnsupportedView(f"{self.NAME} reads text, side texts and pictures; no prompt, no explaining")
        if not view.text and not view.images:
            raise UnsupportedView("neither text nor pictures: nothing is read at all")
        for example in examples:
            if not example.asked:
                raise DataFault(f"example {example.id}", "asks no attribute", "name the attributes in asked")

    def forward(self, batch: Batch) -> Output:
        """The loss of the slots with gold, and ``ranking [I, C]``: each candidate's cosine, else ``-inf``."""
        tensors = batch.tensors
        query = self.queries(tensors["query"])
        if self.category is not None:
            told = group(tensors, "categories")
            categories = mean(self.words(told), told["attention_mask"])
            query = query + self.category(categories)[tensors["category"]]
        fused = self._fused(query, tensors, len(batch.examples))
        with torch.autocast(fused.device.type, enabled=False):  # bf16 would make ties
            cosines = F.normalize(fused.float(), dim=-1) @ F.normalize(self.table.weight, dim=-1).T
        ranking = at(cosines, tensors["candidates"])
        gold = tensors.get("positives")
        if gold is None or not (gold >= 0).any():
            return Output(None, {}, {"ranking": ranking})
        if self.config.loss == "softmax":
            is_gold = (tensors["candidates"][:, :, None] == gold[:, None]).any(2)
            loss = softmax_loss(at(cosines, gold), ranking, is_gold, self.config.sharpness)
        else:
            loss = margin_loss(at(cosines, gold), at(cosines, tensors["negatives"]), self.config.margin)
        return Output(loss, {"ranking": loss}, {"ranking": ranking})

    def _fused(self, query: Tensor, tensors: dict[str, Tensor], examples: int) -> Tensor:
        """``c [I, d]`` of the slots' queries; a text or picture that is not there takes no part."""
        of, zeros = tensors["slot_example"], torch.zeros_like(query)
        there = torch.zeros(len(query), 2, dtype=torch.bool, device=query.device)
        text = seen = zeros
        if "input_ids" in tensors:
            text = self.asked_text(torch.cat([query, self.read(self._texts(tensors, examples))[of]], 1))
            there[:, 0] = True
        if "image.present" in tensors:
            present = tensors["image.present"]
            whole = tensors[f"image.level{len(self.levels or ()) - 1}"][:, :, 0]
            pictures = self.look(F.normalize(whole, dim=-1) * whole.shape[-1] ** 0.5)
            pictures = pictures.masked_fill(~present[..., None], 0.0).amax(1)  # relu: none is below 0
            seen = self.asked_pictures(torch.cat([query, pictures[of]], 1))
            there[:, 1] = present.any(1)[of]
        fused: Tensor = self.fusion(query, torch.stack([text, seen], 1), there)
        return fused

    def _texts(self, tensors: dict[str, Tensor], examples: int) -> Tensor:
        """What the CNN finds in each text ``[B, filters]``: the maximum over its windows' rows."""
        found = self.cnn(self.words(tensors), tensors["attention_mask"])
        best = found.new_zeros(examples, found.shape[1])  # relu: none is below 0
        return best.scatter_reduce(0, tensors["example"][:, None].expand_as(found), found, "amax")

    def answer(self, examples: Sequence[Example], view: View) -> tuple[list[tuple[Any, Any]], Mapping[str, int]]:
        """The best value of each attribute asked, and its share of a softmax over the candidates' sharpened cosines: a
        probability after the softmax loss, no more than an order after the margin loss."""
        scored, counts = self._scored(examples, view)
        found = []
        for by_name in scored:
            values: dict[str, tuple[str, ...]] = {}
            scores: dict[str, float | None] = {}
            for name, by_value in by_name.items():
                best = max(by_value, key=by_value.__getitem__, default=ABSENT)
                values[name] = (best,) if best != ABSENT else ()
                total = sum(math.exp(self.config.sharpness * (score - by_value[best])) for score in by_value.values())
                scores[name] = 1 / total if by_value else None
            found.append((Answer(values=values), scores))
        return found, counts

    @torch.no_grad()
    def rank(self, examples: Sequence[Example], view: View | None = None, batch_size: int = 32) -> list[Scored]:
        """Each attribute's candidates with their cosines, for `eval.value_ranking`; "absent" is the empty string."""
        was_training = self.training
        self.eval()
        try:
            parts = [examples[i : i + batch_size] for i in range(0, len(examples), batch_size)]
            return [one for part in parts for one in self._scored(part, view or self.view)[0]]
        finally:
            self.train(was_training)

    def _scored(self, examples: Sequence[Example], view: View) -> tuple[list[Scored], dict[str, int]]:
        batch, slots = self._lay(examples, view)
        scores = self(batch.to(self.device)).scores["ranking"].tolist()
        found: list[Scored] = [{} for _ in examples]
        for row, i, (example, name) in zip(scores, batch.tensors["slot_example"].tolist(), slots, strict=True):
            own = self.values.candidates(example, name)
            found[i][name] = {self.values.values[v]: score for v, score in zip(own, row, strict=False)}
        return found, batch.counts


def _alike(first: Tensor | None, second: Tensor | None) -> bool:
    return first is not None and second is not None and first.shape == second.shape
