"""Evidence for examples: texts looked up by meaning, or by any search service, and kept on the disk before training.

A student that reads evidence never searches: results are pinned once by `pin`, and a run reads the file. Where a paper
asked a web search, a local `TextStore` stands here; whatever has the face of `Search` can take its place.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ..students.encoders.sentence import Sentences
from ..tasks import readers
from ..tasks.task import DataFault

#: Evidence that holds at least this share of a text's word pairs repeats it.
REPEATED = 0.75

#: What parts the pieces of evidence of an example in one text.
_BETWEEN = " ; "

_LINK = re.compile(r"https?\s*:\s*/\s*/\s*\S+|www\.\S+|@\s*\w+")


@dataclass(frozen=True)
class Evidence:
    """A text that was found, and how well it fits (for a `TextStore` a cosine)."""

    text: str
    score: float


class Search(Protocol):
    """What evidence is found by: a `TextStore`, or a search service behind a function of your own."""

    def __call__(self, query: str, count: int) -> Sequence[Evidence]:
        """At most ``count`` texts for a query, the best first."""
        ...


#: What is searched for an example: of its text, of what it mentions, of its picture.
Query = Callable[[Any], Sequence[str]]


def by_text(example: Any) -> Sequence[str]:
    """The example's own text."""
    return (example.text,)


def by_mentions(example: Any) -> Sequence[str]:
    """The two mentions of its pair, each by itself; the pair is part of the question, its relation is not."""
    return tuple(dict.fromkeys(mention.text for mention in getattr(example, "pair", None) or ()))


def by_caption(example: Any) -> Sequence[str]:
    """What stands for its picture: the caption."""
    caption = example.context.get("caption", "").strip()
    return (caption,) if caption else ()


def by_objects(detector: Any) -> Query:
    """The labels of the objects that a detector (`encoders.regions.Detector`) finds in the example's pictures."""

    def labels(example: Any) -> Sequence[str]:
        found = (label for image in example.images for _, label, _ in detector.objects(image.open()))
        return tuple(dict.fromkeys(found))

    return labels


