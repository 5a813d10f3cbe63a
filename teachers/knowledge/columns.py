"""The columns of a corpus: their names, types and meanings, and which rows a reader wants by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

#: The columns: name, Arrow type, what it holds.
COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("id", "string", "the example's id"),
    ("task", "string", "the task's key"),
    ("prompt", "string", "the template's name with version"),
    (
        "about",
        "string",
        "the entity or attribute that the question was about; null where it was about the whole example",
    ),
    ("digest", "string", "SHA-256 of the template file"),
    ("hinted", "bool", "whether the template showed the gold answer (rationalisation)"),
    ("sample", "int32", "number of the sample, from 0"),
    ("text", "string", "the teacher's answer as it was said"),
    ("reasoning", "string", "what a reasoning model thought aloud, where the engine keeps it apart; else null"),
    (
        "answer",
        "string",
        "the parsed answer as JSON, or null where the answer is free text or cannot be parsed",
    ),
    ("status", "string", "kept, quarantined (answered, but not knowledge) or failed (no answer)"),
    ("reason", "string", "why it is not kept, out of a closed set; null for a kept row"),
    ("detail", "string", "the reason in words"),
    ("agreement", "float", "agreement with the gold answer, 0 to 1; null without gold or answer"),
    (
        "grounded",
        "string",
        "where the worst grounded value stands: text, picture_text or inferred; null where nothing is looked for",
    ),
    ("evidence", "string", "each such value and where it stands, with offsets, as JSON; null where there is none"),
    (
        "vote",
        "float",
        "share of the example's samples with the same answer; null with one sample or no answer",
    ),
    ("weight", "float", "what the row counts in a student's loss: its vote, 1 without one, 0 for a row not kept"),
    ("repaired", "bool", "whether the parser had to repair the form of the answer"),
    ("agreement_without_image", "float", "agreement of the answer given without the picture; null if not probed"),
    ("image_delta", "float", "agreement less agreement_without_image; null unless there are both"),
    ("answer_changed", "bool", "whether the answer without the picture is another; null if not probed"),
    ("duplicate_of", "string", "id of the first example whose text this one's nearly repeats; null if none"),
    ("image_duplicate_of", "string", "id of the first example with one of its pictures; null if none"),
    ("images", "strings", "SHA-256 of the example's pictures, in order"),
    ("teacher", "string", "the teacher's spec"),
    ("teacher_digest", "string", "SHA-256 of what identifies the teacher (model, revision, endpoint), as JSON"),
    ("key", "string", "the request's key in the ledger; null where nothing could be asked"),
    ("time", "string", "when the reply arrived (UTC, ISO 8601)"),
    ("prompt_tokens", "int32", "tokens read, as the engine counts them"),
    ("cached_tokens", "int32", "of the tokens read, those that the engine had read before"),
    ("completion_tokens", "int32", "tokens written"),
)
NAMES = tuple(name for name, *_ in COLUMNS)
#: Without these a Parquet file is no corpus; the others are null in one that was made before there were.
NEEDED = ("id", "prompt", "sample", "text", "answer", "status", "reason")

STATUSES = ("kept", "quarantined", "failed")


@dataclass(frozen=True)
class Filters:
    """Which rows are wanted. Every flag is off by default: nothing is left out unless it is asked for.

    Attributes:
        unhinted: no answer of a teacher that was shown the gold one.
        unique: no example whose text nearly repeats an earlier one's.
        unique_images: no example with a picture of an earlier one.
        needs_image: only answers that were probed and are another, or agree more with gold, with the picture.
        grounded: only rows whose values stand in the ``text``, or there or in the ``picture_text``; rows in which
            there is nothing to look for stay.
        min_agreement, min_vote: only rows that have one, and at least this.
    """

    unhinted: bool = False
    unique: bool = False
    unique_images: bool = False
    needs_image: bool = False
    grounded: str = ""
    min_agreement: float | None = None
    min_vote: float | None = None

    def __post_init__(self) -> None:
        if self.grounded not in ("", "text", "picture_text"):
            raise ValueError(f"grounded is text or picture_text, not {self.grounded!r}")

    def leaves_out(self, row: Mapping[str, Any]) -> str:
        """The flag by which a row is left out; empty if it is wanted."""
        weaker = {"text": ("picture_text", "inferred"), "picture_text": ("inferred",)}.get(self.grounded, ())
        least = {"agreement": self.min_agreement, "vote": self.min_vote}
        wrong = {
            "unhinted": self.unhinted and row["hinted"],
            "unique": self.unique and row["duplicate_of"] is not None,
            "unique_images": self.unique_images and row["image_duplicate_of"] is not None,
            "needs_image": self.needs_image and not (row["answer_changed"] or (row["image_delta"] or 0) > 0),
            "grounded": row["grounded"] in weaker,
            **{
                f"min_{name}": limit is not None and (row[name] is None or row[name] < limit)
                for name, limit in least.items()
            },
        }
        return next((flag for flag, is_wrong in wrong.items() if is_wrong), "")

    def as_dict(self) -> dict[str, Any]:
        """The flags that are set."""
        return {flag: value for flag, value in asdict(self).items() if value not in (False, "", None)}
