"""Copies: each word also reads the states of its own repetitions in the side text.

A rationale names what it explains ("Kawhi Leonard (basketball player)"). In the side text a name stands right beside
its explanation, so the states of that copy already know it; a small encoder would need thousands of examples to learn
to find the copy by attention. The link from word to copies is given instead, as a mean over states.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

#: The shortest single word that is linked by itself; shorter ones ("of", "a") only as part of a longer run.
SHORTEST = 3


def copies(words: Sequence[Sequence[int]], side: Sequence[int], single: Sequence[bool]) -> list[tuple[int, int]]:
    """Pairs (word, position in the side text) of every repetition, longest runs of sub-tokens first come first served.

    Args:
        words: the sub-token ids of each word of the text.
        side: the sub-token ids of the side text.
        single: for each word, whether it says enough to be linked alone (`tells`); others are linked inside a run of
            two words or more.

    The side text is read from left to right; at each position the longest run of whole words of the text that begins
    there is taken, and reading goes on behind it.
    """
    starts: dict[int, list[int]] = {}
    for word, pieces in enumerate(words):
        starts.setdefault(pieces[0], []).append(word)
    found: list[tuple[int, int]] = []
    at = 0
    while at < len(side):
        best, width = range(0), 0
        for first in starts.get(side[at], ()):
            run, length = _run(words, first, side, at)
            if length > width and (len(run) > 1 or single[first]):
                best, width = run, length
        position = at
        for word in best:
            found += [(word, position + i) for i in range(len(words[word]))]
            position += len(words[word])
        at += max(width, 1)
    return found


def _run(words: Sequence[Sequence[int]], first: int, side: Sequence[int], at: int) -> tuple[range, int]:
    """The words from ``first`` on that the side text repeats at ``at``, and how many sub-tokens they are."""
    word, length = first, 0
    while word < len(words):
        pieces = words[word]
        if tuple(side[at + length : at + length + len(pieces)]) != tuple(pieces):
            break
        length += len(pieces)
        word += 1
    return range(first, word), length


def tells(word: str, common: frozenset[str]) -> bool:
    """Whether a word alone is worth a link: letters or digits, long enough, and no function word."""
    return len(word) >= SHORTEST and word.isalnum() and word.lower() not in common


#: Function words that a text and its explanation share without meaning anything by it.
COMMON = frozenset(
    "about after all and are because been but can could did does for from had has have her his how into its may "
    "more most not off one our out over she such than that the their them then there these they this those was "
    "were what when where which while who will with would you your".split()
)


class CopyReader(nn.Module):
    """``h_i' = h_i + W mean_{j in copies(i)} h_j``: exactly the word itself where it has no copy.

    ``W`` starts at zero, so that training begins from the student that reads no links.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.project.weight)

    def forward(self, words: Tensor, copies: Tensor, mask: Tensor) -> Tensor:
        """Words ``[B, W, d]``, the states of their copies ``[B, W, C, d]``, which of these there are ``[B, W, C]``."""
        weights = mask.to(copies.dtype)
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=1)
        return words + self.project((weights.unsqueeze(-2) @ copies).squeeze(-2))
