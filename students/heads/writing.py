"""Writing head: an encoder-decoder writes an answer, freely or as one of those that a trie holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..collate import pad
from ..encoders.seq2seq import Seq2Seq
from .beam import Beam, Continuations, Found, search
from .pointer import Pointer
from .trie import Trie

#: What a target is that teaches nothing.
IGNORED = -100


class Memory(NamedTuple):
    """What a decoder reads of some items: states ``[I, S, d]``, their mask ``[I, S]`` and sub-tokens ``[I, S]``."""

    states: Tensor
    mask: Tensor
    source: Tensor

    def of(self, items: Tensor) -> Memory:
        """The same of some of the items, in that order."""
        return Memory(*(part[items] for part in self))


def targets(encoder: Seq2Seq, answers: Sequence[tuple[int, ...]], tries: Sequence[Trie | None]) -> dict[str, Tensor]:
    """Answers as a decoder learns them: ``ids`` to be fed and ``targets`` to be said ``[N, L]``.

    Where a trie holds each answer, also the ``words [N, C]`` it is made of (-1: none) and which of these are ``legal
    [N, L, C]`` at each step; a target is then the place among the words. All items have a trie, or none has.
    """
    end = encoder.end
    fed = pad([[encoder.start, *ids] for ids in answers], encoder.sub_tokens.pad)
    words, said, steps = [], [], []
    for ids, trie in zip(answers, tries, strict=True):
        if trie is None:
            said.append([*ids, end])
            continue
        words.append(trie.words())
        place = {word: at for at, word in enumerate(words[-1])}
        said.append([place[token] for token in (*ids, end)])
        steps.append([[place[token] for token in trie.legal(ids[:length])] for length in range(len(ids) + 1)])
    told = {"ids": fed, "targets": pad(said, IGNORED)}
    if not words:
        return told
    told["words"] = pad(words, -1)
    # Behind an answer's end everything is legal: a softmax over nothing would be no number.
    told["legal"] = (told["targets"] == IGNORED)[..., None].repeat(1, 1, told["words"].shape[1])
    for n, own in enumerate(steps):
        for step, allowed in enumerate(own):
            told["legal"][n, step, allowed] = True
    return told


class Writer(nn.Module):
    """Says how probable an answer is, and which is the most probable.

    Args:
        encoder: its model writes; it is not part of this module.
        copying: whether what is read may be copied besides (`Pointer`).
    """

    def __init__(self, encoder: Seq2Seq, copying: bool) -> None:
        super().__init__()
        self.pointer = Pointer(encoder.width, encoder.hidden) if copying else None

    def forward(self, encoder: Seq2Seq, memory: Memory, told: dict[str, Tensor]) -> Tensor:
        """``log P(answer)`` ``[N]`` of the answers that `targets` told."""
        said = self.following(encoder, memory, told["ids"], told.get("words"), told.get("legal"))
        wanted = told["targets"]
        picked = said.gather(2, wanted.clamp(min=0)[..., None])[..., 0]
        return picked.masked_fill(wanted == IGNORED, 0.0).sum(1)

    def following(
        self, encoder: Seq2Seq, memory: Memory, ids: Tensor, words: Tensor | None, legal: Tensor | None,
        cache: Any = None,
    ) -> Tensor:  # fmt: skip
        """Log probabilities of what follows each of ``ids [N, L]``: of all sub-tokens ``[N, L, V]``, or of ``words``
        ``[N, L, C]``, taken among those that are legal."""
        states, logits = encoder.decode(memory.states, memory.mask, ids, cache)
        logits = logits.float()
        if words is not None:
            logits = logits.gather(2, words.clamp(min=0)[:, None].expand(-1, ids.shape[1], -1))
            logits = logits.masked_fill(words[:, None] < 0, -torch.inf)
        said = logits.log_softmax(-1)
        if self.pointer is not None:
            every = torch.arange(logits.shape[-1], device=logits.device) if words is None else words
            source = memory.source.masked_fill(memory.mask == 0, -1)
            said = self.pointer(states, memory.states, source, said, every)
        return said if legal is None else said.masked_fill(~legal, -torch.inf).log_softmax(-1)

    def write(
        self, encoder: Seq2Seq, memory: Memory, tries: Sequence[Trie | None], widths: Sequence[int], longest: int
    ) -> list[Found | None]:
        """The most probable answer found for each item (`beam.search`); all items have a trie, or none has."""
        return search(_Expansion(self, encoder, memory, tries, max(widths)), widths, longest, encoder.end)


class _Expansion:
    """How beams go on, the decoder's earlier states being kept."""

    def __init__(
        self, writer: Writer, encoder: Seq2Seq, memory: Memory, tries: Sequence[Trie | None], most: int
    ) -> None:
        self.writer, self.encoder, self.memory, self.tries, self.most = writer, encoder, memory, tries, most
        self.cache = encoder.new_cache()
        words = [trie.words() for trie in tries if trie is not None]
        self.places = [{word: at for at, word in enumerate(own)} for own in words]
        self.words = pad(words, -1).to(memory.mask.device) if words else None

    def __call__(self, beams: Sequence[Beam]) -> list[Continuations]:
        device = self.memory.mask.device
        items = torch.tensor([b.item for b in beams], device=device)
        last = torch.tensor([[b.ids[-1] if b.ids else self.encoder.start] for b in beams], device=device)
        if beams[0].ids:
            self.cache.reorder_cache(torch.tensor([b.parent for b in beams], device=device))
        words = None if self.words is None else self.words[items]
        allowed = [[] if (trie := self.tries[b.item]) is None else trie.legal(b.ids) for b in beams]
        legal = None
        if words is not None:
            legal = torch.zeros_like(words, dtype=torch.bool)
            for n, (beam, own) in enumerate(zip(beams, allowed, strict=True)):
                legal[n, [self.places[beam.item][token] for token in own]] = True
            legal = legal[:, None]
        said = self.writer.following(self.encoder, self.memory.of(items), last, words, legal, self.cache)[:, -1]
        if words is None:
            best = said.topk(min(self.most, said.shape[1]), dim=1)
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            return [list(zip(tokens, logs, strict=True)) for tokens, logs in pairs]
        found = said.tolist()
        return [
            [(token, found[n][self.places[beam.item][token]]) for token in own]
            for n, (beam, own) in enumerate(zip(beams, allowed, strict=True))
        ]
