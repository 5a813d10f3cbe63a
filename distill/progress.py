"""What a run says: a bar on a terminal, plain lines elsewhere, and a log of every step."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class Reporter:
    """Speaks for the main process; the others are silent."""

    def __init__(self, aloud: bool = True) -> None:
        self._console = Console(quiet=not aloud, soft_wrap=True, highlight=False)

    def line(self, text: str) -> None:
        """One plain line."""
        self._console.print(text, markup=False)

    @contextmanager
    def bar(self, total: int, done: int) -> Iterator[Bar]:
        """A progress bar of steps on a terminal; a line every tenth of the way elsewhere."""
        if not self._console.is_terminal:
            yield Bar(self, None, total, done)
            return
        columns = (BarColumn(), TextColumn("step {task.completed:,}/{task.total:,}"), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.description}"), console=self._console) as live:
            yield Bar(self, live, total, done)


class Bar:
    """Where a run stands, shown after each step."""

    def __init__(self, reporter: Reporter, live: Progress | None, total: int, done: int) -> None:
        self._reporter, self._live, self._total, self._done = reporter, live, total, done
        self._task = live.add_task("", total=total, completed=done) if live else None
        self._started, self._at_start = time.monotonic(), done

    def advance(self, losses: dict[str, float], epoch: int) -> None:
        """One step more, with its losses."""
        self._done += 1
        text = f"epoch {epoch + 1}  " + "  ".join(f"{k} {v:.3f}" for k, v in losses.items() if k != "gradient_norm")
        if self._live is not None and self._task is not None:
            self._live.update(self._task, advance=1, description=text)
        elif self._done % max(1, self._total // 10) == 0:
            pace = (self._done - self._at_start) / (time.monotonic() - self._started)
            self._reporter.line(f"step {self._done:,}/{self._total:,}  {text}  {pace:.2f} steps/s")


class Log:
    """``log.jsonl``: one line a step or evaluation. On resume, lines behind the checkpoint are taken back."""

    def __init__(self, path: Path, step: int) -> None:
        kept = []
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                if _step(line) <= step:
                    kept.append(line + "\n")
        path.write_text("".join(kept), encoding="utf-8")
        self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 (as long as the run)

    def add(self, **values: Any) -> None:
        """Write one line, at once."""
        self._file.write(json.dumps(values) + "\n")


def _step(line: str) -> float:
    """The step of a line; a line cut short by a kill belongs to no step that counts."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
