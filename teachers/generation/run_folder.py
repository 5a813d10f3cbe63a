"""A run's folder: what it may hold, and whose run it is. A run may grow; another run's folder is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...tasks.task import DataFault

#: The ledger, and the settings that decided what is in it.
LEDGER, SETTINGS = "ledger.jsonl", "run.json"
#: Parts of the ledger that are still to be merged into it, see `scale`.
PARTS = "parts"
#: Among the settings: by which names the run was called, so that it can be called again.
CALL = "call"
#: Where pictures' descriptions may be kept; they can be there before the first reply.
DESCRIPTIONS = "descriptions"


def check_folder(out: Path) -> None:
    """Refuse a folder in which something else lies."""
    if not out.exists() or (out / LEDGER).exists():
        return
    ours = {f"{LEDGER}.lock", DESCRIPTIONS}
    if not out.is_dir() or any(path.name not in ours for path in out.iterdir()):
        raise DataFault(str(out), "is in use by something else", "choose a new folder, or an earlier run's")


def check_run(out: Path, now: Mapping[str, Any], examples: Sequence[Any], resume: bool) -> None:
    """Refuse a folder of a run with other settings, and say what differs. A run may grow, never shrink."""
    if not resume:
        raise DataFault(str(out), "already holds replies", "resume, or choose a new folder")
    if not (out / SETTINGS).exists():
        return
    try:
        before = json.loads((out / SETTINGS).read_text(encoding="utf-8"))
        differs = _differences(before, now, examples)
    except (ValueError, KeyError, TypeError) as error:
        raise DataFault(
            str(out / SETTINGS),
            f"is not what generate wrote: {error}",
            "remove it; the replies are in the ledger",
        ) from None
    if differs:
        raise DataFault(
            str(out),
            f"belongs to a run with other settings: {'; '.join(differs)}",
            "choose a new folder, or set them back",
        )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], examples: Sequence[Any]) -> list[str]:
    grows = ("prompts", "samples", "examples")
    differs = [
        f"{name} was {json.dumps(before[name])}, is {json.dumps(now[name])}"
        for name in now
        if name not in grows and before[name] != now[name] and not (name == "demonstrations" and before[name] is None)
    ]
    for name, text in before["prompts"].items():
        if name not in now["prompts"]:
            differs.append(f"the prompt {name} is missing")
        elif now["prompts"][name] != text:
            differs.append(f"the text of the prompt {name} was changed")
    if now["samples"] < before["samples"]:
        differs.append(f"samples was {before['samples']}, is {now['samples']}")
    count = before["examples"]["count"]
    if len(examples) < count:
        differs.append(f"there were {count} examples, now {len(examples)}")
    elif digest(*(e.id for e in examples[:count])) != before["examples"]["ids"]:
        differs.append(f"the first {count} examples are others")
    return differs


def digest(*texts: str) -> str:
    """One SHA-256 of several texts."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()
