"""Word vectors that no training changes: a model's sub-tokens, bare or in context, or the words of a vectors file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from . import text
from .text import SubTokens
from .vectors import WordVectors

#: What is taken of a model: its input embeddings, or its last hidden states.
TextStates = Literal["embeddings", "contextual"]

#: The special words of a vectors file's vocabulary, in their order.
_SPECIAL = ("[PAD]", "[UNK]", "[SEP]")


class FrozenModel:
    """A transformers model as a source of word vectors. It is no module: no student trains it or keeps it.

    It has what `collate.Layout` asks of an encoder (``sub_tokens``, ``limit``, ``decoder``).

    Args:
        name: a packaged model's short name, a path or a hub name.
        states: what is taken of it.
        max_tokens: the longest row, or None for the model's own limit.
    """

    def __init__(self, name: str, states: TextStates, max_tokens: int | None = None) -> None:
        self._encoder = text.load(name, max_tokens=max_tokens).eval().requires_grad_(False)
        self._states = states
        self.sub_tokens, self.limit, self.decoder = self._encoder.sub_tokens, self._encoder.limit, self._encoder.decoder
        self.width = self._encoder.hidden
        weights: Any = self._encoder.embeddings.weight
        self._size = float(weights.std()) if states == "embeddings" else 1.0

    @torch.no_grad()
    def __call__(self, rows: Mapping[str, Tensor]) -> Tensor:
        """Vectors ``[R, T, width]`` of padded rows; embeddings have a standard deviation of 1 over the vocabulary."""
        ids = rows["input_ids"]
        encoder = self._encoder.to(ids.device)
        if self._states == "embeddings":
            return encoder.embeddings(ids).float() / self._size
        states: Tensor = encoder(ids, rows["attention_mask"], rows["token_type_ids"])
        return states.float()


class FrozenWords(nn.Module):
    """The words of a vectors file; they are kept with the student. The same face as `FrozenModel`.

    Args:
        words: those kept, in lower case where the file has them so.
        width: of their vectors, which `fill` reads.
        max_tokens: the longest row in words.
    """

    decoder = False

    def __init__(self, words: Sequence[str], width: int, max_tokens: int = 1000) -> None:
        super().__init__()
        self.vectors = WordVectors.of_words(words, width)
        self.sub_tokens = SubTokens(_tokenizer(words))
        self.limit, self.width = max_tokens, width

    def fill(self, path: str) -> None:
        """Read the vectors of the words out of their file."""
        self.vectors.fill(path)

    def forward(self, rows: Mapping[str, Tensor]) -> Tensor:
        """Vectors ``[R, T, width]`` of padded rows; zeros for an unknown word and what parts two texts."""
        numbers = rows["input_ids"] - len(_SPECIAL)
        found: Tensor = self.vectors.table[numbers.clamp(min=0)]
        return found * (numbers >= 0)[..., None]


def _tokenizer(words: Sequence[str]) -> Any:
    """A tokenizer whose tokens are the words; one that stands only in lower case in the file is found by it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    numbers = {word: number for number, word in enumerate((*_SPECIAL, *words))}
    made = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", sep_token="[SEP]")
