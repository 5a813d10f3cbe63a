"""What became of the products, counted: in = done + failed by reason, and nothing of it silent."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Counts:
    """Counts of an extraction; filled while its rows are taken.

    Attributes:
        products: how many came in: ``done`` and those that ``failed``, by the fault's name.
        values: values that were found, the ungrounded ones too.
        absent: attributes without a value.
        ungrounded: values that ought to be copied and stand nowhere in the product.
        dropped: how many of them were left out (``strict``).
        rewritten: values given the source's own writing, and ``nearly`` those that were only nearly equal to it.
        cut: products too long to be asked at once, asked in ``windows``.
        conflicts: attributes whose windows gave different values; the first that stands in the product was taken.
        asked_again: products asked again for votes, and ``changed`` attributes whose value the votes changed.
        normalised: by which rule values were brought to a canonical form, or why they were not.
        notes: what a student had to give up, and other remarks.
    """

    products: int = 0
    done: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    values: int = 0
    absent: int = 0
    ungrounded: int = 0
    dropped: int = 0
    rewritten: int = 0
    nearly: int = 0
    cut: int = 0
    windows: int = 0
    conflicts: int = 0
    asked_again: int = 0
    changed: int = 0
    normalised: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}

    @classmethod
    def of_dict(cls, data: dict[str, Any]) -> Counts:
        """The counts of `as_dict`."""
        counters = {name: Counter(value) for name, value in data.items() if isinstance(value, dict)}
        return cls(**{**data, **counters})

    def __str__(self) -> str:
        failed = "".join(f" + {number:,} {reason}" for reason, number in sorted(self.failed.items()))
        said = [f"{self.products:,} products = {self.done:,} done{failed or ' + 0 failed'}"]
        where = f"{self.ungrounded:,} ungrounded" + (f" ({self.dropped:,} dropped)" if self.dropped else "")
        said.append(f"{self.values:,} values, {self.absent:,} absent, {where}")
        if self.rewritten or self.nearly:
            said.append(f"{self.rewritten:,} values as the source writes them ({self.nearly:,} only nearly equal)")
        if self.cut:
            said.append(f"{self.cut:,} long pages in {self.windows:,} windows, {self.conflicts:,} conflicts")
        if self.asked_again:
            said.append(f"{self.asked_again:,} products asked again, {self.changed:,} attributes changed by votes")
        if self.normalised:
            rules = ", ".join(f"{n:,} {rule.replace('_', ' ')}" for rule, n in self.normalised.most_common())
            said.append(f"normalised by rule, or why not: {rules}")
        said += [f"{note.replace('_', ' ')}: {number:,}" for note, number in sorted(self.notes.items()) if number]
        return "\n".join(said)
