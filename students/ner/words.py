"""Words, a BiLSTM and a CRF: the frame of entity systems without a transformer (Lample et al., NAACL 2016).

Such a system is what it does with a picture, before the BiLSTM or after it, and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...tasks import ner
from ...tasks.task import DataFault
from ..collate import Item, pad
from ..encoders import words
from ..encoders.words import BiLSTM, WordEncoder, WordsConfig
from ..fused import as_answer
from ..heads.crf import CRF
from ..heads.tagging import TaggingHead, tags_of
from ..settings import StudentConfig
from ..student import Batch, Output, View
from ..system import Picture, System, UnsupportedView


class WordTaggerConfig(WordsConfig):
    """What a `WordTagger` is made of; each system adds its own."""

    tasks = ("ner",)
    sees: ClassVar[bool] = True


class WordTagger(System):
    """Vectors of a post's words, a BiLSTM, and a CRF over its tags; pictures enter in `before` or in `after`.

    Side texts stand behind the post, each after a break: the BiLSTM reads them, the CRF does not. The words are the
    data set's own. A post without a picture must come out as if it had been alone: that is tested of each system.

    Attributes:
        words: gives each word's vector, of width ``words.width``.
        head: a `TaggingHead` over words.
        reads: width of what the BiLSTM reads; that of a word's vector, unless `parts` sets it.
        width: of the states that the head reads; the BiLSTM's, unless `parts` sets it.
    """

    Config: ClassVar[type[StudentConfig]] = WordTaggerConfig
    config: Any

    def build(self) -> None:
        """The parts that all have in common, and the system's own."""
        config = self.config
        if list(self.schemas) != ["ner"]:
            known = ", ".join(self.schemas) or "none"
            raise UnsupportedView(f"{self.NAME} is for the task ner; schemas given: {known}")
        self.words = WordEncoder(config, self.vocabulary)
        self.reads, self.width = self.words.width, 2 * config.hidden
        self.parts()
        self.dropout = torch.nn.Dropout(config.dropout)
        self.bilstm = BiLSTM(self.reads, config.hidden)
        self.head = TaggingHead(self.width, self.schemas["ner"].labels, config.dropout)

    @property
    def crf(self) -> CRF:
        """The head's, whose posteriors objectives compare."""
        return self.head.crf

    # --- what a system says itself ---

    def parts(self) -> None:
        """Make the modules of the fusion; may set ``reads`` and ``width``. ``levels`` is None where it never sees."""

    def before(self, vectors: Tensor, mask: Tensor, picture: Picture | None) -> Tensor:
        """What the BiLSTM reads ``[B, T, reads]``, of the words' vectors ``[B, T, words.width]``, side texts' too.

        Args:
            vectors: parts of ``words.widths`` side by side: the word, its letters, its shape.
            mask: bool ``[B, T]``.
            picture: the pictures of the posts, or None where no post of the batch has one.
        """
        return vectors

    def after(self, states: Tensor, mask: Tensor, picture: Picture | None) -> Tensor:
        """What the head reads ``[B, W, width]``, of the BiLSTM's states ``[B, W, 2 * hidden]`` of the posts' words.

        Args:
            states: forward, then backward; zeros under the padding.
            mask: bool ``[B, W]``.
            picture: the pictures of the posts, or None where no post of the batch has one.
        """
        return states

    # --- reading ---

    @classmethod
    def prepare(cls, config: Any, schemas: Mapping[str, Any], examples: Sequence[Any]) -> dict[str, Any]:
        """The words of the training posts, and of the side texts read beside them."""
        own = [e.text[a:b] for e in examples for a, b in ner.word_spans(e)]
        read = [word for e in examples for side in words.sides(e, config.view, None)[0] for word in side]
        return words.of_words(config, [*own, *read])

    @classmethod
    def create(cls, config: Any, schemas: Mapping[str, Any], examples: Sequence[Any] = ()) -> Any:
        """A new student; its words are those of ``examples``, its pretrained vectors those of ``config``."""
        student = super().create(config, schemas, examples)
        student.words.fill()
        return student

    def collate(self, examples: Sequence[Any], view: View | None = None) -> Batch:
        """Words of each post and of its side texts, gold tags where there are any, and the pictures' features."""
        view = view or self.view
        self.check_texts(examples, view, "ner")
        counts = Counter[str]()
        rows, lengths, tags = [], [], []
        for example in examples:
            spans = ner.word_spans(example)
            if not spans:
                raise DataFault(f"example {example.id}", "its text has no words", "leave it out")
            sides, cut = words.sides(example, view, self.config.context_words)
            gold, remarks = tags_of(example, spans, self.head.tags)
            counts += cut + remarks
            rows.append(words.row([example.text[a:b] for a, b in spans], sides))
            lengths.append(len(spans))
            tags.append(gold)
        tensors = self.words.collate(rows)
        tensors["word_mask"] = mask = pad([[1] * length for length in lengths], dtype=torch.bool)
        tensors["tags"] = pad(tags)
        tensors["gold"] = gold_ = torch.tensor([example.gold is not None for example in examples])
        tensors["units"] = mask[gold_].sum()[None]
        if view.images:
            pictures, given_up = self.pictures(examples)
            tensors, counts = tensors | pictures, counts + given_up
        return Batch(tensors, examples, view, dict(counts))

    def forward(self, batch: Batch) -> Output:
        """The CRF's loss a word, and ``emissions [B, W, K]`` with ``word_mask [B, W]``."""
        tensors, mask, own = batch.tensors, batch.tensors["mask"], batch.tensors["word_mask"]
        picture = self.seen(tensors)
        vectors = self.before(self.words(tensors), mask, picture)
        states, _ = self.bilstm(self.dropout(vectors), mask)
        # Behind a post that is shorter than others its side texts begin: there is nothing to tag.
        states = states[:, : own.shape[1]].masked_fill(~own[..., None], 0.0)
        loss, scores = self.head.tag(self.after(states, own, picture), tensors)
        return Output(loss, {} if loss is None else {"ner": loss}, scores)

    def answer(self, examples: Sequence[Any], view: View) -> tuple[list[tuple[Any, Any]], Mapping[str, int]]:
        """The entities of each post with their probabilities."""
        bare = [example.model_copy(update={"gold": None}) for example in examples]
        batch = self.collate(bare, view).to(self.device)
        items = [Item(i, example) for i, example in enumerate(bare)]
        found = self.head.answers(items, None, self(batch).scores, batch.tensors)
        return [as_answer(one) for one in found], batch.counts
