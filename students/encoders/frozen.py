"""Word vectors that no training changes: a model's sub-tokens, bare or in context, or the words of a vectors file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ..settings import Clash, StudentConfig
from . import text, vectors
from .text import SubTokens
from .vectors import WordVectors
from .words import units

#: What is taken of a model: its input embeddings, or its last hidden states.
TextStates = Literal["embeddings", "contextual"]

#: The longest text in words of a vectors file, where nothing is said (Logan et al., AKBC 2017).
MAX_WORDS = 1000

#: The special words of a vectors file's vocabulary, in their order.
_SPECIAL = ("[PAD]", "[UNK]", "[SEP]")


class FrozenTextConfig(StudentConfig):
    """Settings of a student that reads texts by frozen vectors.

    Attributes:
        text_encoder: a model whose sub-tokens have vectors, or None where ``vectors`` is set.
        text_states: what is taken of it.
        vectors, vectors_first: a file of word vectors in GloVe's format instead, or None; so many of its first words
            are kept, beside those of the training examples.
        max_tokens, context_tokens: the longest row; the most side text in it.
    """

    text_encoder: str | None = "minilm"
    text_states: TextStates = "contextual"
    vectors: str | None = None
    vectors_first: int = Field(100_000, ge=0)
    max_tokens: int | None = Field(None, ge=8)
    context_tokens: int | None = Field(None, ge=0)

    def clashes(self, recipe: Any) -> Iterator[Clash]:
        """No source of vectors, or two."""
        if bool(self.text_encoder) == bool(self.vectors):
            yield ("text_encoder", "vectors"), "text_encoder (a model) or vectors (a file): give one, the other is null"

    def pretrained(self, images: bool) -> str:
        """Where its vectors come from, and the frozen image encoder where pictures are seen."""
        words = f"vectors of {(self.vectors or '').rpartition('/')[2]}"
        if self.text_encoder:
            words = f"{self.text_encoder} (frozen, {self.text_states})"
        return f"{words} + {self.image_encoder} (frozen)" if images and self.image_encoder else words


def learn(config: FrozenTextConfig, examples: Iterable[Any]) -> dict[str, Any]:
    """What `of` must know of the training examples: with a file of vectors, the words kept of it; else nothing."""
    if not config.vectors:
        return {}
    texts = (t for e in examples for t in (e.text, *(e.context.get(name, "") for name in config.view.context)))
    wanted = {text_[a:b].lower() for text_ in texts for a, b in units(text_)}
    words, width = vectors.words_of(config.vectors, wanted, config.vectors_first)
    return {"words": words, "word_width": width}


def of(config: FrozenTextConfig, known: Mapping[str, Any]) -> FrozenModel | FrozenWords:
    """The source of vectors that a student's settings name; one of a new student's file is still to be filled."""
    if config.text_encoder:
        return FrozenModel(config.text_encoder, config.text_states, config.max_tokens)
    return FrozenWords(known["words"], known["word_width"], config.max_tokens or MAX_WORDS)


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

    def __init__(self, words: Sequence[str], width: int, max_tokens: int) -> None:
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
