"""A corpus for others: as one file, or on a hub."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...tasks.task import DataFault
from . import shards
from .columns import Filters
from .corpus import CARD, rows, stats

#: What leaves the house: never the ledger, the run's settings or the pictures' descriptions.
PUBLIC = (CARD.as_posix(), shards.PATTERN)


def export(
    folder: Path, file: Path, status: str | None = "kept", prompt: str | None = None, filters: Filters | None = None
) -> dict[str, Any]:
    """Write a corpus's rows as one ``.jsonl`` or ``.parquet`` file, whole or not at all.

    Args:
        status: of these rows; None for all.
        filters: which of them are wanted.

    Returns:
        ``rows``: of the corpus; ``written``; ``left_out`` by what left them out (``status``, ``prompt``, a flag of
        `Filters`). They add up.

    Raises:
        DataFault: another kind of file, one that is there already, or no corpus.
    """
    file = Path(file)
    if file.suffix not in (".jsonl", ".parquet"):
        raise DataFault(str(file), f"rows cannot be written as {file.suffix or 'a file without suffix'}",
                        "name a .jsonl or a .parquet file")  # fmt: skip
    if file.exists():
        raise DataFault(str(file), "is there already", "choose another name, or remove it yourself")
    left_out: Counter[str] = Counter()
    written = 0

    def wanted() -> Iterator[dict[str, Any]]:
        nonlocal written
        for row in rows(folder, status, prompt):
            flag = filters.leaves_out(row) if filters else ""
            left_out.update([flag] if flag else [])
            written += not flag
            if not flag:
                yield row

    write = _write_lines if file.suffix == ".jsonl" else shards.write_file
    shards.write_atomically(file, lambda path: write(path, wanted()))
    total = stats(folder)["rows"]
    others = total - written - left_out.total()
    counted = {"status_or_prompt": others, **left_out}
    return {"rows": total, "written": written, "left_out": {why: n for why, n in counted.items() if n}}


def push(folder: Path, repo_id: str, private: bool = True) -> str:
    """Put a corpus's card and shards on the Hugging Face hub as a data set; returns its address.

    The token is that of ``HF_TOKEN`` or of ``hf auth login``; none is taken as an argument, kept or printed. What is in
    the repository stays, but for shards of an earlier push.

    Raises:
        DataFault: the folder is no corpus, ``HF_HUB_OFFLINE`` is set, or the hub does not take it.
    """
    counts = stats(folder)
    if not (Path(folder) / CARD).is_file():
        raise DataFault(str(folder), f"has no {CARD}", "build it again: a corpus is not published without its card")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise DataFault(repo_id, "nothing is sent while HF_HUB_OFFLINE is set", "unset it to push")
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        address = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            folder_path=str(folder),
            repo_id=repo_id,
            repo_type="dataset",
            allow_patterns=list(PUBLIC),
            delete_patterns=[shards.PATTERN],
            commit_message=f"{counts['rows']:,} rows, {counts['status']['kept']:,} kept",
        )
    except Exception as error:  # of the hub's own classes, or of the HTTP library that its version uses
        raise DataFault(repo_id, f"the hub did not take it: {error}", "is there a token, and may it write?") from error
    return str(address)


def _write_lines(path: Path, wanted: Iterator[dict[str, Any]]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for row in wanted:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
