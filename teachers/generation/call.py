"""A run by its names: kept in the corpus folder, so that it can be called again, and told as a command."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ...tasks.record import Record
from ...tasks.task import DataFault
from .budget import Budget
from .run_folder import CALL, SETTINGS


class Call(Record):
    """A run by its names: what decides its questions and what becomes of the answers. See `generate`.

    Attributes:
        split: one, or several with commas between (knowledge is needed of every split).
        candidates: how many a teacher chooses among, where the data bring none.
        concurrency, rpm, tpm: limits of an endpoint, see `spec.teacher`.
    """

    task: str
    data: str
    teacher: str
    prompts: tuple[str, ...]
    split: str = "train"
    samples: int = 1
    limit: int | None = None
    temperature: float = 0.0
    seed: int = 0
    max_tokens: int | None = None
    shots: int = 6
    candidates: int = 10
    min_agreement: float | None = None
    require_grounded: bool = True
    probe: bool = False
    budget: Budget = Budget()
    concurrency: int | None = None
    rpm: float | None = None
    tpm: float | None = None
    license: str = ""

    @property
    def limits(self) -> dict[str, Any]:
        """How fast an endpoint may be asked."""
        return {"concurrency": self.concurrency, "rpm": self.rpm, "tpm": self.tpm}


def stored(folder: Path) -> Call:
    """The call that a corpus folder was made by; a `DataFault` if it does not say."""
    try:
        return Call.model_validate(stored_settings(folder)[CALL])
    except KeyError:
        problem = "does not say by which names it was called"
    except ValidationError as error:
        problem = f"holds a call that cannot be read: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}"
    raise DataFault(str(Path(folder) / SETTINGS), problem, "run the generate command on it once more")


def stored_settings(folder: Path) -> dict[str, Any]:
    """What decided the answers in a corpus folder, with the call; a `DataFault` if it does not say."""
    path = Path(folder) / SETTINGS
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataFault(str(folder), f"was not made by generate: {error}") from None
    if not isinstance(settings, dict):
        raise DataFault(str(path), "is not what generate wrote")
    return settings


def command(call: Call, out: Path) -> str:
    """The `magister generate` command of a call. What has no flag (``shots``, ``license``) is left out."""
    words = ["magister", "generate", call.task, call.data, "--teacher", call.teacher]
    words += ["--prompts", ",".join(call.prompts), "--out", str(out)]
    words += ["--probe-images"] if call.probe else []
    usual, budget = Call.model_fields, call.budget
    flags: dict[str, Any] = {
        name: value
        for name in ("split", "samples", "limit", "temperature", "seed", "max_tokens", "candidates", "min_agreement")
        if (value := getattr(call, name)) != usual[name].default
    }
    flags |= {"budget_tokens": budget.tokens, "budget_usd": budget.usd}
    flags |= {"price_in": budget.price_in, "price_out": budget.price_out, **call.limits}
    for name, value in flags.items():
        words += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)
