"""What a run did, in numbers that must add up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Summary:
    """What a run did: ``asked = kept + quarantined + failed + pending``, counted in corpus rows.

    Attributes:
        asked: examples x templates x samples.
        kept, quarantined, failed: rows by outcome, the latter two by reason.
        pending: rows that a dry run leaves undecided; 0 after a run.
        to_ask: distinct requests that the ledger did not hold; replies: those that were answered in this
            run, well or not.
        resumed: distinct requests that were settled before.
        prompt_tokens, completion_tokens: of this run's replies, as the engine counts them.
        seconds: of asking.
        notes: counted remarks.
    """

    asked: int
    kept: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    pending: int = 0
    to_ask: int = 0
    replies: int = 0
    resumed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    notes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        out = self.kept + sum(self.quarantined.values()) + sum(self.failed.values()) + self.pending
        if self.asked != out:
            raise AssertionError(f"{self.asked} rows were asked for, {out} came out")

    @property
    def tokens_per_second(self) -> float:
        """Tokens written a second of this run."""
        return self.completion_tokens / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return {**asdict(self), "tokens_per_second": self.tokens_per_second}

    def __str__(self) -> str:
        counts: dict[str, int | dict[str, int]] = {"kept": self.kept, "quarantined": self.quarantined}
        counts |= {"failed": self.failed, "pending": self.pending}
        said = [f"{self.asked:,} rows = {_sum(counts)}"]
        said.append(f"{self.to_ask:,} requests to ask, {self.replies:,} replies, {self.resumed:,} settled before")
        if self.replies:
            said.append(
                f"{self.prompt_tokens:,} tokens read, {self.completion_tokens:,} written"
                f" in {self.seconds:,.1f} s ({self.tokens_per_second:,.1f} tokens/s)"
            )
        said += [f"{remark.replace('_', ' ')}: {number:,}" for remark, number in self.notes.items()]
        return "\n".join(said)


def _sum(counts: Mapping[str, int | dict[str, int]]) -> str:
    """``7 kept + 3 quarantined (length 2, loop 1)``; what is zero is left out but for the kept."""
    said = []
    for name, count in counts.items():
        if isinstance(count, dict):
            reasons = ", ".join(f"{reason} {number:,}" for reason, number in sorted(count.items()))
            said += [f"{sum(count.values()):,} {name} ({reasons})"] if count else []
        elif count or name == "kept":
            said.append(f"{count:,} {name}")
    return " + ".join(said)
