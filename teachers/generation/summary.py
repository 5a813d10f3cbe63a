"""What a run did, in numbers that must add up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ...prompts.messages import Prompt
from .budget import Estimate


class Miscount(RuntimeError):
    """Rows in and rows out differ: a defect of ours, which must not pass."""


@dataclass(frozen=True)
class Summary:
    """What a run did: ``asked = kept + quarantined + failed + pending``, counted in corpus rows.

    Attributes:
        asked: examples x templates x samples.
        kept, quarantined, failed: rows by outcome, the latter two by reason.
        pending: rows that are not decided: their replies are still to come, or it was a dry run.
        to_ask: distinct requests that the ledger did not hold; replies: those that were answered in this
            run, well or not.
        resumed: distinct requests that were settled before.
        prompt_tokens, completion_tokens: of this run's replies, as the engine counts them; cached_tokens: of those
            read, what the engine had read before (0 where it does not say).
        seconds: of asking.
        spent: by all runs on this ledger, in words.
        notes: counted remarks.
        first_prompt, estimate, held: of a dry run: the first prompt whole, what the requests to ask will use, and how
            many replies the ledger holds.
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
    cached_tokens: int = 0
    seconds: float = 0.0
    spent: str = ""
    notes: dict[str, int] = field(default_factory=dict)
    first_prompt: str = ""
    estimate: Estimate | None = None
    held: int = 0

    def __post_init__(self) -> None:
        out = self.kept + sum(self.quarantined.values()) + sum(self.failed.values()) + self.pending
        if self.asked != out:
            raise Miscount(f"{self.asked} rows were asked for, {out} came out")

    @property
    def tokens_per_second(self) -> float:
        """Tokens written a second of this run."""
        return self.completion_tokens / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values; dollars as text, exactly."""
        values = {**asdict(self), "tokens_per_second": self.tokens_per_second}
        if self.estimate is not None:
            values["estimate"]["usd"] = None if self.estimate.usd is None else str(self.estimate.usd)
        return values

    def __str__(self) -> str:
        counts: dict[str, int | dict[str, int]] = {"kept": self.kept, "quarantined": self.quarantined}
        counts |= {"failed": self.failed, "pending": self.pending}
        said = [f"{self.asked:,} rows = {_sum(counts)}"]
        said.append(f"{self.to_ask:,} requests to ask, {self.replies:,} replies, {self.resumed:,} settled before")
        if self.replies:
            cached = self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0
            said.append(
                f"{self.prompt_tokens:,} tokens read{f' ({cached:.0%} of them cached)' if cached else ''}, "
                f"{self.completion_tokens:,} written in {self.seconds:,.1f} s ({self.tokens_per_second:,.1f} tokens/s)"
            )
        if self.estimate is not None:
            said += [f"the ledger holds {self.held:,} replies", f"estimate: {self.estimate}"]
        elif self.pending:
            said.append(f"{self.pending:,} rows wait for their replies; the same command asks for them again")
        if over := self.failed.get("over_budget"):
            said.append(f"{over:,} rows were not asked: the budget; the same command with a larger one asks for them")
        said += [f"spent so far: {self.spent}"] if self.spent else []
        said += [f"{remark.replace('_', ' ')}: {number:,}" for remark, number in self.notes.items()]
        return "\n".join(([f"{self.first_prompt}\n"] if self.first_prompt else []) + said)


def spoken(prompt: Prompt) -> str:
    """A prompt whole, as a person reads it: its turns, with pictures named where they stand."""
    said = []
    for message in prompt.messages:
        said.append(f"--- {message.role}")
        said.append("".join(f"[picture {p.image.label}]" if p.image else p.text or "" for p in message.parts))
    return "\n".join([*said, f"--- {prompt.template} {prompt.digest[:12]}, at most {prompt.max_tokens} tokens"])


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
