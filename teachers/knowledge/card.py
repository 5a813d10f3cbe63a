"""A corpus's README: a YAML header that `datasets` reads, then the counts and where the rows come from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import yaml

#: Characters of an answer that are shown as a sample.
_SAMPLE = 600


@dataclass(frozen=True)
class Card:
    """What the corpus's README says beside the counts.

    Attributes:
        name: the heading.
        source: one sentence: whose answers these are.
        templates: template name to digest.
        settings: what decided the answers (teacher's identity, temperature, ...).
        filters: what decided which of them are kept (thresholds).
        cost: what was paid for the answers, in ``currency``; None if the price is not known.
        command: what makes it again; empty if it is not known.
        license: a licence the user chose; none is claimed otherwise.
        notes: counted remarks.
    """

    name: str
    source: str = ""
    templates: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    filters: Mapping[str, Any] = field(default_factory=dict)
    cost: Decimal | None = None
    currency: str = "USD"
    command: str = ""
    license: str = ""
    notes: Mapping[str, int] = field(default_factory=dict)


def render(
    card: Card,
    counts: Mapping[str, Any],
    columns: Sequence[tuple[str, str, str]],
    data: str,
    sample: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The README's text.

    Args:
        counts: the corpus's `stats`.
        columns: name, type and meaning of each.
        data: the data files, as seen from the README.
        sample: rows to show.
    """
    header: dict[str, Any] = {
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": data}]}],
        "tags": ["magister", "knowledge-distillation"],
    }
    if card.license:
        header["license"] = card.license
    parts = [f"---\n{yaml.safe_dump(header, sort_keys=False)}---", f"# {card.name}", card.source]
    parts += ["## Counts", _counts(card, counts), _by_prompt(card, counts)]
    parts += ["## Cost", _cost(card, counts)]
    for title, values in (("Settings", card.settings), ("Filters", card.filters)):
        if values:
            parts += [f"## {title}", _fenced(json.dumps(values, indent=2, ensure_ascii=False), "json")]
    if sample:
        parts += ["## Sample", *map(_shown, sample)]
    parts += ["## Columns", "\n".join(f"- `{name}` ({kind}): {what}" for name, kind, what in columns)]
    if card.command:
        parts += ["## To make it again", _fenced(card.command)]
    if not card.license:
        parts.append("No licence is stated: it depends on the teacher's terms and on the data that was asked about.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _counts(card: Card, counts: Mapping[str, Any]) -> str:
    status = counts["status"]
    lines = [
        f"{counts['rows']:,} rows on {counts['examples']:,} examples = {status['kept']:,} kept"
        f" + {status['quarantined']:,} quarantined + {status['failed']:,} failed."
    ]
    for name in ("quarantined", "failed"):
        lines += [f"- {name}, {reason}: {number:,}" for reason, number in counts[name].items()]
    lines += [f"- grounded, {where}: {number:,}" for where, number in counts.get("grounded", {}).items()]
    lines += [f"- {mark}: {number:,}" for mark, number in counts.get("marked", {}).items()]
    for name in ("agreement", "image_delta"):
        if counts.get(name) is not None:
            lines.append(f"- mean {name}: {counts[name]:.3f}")
    lines += [f"- {remark}: {number:,}" for remark, number in card.notes.items()]
    return "\n".join(lines)


def _by_prompt(card: Card, counts: Mapping[str, Any]) -> str:
    table = ["| prompt | kept | quarantined | failed | digest |", "|---|---|---|---|---|"]
    for name, by_status in counts["prompts"].items():
        numbers = " | ".join(f"{by_status.get(s, 0):,}" for s in counts["status"])
        table.append(f"| {name} | {numbers} | {card.templates.get(name, '')[:16]} |")
    return "\n".join(table)


def _cost(card: Card, counts: Mapping[str, Any]) -> str:
    tokens = f"{counts['prompt_tokens']:,} tokens read and {counts['completion_tokens']:,} written"
    return f"{tokens}; " + ("the price is not known." if card.cost is None else f"{card.cost} {card.currency}.")


def _shown(row: Mapping[str, Any]) -> str:
    text = row["text"].strip()
    cut = f"\n... ({len(text) - _SAMPLE:,} characters more)" if len(text) > _SAMPLE else ""
    return f"Example `{row['id']}`, `{row['prompt']}`:\n\n{_fenced(text[:_SAMPLE] + cut)}"


def _fenced(text: str, language: str = "") -> str:
    """A code block that the text cannot close."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}\n{fence}"
