"""New training examples of what a large teacher wrote: rewritten posts, exchanged names, imagined pictures.

The three augmenting dimensions of chain-of-thought prompt distillation (Chen and Feng 2023), as a corpus of the
templates ``rationale.style``, ``rationale.entity`` and ``rationale.image`` holds them:

- style: another wording of the post. Its labels are projected (`restyled`);
- entity: a name put in place of another. The text is changed in code, by offsets (`swapped`);
- image: a caption of a picture that could go with the post (`repictured`).

A function here gives an example, or the reason why there is none. Made for `ner` and for the given pairs of
`relations`. The paper's second question, whether a swap can be true, is not asked.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..tasks import ner, relations
from ..tasks.ner import Entity

#: The dimensions; each is asked by the template ``rationale.DIMENSION``.
DIMENSIONS = ("style", "entity", "image")

#: Where a mention may begin and end, so that "US" is not found in "bus".
_WORD = r"(?<!\w){}(?!\w)"


def samples(
    examples: Sequence[Any], rows: Iterable[Mapping[str, Any]], dimensions: Sequence[str]
) -> tuple[tuple[Any, ...], Counter[str]]:
    """New examples of a corpus's kept rows, and how many fell away by dimension and reason.

    At most as many as there are examples: the dimensions take turns, each in the corpus's order. Rows of other examples
    are passed over, since a corpus may hold those of all splits.

    Args:
        rows: with ``id``, ``prompt``, ``about`` (the name asked about) and ``text``.
        dimensions: which of `DIMENSIONS` are used.
    """
    by_id = {e.id: e for e in examples}
    types = types_of(examples)
    made: dict[str, list[Any]] = {dimension: [] for dimension in dimensions}
    counts: Counter[str] = Counter()
    for row in rows:
        dimension = row["prompt"].rpartition("/")[2].removeprefix("rationale.").partition(".")[0]
        example = by_id.get(row["id"])
        if dimension not in made or example is None:
            continue
        found = _made(dimension, example, row, types)
        if isinstance(found, str):
            counts[f"augmented_{dimension}_{found}"] += 1
        else:
            number = len(made[dimension])
            made[dimension].append(found.model_copy(update={"id": f"{example.id}+{dimension}{number}"}))
    longest = max(map(len, made.values()), default=0)
    turns = [(name, own[turn]) for turn in range(longest) for name, own in made.items() if turn < len(own)]
    kept = turns[: len(examples)]
    counts["augmented_beyond_one_a_real_example"] = len(turns) - len(kept)
    counts.update(f"augmented_{name}" for name, _ in kept)
    return tuple(example for _, example in kept), +counts


def restyled(example: Any, text: str) -> Any:
    """The example with another wording, its labels projected; or why not.

    A rewrite is taken only if every gold mention stands in it exactly once, whatever its case, as whole words; the
    label goes where it stands. A mention that lies in another one (overlaps) is refused, too, and so is a pair whose
    mentions come in another order. Texts beside the post stay: it means the same.
    """
    text = " ".join(text.split())
    if not text or text.casefold() == example.text.casefold():
        return "unchanged"
    places = []
    for mention in _mentions(example):
        found = [m.span() for m in re.finditer(_WORD.format(re.escape(mention.text)), text, re.IGNORECASE)]
        if len(found) != 1:
            return "mention_missing" if not found else "mention_repeated"
        places.append(found[0])
    if _overlap(places):
        return "mentions_overlap"
    order = lambda spans: sorted(range(len(spans)), key=lambda i: spans[i])
    if isinstance(example, relations.Example) and order(places) != order([_span(m) for m in _mentions(example)]):
        return "order_changed"
    return _retagged(example, text, places)


def swapped(example: Any, old: str, new: str, types: Mapping[str, set[str]]) -> Any:
    """The example with one name for another, its offsets moved; or why not.

    Every gold mention of that name is replaced where it stands. A replacement that is known by another type, that
    stands in the post already, or that has marks a name has not, is refused. What a teacher said of the old name is
    left out.

    Args:
        old: the name as it stands in the post.
        new: its replacement.
        types: the types of each known name, folded (`types_of`).
    """
    new = " ".join(new.split()).strip("\"'“”‘’.")
    mentions = _mentions(example)
    places = [i for i, mention in enumerate(mentions) if mention.text == old]
    if not places:
        return "name_not_in_gold"
    if new.casefold() == "none" or not re.search(r"\w", new) or len(new.split()) > 8:
        return "no_name"
    if new.casefold() == old.casefold() or re.search(_WORD.format(re.escape(new)), example.text, re.IGNORECASE):
        return "name_in_the_post"
    own = {mentions[i].type for i in places}
    if len(own) > 1 or types.get(new.casefold(), own) - own:
        return "another_type"
    spans = [_span(mention) for mention in mentions]
    if _overlap(spans):
        return "mentions_overlap"
    text, moved, at, shift = "", [(0, 0)] * len(spans), 0, 0
    for i in sorted(range(len(spans)), key=lambda i: spans[i]):
        (start, end), word = spans[i], new if i in places else mentions[i].text
        text += example.text[at:start] + word
        moved[i] = (start + shift, start + shift + len(word))
        shift += len(word) - (end - start)
        at = end
    changed = _retagged(example, text + example.text[at:], moved)
    return changed.model_copy(update={"context": {k: v for k, v in changed.context.items() if k != "knowledge"}})


def repictured(example: Any, caption: str) -> Any:
    """The example with an imagined picture: its caption in place of what is said of the real one; or why not."""
    caption = " ".join(caption.split())
    if not caption:
        return "no_caption"
    kept = {name: text for name, text in example.context.items() if name == "knowledge"}
    return example.model_copy(update={"context": {**kept, "caption": caption}, "images": ()})


def types_of(examples: Iterable[Any]) -> dict[str, set[str]]:
    """The types under which each name is known in some examples, by the name folded."""
    found: dict[str, set[str]] = {}
    for example in examples:
        for mention in _mentions(example):
            found.setdefault(mention.text.casefold(), set()).add(mention.type)
    return found


def _made(dimension: str, example: Any, row: Mapping[str, Any], types: Mapping[str, set[str]]) -> Any:
    if not isinstance(example, ner.Example) and getattr(example, "pair", None) is None:
        return "no_given_mentions"
    if dimension == "style":
        return restyled(example, row["text"])
    if dimension == "entity":
        return swapped(example, row["about"] or "", row["text"], types)
    return repictured(example, row["text"])


def _mentions(example: Any) -> Sequence[Entity]:
    """The gold entities of a post, or the two mentions of a pair."""
    if isinstance(example, relations.Example):
        return example.pair or ()
    return example.gold.entities if example.gold else ()


def _span(mention: Entity) -> tuple[int, int]:
    assert mention.start is not None  # examples see to both
    assert mention.end is not None
    return mention.start, mention.end


def _overlap(spans: Sequence[tuple[int, int]]) -> bool:
    return any(a < d and c < b for i, (a, b) in enumerate(spans) for c, d in spans[:i])


def _retagged(example: Any, text: str, places: Sequence[tuple[int, int]]) -> Any:
    """The example with another text, its mentions at these places; its words are those between blanks.

    A mention that does not end where a word does ("Paris," in one word) has the marks beside it set apart by a blank,
    as the tokenised posts of the data sets have them.
    """
    cuts = sorted({at for place in places for at in place}, reverse=True) if example.words else []
    inserted = []
    for at in cuts:
        if 0 < at < len(text) and not text[at - 1].isspace() and not text[at].isspace():
            text = f"{text[:at]} {text[at:]}"
            inserted.append(at)
    # A blank put in at an offset comes before what begins there, and behind what ends there.
    moved = [(a + sum(c <= a for c in inserted), b + sum(c < b for c in inserted)) for a, b in places]
    mentions = tuple(
        mention.model_copy(update={"text": text[a:b], "start": a, "end": b})
        for mention, (a, b) in zip(_mentions(example), moved, strict=True)
    )
    update: dict[str, Any] = {"text": text}
    if example.words:
        update["words"] = tuple(text.split(" "))
    if isinstance(example, relations.Example):
        update["pair"] = mentions
    else:
        update["gold"] = ner.Answer(entities=tuple(sorted(mentions, key=_span)))
    # Validated anew: offsets that do not fit are a fault of this file, never silent.
    return type(example).model_validate({**dict(example), **update})
