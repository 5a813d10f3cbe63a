"""Words without a backbone: a vocabulary, learned and pretrained vectors, characters, shapes, and a BiLSTM."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ..collate import Text, pad, shape, shape_count
from ..settings import Clash, StudentConfig
from ..student import View
from . import vectors
from .vectors import WordVectors

#: Chinese characters and kana: there are no blanks between words written in them.
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
#: A word is a run of letters and digits, or one mark (values that end inside ``Navy,4`` can then be told apart), or one
#: Chinese or Japanese character.
UNIT = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")

#: Numbers of the vocabulary that are no word: padding, a word that training had not, and what parts two texts.
PADDING, UNKNOWN, BREAK = range(3)
#: Stands between two texts of a row; no unit is a blank.
BREAK_WORD = "\n"

#: Widths of a character's vector, of what a word's characters give, and of a shape's vector.
CHARACTER, SPELLING, SHAPE = 30, 50, 16
#: Letters of a longer word beyond these are not read (links).
LONGEST_WORD = 30


class WordsConfig(StudentConfig):
    """Settings of a student that reads words by vectors of its own.

    Attributes:
        vectors: a text file of pretrained vectors in GloVe's format, or None.
        vectors_first: so many of the file's first (commonest) words are kept, beside those of the training examples.
        word_vectors: a packaged model (``minilm``) whose input embeddings stand in for such a file, or None.
        word_width: width of learned vectors, where there are no pretrained ones.
        min_count: a rarer word of the training examples is unknown.
        lower: whether words are looked up in lower case.
        word_dropout: the share of words that are unknown in training, so that it learns what to do with those.
        characters: what reads a word's letters: a CNN (Ma and Hovy, ACL 2016), a BiLSTM (Lample et al., NAACL 2016), or
            None.
        word_shapes: whether it is told each word's casing.
        hidden: states of the BiLSTM in each direction.
        dropout: on the vectors of words and on the states.
        context_words: the most words of side text in a row, or None for all.
    """

    #: Whether its student looks at pictures.
    sees: ClassVar[bool] = False

    vectors: str | None = None
    vectors_first: int = Field(100_000, ge=0)
    word_vectors: str | None = None
    word_width: int = Field(50, ge=1)
    min_count: int = Field(1, ge=1)
    lower: bool = True
    word_dropout: float = Field(0.1, ge=0, lt=1)
    characters: Literal["cnn", "lstm"] | None = None
    word_shapes: bool = False
    hidden: int = Field(100, ge=1)
    dropout: float = Field(0.4, ge=0, lt=1)
    context_words: int | None = Field(None, ge=0)

    def clashes(self, recipe: Any) -> Iterator[Clash]:
        """Two sources of vectors; pictures, where the student cannot see."""
        if self.vectors and self.word_vectors:
            yield ("vectors", "word_vectors"), "vectors (a file) and word_vectors (a model): give one of them"
        if recipe.images and not self.sees:
            yield ("images", "student"), f"the student {recipe.student} cannot see: images: false"

    def pretrained(self, images: bool) -> str:
        """Where its vectors come from, and the frozen image encoder where pictures are seen."""
        parts = [f"vectors of {self.vectors.rpartition('/')[2]}"] if self.vectors else []
        parts += [f"static vectors of {self.word_vectors}"] if self.word_vectors else []
        parts += [f"{self.image_encoder} (frozen)"] if images and self.image_encoder else []
        return " + ".join(parts) or "none"


def units(text: str) -> list[tuple[int, int]]:
    """The characters of each word of a text."""
    return [match.span() for match in UNIT.finditer(text)]


def vocabulary(config: WordsConfig, texts: Iterable[str]) -> dict[str, Any]:
    """What a `WordEncoder` keeps of the training texts: their words, their characters, and the file's words."""
    return of_words(config, (text[a:b] for text in texts for a, b in units(text)))