class SentenceEncoder:
    """Vectors of length 1 (`encoders.sentence`).

    Args:
        name: a packaged model's short name, a path or a hub name.
        batch_size: texts encoded at once.
    """

    def __init__(self, name: str = "minilm", batch_size: int = 64) -> None:
        self.sentences = Sentences(name, batch_size)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Vectors ``[N, d]``."""
        return F.normalize(self.sentences(texts), dim=1)


class TextStore:
    """Texts by the cosine of their vectors with a query's; it has the face of `Search`.

    Args:
        texts: what can be found; each is kept once.
        encode: texts to vectors ``[N, d]``: a `SentenceEncoder`, or the text side of a model that also gives vectors of
            pictures (CLIP), which `nearest` then takes.
    """

    def __init__(self, texts: Iterable[str], encode: Callable[[Sequence[str]], Tensor]) -> None:
        self.texts = tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))
        self._encode = encode
        self._vectors = F.normalize(encode(self.texts).float(), dim=1) if self.texts else torch.zeros(0, 0)
        self._found = cache(self._search)

    def __call__(self, query: str, count: int) -> Sequence[Evidence]:
        """The ``count`` texts nearest in meaning."""
        return self._found(query, count)

    def _search(self, query: str, count: int) -> Sequence[Evidence]:
        return self.nearest(self._encode([query])[0], count) if self.texts else ()

    def nearest(self, vector: Tensor, count: int) -> Sequence[Evidence]:
        """The ``count`` texts nearest to a vector ``[d]``, of equally near ones the first."""
        if not self.texts:
            return ()
        scores = self._vectors @ F.normalize(vector.float(), dim=0)
        best = scores.argsort(descending=True, stable=True)[:count].tolist()
        return tuple(Evidence(self.texts[i], float(scores[i])) for i in best)


def repeats(found: str, text: str) -> bool:
    """Whether evidence gives a text back: `REPEATED` of the text's word pairs stand in it, or its own in the text.

    Links and user names do not count. A page that quotes a tweet in full repeats it, however long it is.
    """
    of_found, of_text = _pairs(found), _pairs(text)
    shared = len(of_found & of_text)
    return any(own and shared >= REPEATED * len(own) for own in (of_found, of_text))


def _pairs(text: str) -> frozenset[str]:
    words = re.findall(r"\w+", _LINK.sub(" ", text.casefold()))
    return frozenset(f"{a} {b}" for a, b in pairwise(words)) or frozenset(words)


def gather(example: Any, query: Query, search: Search, count: int, least: float) -> tuple[list[Evidence], int]:
    """Evidence for an example, the best first, and how much was dropped because it repeats what the example has.

    Args:
        count: at most so many texts.
        least: a lower score is no evidence (the consistency filter).
    """
    own = (example.text, *example.context.values())
    found: dict[str, Evidence] = {}
    dropped = 0
    for asked in query(example):
        # As many more as the example has texts itself: each can cost a place.
        for one in search(asked, count + len(own)):
            if one.score < least or one.text in found:
                continue
            if any(repeats(one.text, text) for text in own):
                dropped += 1
            else:
                found[one.text] = one
    kept: list[Evidence] = []
    for one in sorted(found.values(), key=lambda e: -e.score):
        if len(kept) < count and not any(repeats(one.text, other.text) for other in kept):
            kept.append(one)
    return kept, dropped


def pin(
    path: str | Path,
    examples: Iterable[Any],
    searches: Mapping[str, tuple[Query, Search]],
    count: int = 3,
    least: float = 0.3,
    said: Callable[[int], None] | None = None,
) -> Counter[str]:
    """Search for every example and keep what is found, as JSON lines; once, before any training.

    A line has the example's ``id``, all its evidence as one ``text`` (a recipe's ``knowledge: PATH`` brings it beside
    the example), and ``evidence`` by kind, each a list of text and score (`fill`). Returns how many ``examples`` there
    were, how many ``without_evidence`` (no line), and texts found by kind and dropped.

    Args:
        path: a new file; a pinned one is not written over (`DataFault`).
        searches: for each kind of evidence what is asked, and whom.
        count, least: as in `gather`, of each kind.
        said: is told how many examples are done, after each.
    """
    path = Path(path)
    if path.exists():
        raise DataFault(str(path), "is there already, and pinned evidence is not written over", "name a new file")
    counts = Counter[str]()
    waiting = path.with_name(f"{path.name}.part")
    with waiting.open("w", encoding="utf-8") as file:
        for example in examples:
            counts["examples"] += 1
            by_kind: dict[str, list[tuple[str, float]]] = {}
            for kind, (query, search) in searches.items():
                found, dropped = gather(example, query, search, count, least)
                counts[kind] += len(found)
                counts[f"{kind}_repeating_the_example_dropped"] += dropped
                by_kind[kind] = [(one.text, round(one.score, 4)) for one in found]
            texts = dict.fromkeys(text for found_ in by_kind.values() for text, _ in found_)
            counts["without_evidence"] += not texts
            if texts:
                row = {"id": example.id, "text": _BETWEEN.join(texts), "evidence": by_kind}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            if said:
                said(counts["examples"])
    os.replace(waiting, path)
    return +counts


def fill(examples: Iterable[Any], path: str | Path) -> tuple[Any, ...]:
    """The examples with their pinned evidence as side texts, one a kind: ``evidence_text``, ``evidence_mentions``."""
    pinned = {}
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        pinned[row["id"]] = {
            f"evidence_{kind}": _BETWEEN.join(text for text, _ in found)
            for kind, found in row["evidence"].items()
            if found
        }
    return tuple(e.model_copy(update={"context": {**e.context, **pinned.get(e.id, {})}}) for e in examples)


def pin_captions(
    data: str,
    path: str | Path,
    encoder: str = "minilm",
    count: int = 3,
    least: float = 0.3,
    said: Callable[[int, int], None] | None = None,
) -> Counter[str]:
    """`pin` for every split of a data set, out of the captions of its own training split (as MoRe has it).

    Asked are the text, each mention and the caption. Captions of the held-out splits are not in the store. ``said`` is
    told ``(done, total)`` after each example. Counted besides what `pin` counts: ``texts_cut``, captions and questions
    longer than the encoder reads. A `DataFault` if training has no captions.
    """
    found = readers.read(data)
    names = ("caption", "long_caption")
    captions = (example.context.get(name, "") for example in found.split("train") for name in names)
    encode = SentenceEncoder(encoder)
    store = TextStore(captions, encode)
    if not store.texts:
        raise DataFault(data, "its training split has no captions to search", "pin evidence of your own with `pin`")
    searches = {"text": (by_text, store), "mentions": (by_mentions, store), "image": (by_caption, store)}
    everything = [example for split in found.splits.values() for example in split]
    told = None if said is None else lambda done: said(done, len(everything))
    counts = pin(path, everything, searches, count, least, told)
    counts["texts_cut"] = encode.sentences.truncated
    return +counts
