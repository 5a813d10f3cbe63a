"""What in a rationale speaks of an answer key: knowledge that does is of no use to a student that has none."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Words that betray an answer key, such as "the given answer", "gold labels", "ground truth".
_KEY_WORDS = re.compile(
    r"\b(?:given|provided|reference|expected|supplied)\s+(?:answers?|labels?|tags?|annotations?)\b"
    r"|\bgold(?:en)?[\s-]+(?:standard\s+)?(?:answers?|labels?|tags?|annotations?|entit(?:y|ies))\b"
    r"|\bground[\s-]truth\b|\bthe\s+(?:answer|label)s?\s+(?:you|that\s+you|I)\s+(?:\w+\s+){0,2}given\b",
    re.IGNORECASE,
)


def leak(text: str, source: str = "", labels: Iterable[str] = (), shown: str = "") -> str:
    """What in a rationale speaks of an answer key; empty if nothing does.

    Looked for are phrases such as "the given answer", and the labels' tags verbatim (``PER``, ``B-LOC``): a
    teacher that was not shown the tags cannot know them. A phrase is looked for even where the prompt gave
    the answer: knowledge that speaks of its answer key is of no use to a student that has none.

    Args:
        source: the example's own text; what stands there is no leak.
        labels: the schema's labels; those that are everyday words count only with their B- or I- before them, those
            in capitals or made of parts (``/per/org/member_of``) also alone.
        shown: the words of the prompt; tags that stand there are no leak.
    """
    known = " ".join(source.casefold().split())
    for match in _KEY_WORDS.finditer(text):
        if " ".join(match[0].casefold().split()) not in known:
            return f"it speaks of {match[0]!r}"
    for label in labels:
        bare = re.fullmatch(r"[A-Z][A-Z_]*[A-Z]|.*[/_].*", label) is not None
        tag = re.compile(rf"(?<![\w#@])(?:[BIES]-){'?' if bare else ''}{re.escape(label)}(?!\w)")
        written = tag.search(text)
        if written and not tag.search(f"{source}\n{shown}"):
            return f"it writes the tag {written[0]!r}, which it was not shown"
    return ""
