"""OpenTag: a BiLSTM, additive self-attention and a CRF over the words of a product's text (Zheng et al., KDD 2018)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from ...tasks.attributes import attribute_of
from ...tasks.task import DataFault
from ..collate import Text, pad
from ..encoders import words
from ..encoders.words import BiLSTM, WordEncoder, WordsConfig
from ..heads.crf import CRF
from ..heads.tags import Tags, decode_values, encode_values, merge_values
from ..student import Batch, Output, View
from ..system import System, UnsupportedView

NAME = "opentag"

#: The score of a tag whose attribute is not asked; finite, so that sums over sequences stay numbers.
NEVER = -1e4


class OpenTagConfig(WordsConfig):
    """What an `OpenTag` is made of; the defaults of ``hidden``, ``dropout`` and ``word_width`` are the paper's.

    Attributes:
        attention: width in which two words are compared.
        own_state: whether the CRF reads each word's own state ``h_t`` beside ``l_t``. The paper's reads ``l_t`` alone,
            which begins as nearly the same sum for every word, and learns far slower (the paper: up to 500 epochs).
    """

    tasks = ("attributes",)

    attention: int = Field(100, ge=1)
    own_state: bool = True


class AdditiveAttention(nn.Module):
    """``l_t = sum_t' a[t, t'] h_t'`` with ``a[t, t'] = sigmoid(w_a tanh(W h_t + W' h_t' + b) + b_a)`` (section 3.3).

    By the sigmoid each word has a weight of its own: they do not add up to 1, as after a softmax.
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, inner), nn.Linear(width, inner, bias=False)
        self.score = nn.Linear(inner, 1)

    def weights(self, queries: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """``a [B, W, T]``, 0 under the padding, of ``[B, W, d]`` and ``[B, T, d]`` with its mask ``[B, T]``."""
        both = torch.tanh(self.query(queries)[:, :, None] + self.key(states)[:, None])
        return self.score(both)[..., 0].sigmoid().masked_fill(~mask[:, None], 0.0)

    def forward(self, queries: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """``l [B, W, d]``."""
        return self.weights(queries, states, mask) @ states


class OpenTag(System):
    """Words, a BiLSTM, attention, and a CRF whose tags are BIOE marks of every attribute of the schema (figure 2).

    Side texts stand behind the product's, each after a break: the BiLSTM and the attention read them, the CRF does not.
    """

    NAME = NAME
    Config = OpenTagConfig
    legal: Tensor

    def build(self) -> None:
        """Its parts."""
        config, schemas = self.config, self.schemas
        if "attributes" not in schemas:
            raise UnsupportedView(f"{NAME} is for the task attributes, which has no schema here")
        schema = schemas["attributes"]
        self.tags = Tags(tuple(dict.fromkeys(a.name for a in schema.attributes)), "BIOE")
        self.words = WordEncoder(config, self.vocabulary)
        self.bilstm = BiLSTM(self.words.width, config.hidden)
        self.attention = AdditiveAttention(2 * config.hidden, config.attention)
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear((2 + 2 * config.own_state) * config.hidden, len(self.tags))
        self.crf = CRF(len(self.tags))
        self.register_buffer("legal", self.tags.legal(), persistent=False)

    @classmethod
    def prepare(cls, config: Any, schemas: Mapping[str, Any], examples: Sequence[Any]) -> dict[str, Any]:
        """The words of the training texts, and of the side texts read beside them."""
        sides = (e.context.get(name, "") for e in examples for name in config.view.context)
        return words.vocabulary(config, [*(e.text for e in examples), *sides])

    @classmethod
    def create(cls, config: Any, schemas: Mapping[str, Any], examples: Sequence[Any] = ()) -> OpenTag:
        """A new student; its words are those of ``examples``, its pretrained vectors those of ``config``."""
        student = super().create(config, schemas, examples)
        student.words.fill()
        return student

    def collate(self, examples: Sequence[Any], view: View | None = None) -> Batch:
        """Words of each text with those of its side texts, the tags allowed, and gold tags where there are any."""
        return self._collate(examples, view or self.view)[0]

    def _collate(self, examples: Sequence[Any], view: View) -> tuple[Batch, list[Text]]:
        if view.images or view.prompt or view.explain or not view.text:
            raise UnsupportedView(f"{NAME} reads text and side texts, and nothing else")
        counts = Counter[str]()
        texts, rows, tags = [], [], []
        for example in examples:
            self._check(example)
            text = self.words.read(example.text)
            if not text.pieces:
                raise DataFault(f"example {example.id}", "its text has no words", "leave it out")
            row = [example.text[a:b] for a, b in text.spans]
            sides, cut = words.sides(example, view, self.config.context_words)
            gold, remarks = encode_values(example, example.asked, text, self.tags)
            counts += cut + remarks
            texts.append(text)
            rows.append(words.row(row, sides))
            tags.append(gold or [0] * len(row))
        tensors = self.words.collate(rows)
        tensors["word_mask"] = pad([[1] * len(text.pieces) for text in texts], dtype=torch.bool)
        tensors["tags"] = pad(tags)
        tensors["gold"] = gold_ = torch.tensor([example.gold is not None for example in examples])
        tensors["allowed"] = torch.stack([self.tags.only(example.asked) for example in examples])
        tensors["units"] = tensors["word_mask"][gold_].sum()[None]
        return Batch(tensors, examples, view, dict(counts)), texts

    def _check(self, example: Any) -> None:
        """Refuse attributes that the schema does not have, or whose values are no part of a text."""
        schema = self.schemas["attributes"]
        for name in example.asked:
            attribute = attribute_of(schema, example, name)
            if attribute.choices:
                raise UnsupportedView(
                    f"example {example.id}: {NAME} marks words of the text; {name} is {attribute.type}"
                )

    def forward(self, batch: Batch) -> Output:
        """``-log P(y | x)`` a word (eq. 9), and ``emissions [B, W, K]`` with ``word_mask [B, W]``."""
        tensors, mask = batch.tensors, batch.tensors["word_mask"]
        states, _ = self.bilstm(self.dropout(self.words(tensors)), tensors["mask"])
        states = self.dropout(states)
        attended = self.attention(states[:, : mask.shape[1]], states, tensors["mask"])
        if self.config.own_state:
            attended = torch.cat([states[:, : mask.shape[1]], attended], -1)
        emissions = self.linear(attended).float()
        scores, gold = {"emissions": emissions, "word_mask": mask}, tensors["gold"]
        if not gold.any():
            return Output(None, {}, scores)
        loss = self.crf.nll(emissions[gold], tensors["tags"][gold], mask[gold]).sum() / tensors["units"][0]
        return Output(loss, {"tagging": loss}, scores)

    def answer(self, examples: Sequence[Any], view: View) -> tuple[list[tuple[Any, Any]], Mapping[str, int]]:
        """Each attribute's surest span, or absence."""
        batch, texts = self._collate(examples, view)
        emissions, mask, paths = self._decoded(batch)
        posterior = self.crf.marginals(emissions, mask).exp().cpu()
        answers = []
        for example, text, path, sure in zip(examples, texts, paths, posterior, strict=True):
            values = decode_values(example, example.asked, text, path, sure, self.tags)
            answers.append(merge_values(example, [values]))
        return answers, batch.counts

    @torch.no_grad()
    def paths(self, examples: Sequence[Any], view: View | None = None) -> list[tuple[list[int], float]]:
        """Of each text the best tag sequence ``y*`` and ``log P(y* | x)``: what active learning asks (section 4)."""
        bare = [example.model_copy(update={"gold": None}) for example in examples]
        emissions, mask, paths = self._decoded(self.collate(bare, view))
        surprise = self.crf.nll(emissions, pad(paths).to(emissions.device), mask)
        return list(zip(paths, (-surprise).tolist(), strict=True))

    def _decoded(self, batch: Batch) -> tuple[Tensor, Tensor, list[list[int]]]:
        """Emissions in which tags of attributes not asked are as good as impossible, the mask, and the best paths."""
        batch = batch.to(self.device)
        scores = self(batch).scores
        emissions = scores["emissions"].masked_fill(~batch.tensors["allowed"][:, None], NEVER)
        return emissions, scores["word_mask"], self.crf.viterbi(emissions, scores["word_mask"], self.legal)
