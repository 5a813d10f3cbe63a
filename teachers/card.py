"""A corpus's README: a YAML header that `datasets` reads, then the counts and where the rows come from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml


@dataclass(frozen=True)
class Card:
    """What the corpus's README says beside the counts.

    Attributes:
        name: the heading.
        source: one sentence: whose answers these are.
        templates: template name to digest.
        settings: what decided the answers and what was kept (teacher's identity, temperature, thresholds,
            ...).
        command: what makes it again; empty if it is not known.
        license: a licence the user chose; none is claimed otherwise.
        notes: counted remarks.
    """

    name: str
    source: str = ""
    templates: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    license: str = ""
    notes: Mapping[str, int] = field(default_factory=dict)


def render(card: Card, counts: Mapping[str, Any], columns: Sequence[tuple[str, str, str]], data: str) -> str:
    """The README's text.

    Args:
        counts: the corpus's `stats`.
        columns: name, type and meaning of each.
        data: the data file, as seen from the README.
    """
    header: dict[str, Any] = {
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": data}]}],
        "tags": ["magister", "knowledge-distillation"],
    }
    if card.license:
        header["license"] = card.license
    parts = [f"---\n{yaml.safe_dump(header, sort_keys=False)}---", f"# {card.name}", card.source]
    status = counts["status"]
    lines = [
        f"{counts['rows']:,} rows on {counts['examples']:,} examples = {status['kept']:,} kept"
        f" + {status['quarantined']:,} quarantined + {status['failed']:,} failed."
    ]
    for name in ("quarantined", "failed"):
        lines += [f"- {name}, {reason}: {number:,}" for reason, number in counts[name].items()]
    lines += [f"- {remark}: {number:,}" for remark, number in card.notes.items()]
    parts += ["## Counts", "\n".join(lines)]
    table = ["| prompt | kept | quarantined | failed | digest |", "|---|---|---|---|---|"]
    for name, by_status in counts["prompts"].items():
        numbers = " | ".join(f"{by_status.get(s, 0):,}" for s in status)
        table.append(f"| {name} | {numbers} | {card.templates.get(name, '')[:16]} |")
    parts.append("\n".join(table))
    if card.settings:
        parts += ["## Settings", f"```json\n{json.dumps(card.settings, indent=2, ensure_ascii=False)}\n```"]
    parts += ["## Columns", "\n".join(f"- `{name}` ({kind}): {what}" for name, kind, what in columns)]
    if card.command:
        parts += ["## To make it again", f"```\n{card.command}\n```"]
    if not card.license:
        parts.append("No licence is stated: it depends on the teacher's terms and on the data that was asked about.")
    return "\n\n".join(part for part in parts if part) + "\n"
