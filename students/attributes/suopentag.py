"""SUOpenTag: one tagger for all attributes, told by a query which of them to mark (Xu et al., ACL 2019)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ...tasks.attributes import Example
from ..collate import Item, Layout, Text, group
from ..encoders.words import BiLSTM
from ..heads.crf import CRF
from ..heads.span import gold_spans
from ..heads.tags import Tags, decode_values, merge_values, typed
from ..queries import QueryConfig, asked, check, wording
from ..student import Batch, Output, View
from ..system import System
from ..units import lay, unit_states

#: The one label: the value of whichever attribute is asked.
VALUE = "value"


class SUOpenTagConfig(QueryConfig):
    """What an `SUOpenTag` is made of.

    Attributes:
        hidden: of each direction of the two LSTMs.
    """

    hidden: int = Field(256, ge=1)


class SUOpenTag(System):
    """Tags B, I and O of the value of the attribute asked (Xu et al., Scaling up Open Tagging from Tens to Thousands).

    One backbone encodes the title and the attribute, a BiLSTM each reads its states: ``h_i`` of the title's
    sub-tokens, ``h_a`` the last of the attribute. Then ``alpha_i = cos(h_i, h_a)``, not normalised over the title,
    ``m_i = [h_i ; alpha_i h_i]``, a linear layer and a CRF (their section 3). A title is encoded once for all that is
    asked about it, an attribute once a batch. Of an attribute with many values the surest one is given.
    """

    NAME = "suopentag"
    Config = SUOpenTagConfig
    encoder: Any
    config: SUOpenTagConfig
    legal: Tensor

    def build(self) -> None:
        """Its parts."""
        config, encoder = self.config, self.encoder
        self.layout = Layout(encoder, config.context_tokens)
        self.tags = Tags((VALUE,))
        self.title = BiLSTM(encoder.hidden, config.hidden)
        self.attribute = BiLSTM(encoder.hidden, config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(4 * config.hidden, len(self.tags))
        self.crf = CRF(len(self.tags))
        self.register_buffer("legal", self.tags.legal(), persistent=False)

    def collate(self, examples: Sequence[Example], view: View | None = None) -> Batch:
        """Rows of the titles and of the distinct queries, and which pairs of them are asked, with gold tags.

        ``title.…`` and ``query.…`` are `units.lay`'s; ``pair_title``, ``pair_query``, ``learn [P]``, ``tags [P, W]``.
        """
        view = view or self.view
        return self._collate(examples, asked(examples, self.schemas["attributes"], self.config, self.training), view)[0]

    def _collate(self, examples: Sequence[Example], items: Sequence[Item], view: View) -> tuple[Batch, list[Text]]:
        """The batch of some items, and the units of each example's title."""
        check(examples, items, view)
        titles = lay(self.layout, [Item(i, e) for i, e in enumerate(examples)], view)
        schema = self.schemas["attributes"]
        worded = [wording(item, schema, self.config, self.training) for item in items]
        numbers = {query: n for n, query in enumerate(dict.fromkeys(worded))}
        queries = lay(self.layout, [Item(n, Example(id=q, text=q)) for q, n in numbers.items()], View())
        counts = titles.counts + queries.counts
        tags, learn = [], []
        for item in items:
            text = titles.texts[item.index]
            spans, remarks = gold_spans(item.example, item.labels[0], text)
            own, _ = self.tags.encode(typed(spans or (), VALUE), len(text.pieces))
            tags.append(own)
            learn.append(spans is not None)
            counts += remarks
        tensors = {f"title.{name}": value for name, value in titles.tensors.items()}
        tensors |= {f"query.{name}": value for name, value in queries.tensors.items()}
        width = titles.tensors["word_mask"].shape[1]
        tensors["tags"] = torch.tensor([[*own, *[0] * (width - len(own))] for own in tags])
        tensors["learn"] = torch.tensor(learn)
        tensors["pair_title"] = torch.tensor([item.index for item in items])
        tensors["pair_query"] = torch.tensor([numbers[query] for query in worded])
        tensors["units"] = torch.tensor([max(1, sum(learn))])
        return Batch(tensors, examples, view, dict(counts)), titles.texts

    def forward(self, batch: Batch) -> Output:
        """The mean negative log likelihood of a pair's tags; ``emissions [P, W, K]`` and ``word_mask [P, W]``."""
        tensors = batch.tensors
        emissions = self.linear(self.dropout(self.matched(tensors))).float()
        mask = tensors["title.word_mask"][tensors["pair_title"]]
        scores = {"emissions": emissions, "word_mask": mask}
        if all(example.gold is None for example in batch.examples):
            return Output(None, {}, scores)
        losses = self.crf.nll(emissions, tensors["tags"], mask).masked_fill(~tensors["learn"], 0.0)
        loss = losses.sum() / tensors["units"][0]
        return Output(loss, {"tags": loss}, scores)

    def matched(self, tensors: dict[str, Tensor]) -> Tensor:
        """``m [P, W, 4 hidden]`` of each pair."""
        titles, queries = group(tensors, "title"), group(tensors, "query")
        words, _ = self.title(self._units(titles), titles["word_mask"])
        _, last = self.attribute(self._units(queries), queries["word_mask"])
        words, last = words[tensors["pair_title"]], last[tensors["pair_query"]]
        return torch.cat([words, self.likeness(words, last)[..., None] * words], -1)

    def likeness(self, words: Tensor, attribute: Tensor) -> Tensor:
        """``alpha [P, W]``: the cosine of each sub-token ``[P, W, d]`` and the attribute ``[P, d]``."""
        return F.cosine_similarity(words, attribute[:, None], dim=-1)

    def _units(self, rows: dict[str, Tensor]) -> Tensor:
        states = self.encoder(rows["input_ids"], rows["attention_mask"], rows["token_type_ids"])
        return self.dropout(unit_states(states, rows))

    def answer(self, examples: Sequence[Example], view: View) -> tuple[list[tuple[Any, Any]], Mapping[str, int]]:
        """For each attribute asked the surest span, or none."""
        items = asked(examples, self.schemas["attributes"], self.config, training=False)
        if not items:
            return [merge_values(example, ()) for example in examples], Counter()
        batch, texts = self._collate(examples, items, view)
        scores = self(batch.to(self.device)).scores
        paths = self.crf.viterbi(scores["emissions"], scores["word_mask"], self.legal)
        posteriors = self.crf.marginals(scores["emissions"], scores["word_mask"]).exp().cpu()
        found: list[list[Any]] = [[] for _ in examples]
        for item, path, posterior in zip(items, paths, posteriors, strict=True):
            said = decode_values(item.example, (VALUE,), texts[item.index], path, posterior, self.tags)
            found[item.index].append({item.labels[0]: said[VALUE]})
        return [merge_values(example, own) for example, own in zip(examples, found, strict=True)], batch.counts