def of_words(config: WordsConfig, words: Iterable[str]) -> dict[str, Any]:
    """What `vocabulary` gives, of texts whose words are given."""
    counts = Counter(words)
    folded = Counter[str]()
    for word, count in counts.items():
        folded[word.lower() if config.lower else word] += count
    made: dict[str, Any] = {"words": [word for word, count in folded.items() if count >= config.min_count]}
    if config.characters:
        made["characters"] = "".join(sorted({c for word in counts for c in word}))
    if config.vectors:
        kept, made["vector_width"] = vectors.words_of(config.vectors, counts.keys(), config.vectors_first)
        made["vectors"] = kept
    return made


class WordEncoder(nn.Module):
    """A vector for each word: learned and pretrained, with its letters and its shape beside them.

    The pretrained vector stays as it is and a learned one, zero at first, is added: what fine-tuning the vectors of
    the training words would do, while words that training had not keep theirs.

    Args:
        config: its settings.
        known: what `vocabulary` gave.

    Attributes:
        widths: of its parts: the word, its letters and its shape, in this order; 0 for what is not read.
        width: of a word's vector, their sum.
    """

    def __init__(self, config: WordsConfig, known: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = config
        self.pretrained = pretrained = _pretrained(config, known)
        self._words = {word: number for number, word in enumerate(known["words"], BREAK + 1)}
        self._words[BREAK_WORD] = BREAK
        width = pretrained.width if pretrained is not None else config.word_width
        self.learned = nn.Embedding(len(self._words) + 2, width, padding_idx=PADDING)
        if pretrained is not None:
            nn.init.zeros_(self.learned.weight)
        self._letters = {c: number for number, c in enumerate(known.get("characters", ""), UNKNOWN + 1)}
        self.spelling: nn.Module | None = None
        if config.characters:
            kind = {"cnn": CharacterCNN, "lstm": CharacterLSTM}[config.characters]
            self.spelling = kind(len(self._letters) + 2)
        self.shapes = nn.Embedding(shape_count(), SHAPE, padding_idx=0) if config.word_shapes else None
        self.widths = (width, SPELLING * bool(config.characters), SHAPE * config.word_shapes)
        self.width = sum(self.widths)

    def fill(self) -> None:
        """Read the pretrained vectors of a new student's file."""
        if self.pretrained is not None and self.config.vectors:
            self.pretrained.fill(self.config.vectors)

    def read(self, text: str, spans: Sequence[tuple[int, int]] | None = None) -> Text:
        """A text as its words (`units`, or those given by their characters), each of one piece."""
        spans = units(text) if spans is None else spans
        words = [text[a:b] for a, b in spans]
        shapes = [shape(word, before) for before, word in zip(["", *words], words, strict=False)]
        return Text(tuple((self._number(word),) for word in words), tuple(spans), tuple(shapes))

    def _number(self, word: str) -> int:
        return self._words.get(word.lower() if self.config.lower else word, UNKNOWN)

    def collate(self, rows: Sequence[Sequence[str]]) -> dict[str, Tensor]:
        """Tensors of rows of words, each different word of the batch (``U`` of them) laid out once.

        ``words [B, T]``: its number among the different ones; ``mask [B, T]``; ``shapes [B, T]``; of the different
        ones ``numbers [U]``, ``letters [U, L]``, and ``rows [U, P]`` with ``row_mask`` of the pretrained table.
        """
        different = {word: number for number, word in enumerate(dict.fromkeys(w for row in rows for w in row))}
        tensors = {
            "words": pad([[different[word] for word in row] for row in rows]),
            "mask": pad([[1] * len(row) for row in rows], dtype=torch.bool),
            "numbers": torch.tensor([self._number(word) for word in different]),
        }
        if self.shapes is not None:
            tensors["shapes"] = pad(
                [[shape(word, before) for before, word in zip(["", *row], row, strict=False)] for row in rows]
            )
        if self.spelling is not None:
            tensors["letters"] = pad(
                [[self._letters.get(c, UNKNOWN) for c in word[:LONGEST_WORD]] for word in different]
            )
        if self.pretrained is not None:
            own = [self.pretrained.rows(word) if word != BREAK_WORD else [] for word in different]
            tensors["rows"] = pad([row or [0] for row in own])
            tensors["row_mask"] = pad([[1] * len(row) or [0] for row in own], dtype=torch.bool)
        return tensors

    def forward(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Vectors ``[B, T, width]``."""
        words = tensors["words"]
        numbers = tensors["numbers"][words]
        if self.training and self.config.word_dropout:
            dropped = torch.rand(numbers.shape, device=numbers.device) < self.config.word_dropout
            numbers = numbers.masked_fill(dropped & (numbers != BREAK), UNKNOWN)
        learned = self.learned(numbers)
        if self.pretrained is not None:
            learned = learned + self.pretrained(tensors["rows"], tensors["row_mask"])[words]
        parts = [learned]
        if self.spelling is not None:
            parts.append(self.spelling(tensors["letters"])[words])
        if self.shapes is not None:
            parts.append(self.shapes(tensors["shapes"]))
        return torch.cat(parts, -1)


def row(text: Sequence[str], sides: Iterable[Sequence[str]]) -> list[str]:
    """The words of a text with those of its side texts behind, each after a break."""
    return [*text, *(word for side in sides for word in (BREAK_WORD, *side))]


def sides(example: Any, view: View, most: int | None) -> tuple[list[list[str]], Counter[str]]:
    """The words of an example's side texts in the view's order, cut after ``most`` words (counted
    ``context_words_cut``)."""
    found: list[list[str]] = []
    counts = Counter[str]()
    left = float("inf") if most is None else most
    for name in view.context:
        text = example.context.get(name, "")
        own = [text[a:b] for a, b in units(text)]
        kept = own[: int(min(left, len(own)))]
        left -= len(kept)
        if len(kept) < len(own):
            counts["context_words_cut"] += len(own) - len(kept)
        if kept:
            found.append(kept)
    return found, counts


def _pretrained(config: WordsConfig, known: Mapping[str, Any]) -> WordVectors | None:
    if config.word_vectors:
        return WordVectors.of_model(config.word_vectors)
    return WordVectors.of_words(known["vectors"], known["vector_width"]) if config.vectors else None


class CharacterCNN(nn.Module):
    """A word's letters by a convolution over three of them and a maximum over the word (Ma and Hovy, ACL 2016)."""

    def __init__(self, letters: int) -> None:
        super().__init__()
        self.letters = nn.Embedding(letters, CHARACTER, padding_idx=PADDING)
        self.convolution = nn.Conv1d(CHARACTER, SPELLING, 3, padding=1)

    def forward(self, letters: Tensor) -> Tensor:
        """``[U, L]`` to ``[U, SPELLING]``."""
        found = self.convolution(self.letters(letters).transpose(1, 2))
        return found.masked_fill((letters == PADDING)[:, None], -torch.inf).amax(-1)


class CharacterLSTM(nn.Module):
    """A word's letters by the last state of a BiLSTM in each direction (Lample et al., NAACL 2016)."""

    def __init__(self, letters: int) -> None:
        super().__init__()
        self.letters = nn.Embedding(letters, CHARACTER, padding_idx=PADDING)
        self.lstm = BiLSTM(CHARACTER, SPELLING // 2)

    def forward(self, letters: Tensor) -> Tensor:
        """``[U, L]`` to ``[U, SPELLING]``."""
        final: Tensor = self.lstm(self.letters(letters), letters != PADDING)[1]
        return final


class BiLSTM(nn.Module):
    """A bidirectional LSTM that does not see the padding."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, batch_first=True, bidirectional=True)

    def forward(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """States ``[B, T, 2 * hidden]``, zero under the padding, and the last ones of both directions
        ``[B, 2 * hidden]``.

        Args:
            inputs: ``[B, T, width]``.
            mask: bool ``[B, T]``, from the first word to the last; every row has a word.
        """
        with torch.autocast(inputs.device.type, enabled=False):
            packed = pack_padded_sequence(inputs.float(), mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
            states, (last, _) = self.lstm(packed)
            padded, _ = pad_packed_sequence(states, batch_first=True, total_length=mask.shape[1])
        return padded, torch.cat([last[0], last[1]], -1)
