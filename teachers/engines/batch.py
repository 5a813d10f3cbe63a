"""A teacher that answers later: requests into OpenAI Batch files, answers out of them (``batch:DIR?model=NAME``).

The first run writes ``DIR/requests-00001.jsonl`` and so on, and leaves every request pending. Whoever answers them (a
provider's batch service, ``vllm run-batch``, a person) puts the output and error files into ``DIR/answers/`` as
``*.jsonl``, in any order and number, complete or not. The same command then takes what is there; what is missing stays
pending. A line is ``{"custom_id": KEY, "method": "POST", "url": "/v1/chat/completions", "body": {...}}``.

Nothing is kept besides these files, and a run that finds them as it left them writes nothing. A request is written
again, as ``KEY.try2`` into a further file, only when the last answer to it was no answer (expired, cancelled, 5xx, 429,
a wrong key), met a smaller token limit than is allowed now, or says how the service wants to be asked instead (see
`Dialect.after`). One process at a time, by a lock file.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from ...tasks.images import Image, ImageFault
from ..teacher import Reply, Request
from . import wire
from .wire import BadBody, Dialect

log = logging.getLogger(__name__)

_TRY = re.compile(r"\.try(\d{1,4})$")
_OPTIONS = ("model", "name", "images", "limit", "text_only")
#: Errors that are about the batch, the account or the moment, not about the request.
_PASSING = frozenset({401, 402, 403, 404, 405})


class FolderBusy(RuntimeError):
    """Another run works in this folder."""


class BatchTeacher:
    """Whoever answers the request files in a folder.

    Args:
        folder: where the files lie.
        model: the model to be asked, as its service calls it.
        name: tells two services with the same model name apart.
        images: ``data`` writes pictures into the request files as data URLs; ``paths`` refers to those that are files
            by ``file://`` (vLLM then needs ``--allowed-local-media-path``).
        limit: what the service calls the token limit: ``max_tokens``, or ``max_completion_tokens`` (OpenAI's newer
            models).
        sees_images: False for a text-only model, so that pictures are put into words first.
        file_requests, file_bytes: most a request file holds; the defaults keep OpenAI's limits.

    Attributes:
        notes: counted remarks on the last run's files, for people.
        advice: what to do about pending requests; empty if there are none.
    """

    def __init__(
        self,
        folder: Path,
        model: str,
        *,
        name: str = "",
        images: str = "data",
        limit: str = "max_tokens",
        sees_images: bool = True,
        file_requests: int = 50_000,
        file_bytes: int = 190_000_000,
    ) -> None:
        if not model:
            raise ValueError("say which model is to answer: batch:DIR?model=NAME")
        if images not in ("data", "paths") or limit not in ("max_tokens", "max_completion_tokens"):
            raise ValueError(f"images={images!r}, limit={limit!r}: data or paths, max_tokens or max_completion_tokens")
        self.folder, self.model, self.name, self.images, self.limit = Path(folder), model, name, images, limit
        self.sees_images, self.file_requests, self.file_bytes = sees_images, file_requests, file_bytes
        self.notes: Counter[str] = Counter()
        self.advice = ""
        named = f"&name={name}" if name else ""
        self.spec = f"batch:{folder}?model={model}{named}"

    @classmethod
    def of_spec(cls, spec: str) -> BatchTeacher:
        """The teacher of ``batch:DIR?model=NAME``; further options behind ``&``: ``name``, ``images=paths``,
        ``limit=max_completion_tokens``, ``text_only=1``."""
        folder, _, query = spec.removeprefix("batch:").partition("?")
        try:
            found = parse_qsl(query, strict_parsing=True, keep_blank_values=True) if query else []
        except ValueError:
            raise ValueError(f"{spec!r}: expected batch:DIR?model=NAME") from None
        options: dict[str, Any] = dict(found)
        if unknown := options.keys() - set(_OPTIONS):
            raise ValueError(f"{spec!r}: no option {', '.join(sorted(unknown))}; there are {', '.join(_OPTIONS)}")
        text_only = options.pop("text_only", "") not in ("", "0")
        return cls(Path(folder), options.pop("model", ""), sees_images=not text_only, **options)

    def identity(self) -> dict[str, Any]:
        """Engine, model and service; not the folder."""
        return {"engine": "batch", "model": self.model, "endpoint": self.name}

    def generate(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Yield the answers that are there, then ``pending`` for every other request.

        Raises:
            FolderBusy: another run works in the folder.
            OSError: the folder cannot be read or written.
        """
        with _locked(self.folder):
            yield from self._generate(requests)

    def _generate(self, requests: Iterable[Request]) -> Iterator[Reply]:
        self.notes.clear()
        asked, answers = _asked(self.folder), _Answers(self.folder / "answers", self.notes)
        files = _RequestFiles(self.folder, self.file_requests, self.file_bytes)
        pending: list[str] = []
        wanted: set[str] = set()
        try:
            for request in requests:
                wanted.add(request.key)
                tries = asked.get(request.key, {})
                found = answers.best(request, tries)
                other = _mended(tries, found)
                if found is not None and other is None:
                    yield found
                elif found is None and tries and not answers.again(request, tries):
                    pending.append(request.key)
                else:
                    self.notes["requests_written_again"] += bool(tries)
                    self.notes["of_these_in_another_form,_as_the_service_asked"] += other is not None
                    try:
                        files.write(self._line(request, max(tries, default=0) + 1, other or self._form(tries)))
                    except ImageFault as fault:
                        yield Reply(key=request.key, finish="error", failure="image", detail=str(fault))
                    except _TooLarge as fault:
                        yield Reply(key=request.key, finish="error", failure="too_long", detail=str(fault))
                    else:
                        pending.append(request.key)
            files.done()
        finally:
            files.drop()
        self.notes["answers_to_requests_that_were_never_asked"] = len(answers.keys - asked.keys() - wanted)
        self._say(len(pending), files.written)
        for key in pending:
            yield Reply(key=key, finish="error", failure="pending", detail=self.advice)

    def close(self) -> None:
        """Nothing is held."""

    def _form(self, tries: Mapping[int, _Try]) -> Dialect:
        """How to ask when nothing new was said of it: as in the last try, with the limit's name as it is set now."""
        last = tries[max(tries)].dialect if tries else Dialect()
        return replace(last, limit=self.limit) if last.limit == "max_tokens" else last

    def _line(self, request: Request, number: int, dialect: Dialect) -> bytes:
        url = _path_url if self.images == "paths" else Image.data_url
        line = {
            "custom_id": request.key if number == 1 else f"{request.key}.try{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": wire.body(request, self.model, dialect, url),
        }
        return json.dumps(line).encode("ascii") + b"\n"

    def _say(self, pending: int, written: list[Path]) -> None:
        self.notes = +self.notes
        self.advice = ""
        if pending:
            new = f" (new: {', '.join(path.name for path in written)})" if written else " (no new ones)"
            self.advice = (
                f"{pending:,} requests wait for answers: have {self.folder / 'requests-*.jsonl'}{new} answered as "
                f"OpenAI Batch files, put the answers into {self.folder / 'answers'} and run the same command again"
            )
            log.warning("%s", self.advice)
        for note, number in self.notes.items():
            log.warning("%s: %s: %d", self.folder, note.replace("_", " "), number)


class _TooLarge(ValueError):
    """One request is larger than a request file may be."""


class _RequestFiles:
    """New request files behind those that are there; they appear when they are complete, all of them or none."""

    def __init__(self, folder: Path, most: int, size: int) -> None:
        self.folder, self.most, self.size = folder, most, size
        self.written: list[Path] = []
        self._parts: list[Path] = []
        self._file: Any = None
        self._lines = self._bytes = 0
        self._next = 1 + max((int(p.stem.rpartition("-")[2]) for p in request_files(folder)), default=0)

    def write(self, line: bytes) -> None:
        if len(line) > self.size:
            raise _TooLarge(f"a request of {len(line):,} bytes; a request file may hold {self.size:,}")
        if self._file is None or self._lines == self.most or self._bytes + len(line) > self.size:
            self._begin()
        self._file.write(line)
        self._lines, self._bytes = self._lines + 1, self._bytes + len(line)

    def done(self) -> None:
        """Let the new files appear."""
        self._end()
        for part in self._parts:
            path = part.with_suffix("")
            part.rename(path)
            self.written.append(path)
        self._parts = []

    def drop(self) -> None:
        """Remove what has not appeared."""
        self._end()
        for part in self._parts:
            part.unlink(missing_ok=True)

    def _begin(self) -> None:
        self._end()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "answers").mkdir(exist_ok=True)
        self._parts.append(self.folder / f"requests-{self._next:05}.jsonl.part")
        self._file = open(self._parts[-1], "wb")  # noqa: SIM115 - closed by _end()
        self._next, self._lines, self._bytes = self._next + 1, 0, 0

    def _end(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None


def request_files(folder: Path) -> list[Path]:
    """The request files of a folder, in order."""
    return sorted(p for p in folder.glob("requests-*.jsonl") if p.stem.rpartition("-")[2].isdigit())


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder for this run alone; the system frees the lock when the process ends, however it ends.

    Raises:
        FolderBusy: another run has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "batch.lock", "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderBusy(f"{folder} is in use by another run; wait for it, or choose another folder") from None
        yield


@dataclass(frozen=True, slots=True)
class _Try:
    """How a request was asked: its token limit, and in which form."""

    limit: int
    dialect: Dialect


def _mended(tries: Mapping[int, _Try], found: Reply | None) -> Dialect | None:
    """The form to ask in again, where the last try was refused for its form and says so."""
    if not tries or found is None or found.failure != "rejected":
        return None
    return tries[max(tries)].dialect.after(found.detail)


def _asked(folder: Path) -> dict[str, dict[int, _Try]]:
    """Of every key that was asked: its tries by number.

    Raises:
        ValueError: a request file was damaged; says which line.
    """
    asked: dict[str, dict[int, _Try]] = {}
    for path in request_files(folder):
        with open(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    data = json.loads(line)
                    (key, place), body = _key_and_try(data["custom_id"]), data["body"]
                    name = "max_tokens" if "max_tokens" in body else "max_completion_tokens"
                    dialect = Dialect(name).with_schema(body.get("response_format", {}).get("type", "none"))
                    asked.setdefault(key, {})[place] = _Try(int(body[name]), dialect)
                except (ValueError, LookupError, TypeError, AttributeError):
                    raise ValueError(
                        f"{path} line {number} is no request; put the file back as it was written"
                    ) from None
    return asked


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an answer stands, and how good it is: 3 whole, 2 cut by its limit, 1 refused for good, 0 no answer."""

    path: Path
    offset: int
    worth: int


class _Answers:
    """The answer files: read once for what they hold, and again where an answer is wanted (they may be large)."""

    def __init__(self, folder: Path, notes: Counter[str]) -> None:
        self._places: dict[tuple[str, int], _Place] = {}
        self.keys: set[str] = set()
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.suffix != ".jsonl" or not path.is_file():
                notes["files_in_answers_that_are_not_jsonl"] += 1
                continue
            offset = 0
            with open(path, "rb") as lines:
                for line in lines:
                    if line.strip():
                        self._note(path, offset, line, notes)
                    offset += len(line)

    def best(self, request: Request, tries: Mapping[int, _Try]) -> Reply | None:
        """The answer that settles a request: a whole one of any try, else one that met today's limit or a larger one,
        else the last try's final refusal."""
        key = request.key
        numbers = sorted(tries) or [1]
        places = [self._places.get((key, number)) for number in numbers]
        for place in places:
            if place is not None and place.worth == 3:
                return self._read(key, place)
        wanted = request.prompt.max_tokens
        for place, number in zip(places, numbers, strict=True):
            limit = tries[number].limit if tries else wanted
            if place is not None and place.worth == 2 and limit >= wanted:
                return self._read(key, place)
        last = places[-1]
        return self._read(key, last) if last is not None and last.worth == 1 else None

    def again(self, request: Request, tries: Mapping[int, _Try]) -> bool:
        """Whether the last try has come back without settling the request."""
        return (request.key, max(tries)) in self._places

    def _note(self, path: Path, offset: int, line: bytes, notes: Counter[str]) -> None:
        read = _answer(line)
        if read is None:
            notes["lines_that_are_no_answer_(torn_or_of_another_form)"] += 1
            return
        custom_id, worth, reply = read
        if reply.failure is not None:
            notes[f"answers_with_an_error_({reply.failure})"] += 1
        place, known = _key_and_try(custom_id), self._places.get(_key_and_try(custom_id))
        self.keys.add(place[0])
        notes["answers_that_came_twice"] += known is not None
        if known is None or worth > known.worth:
            self._places[place] = _Place(path, offset, worth)

    def _read(self, key: str, place: _Place) -> Reply:
        with open(place.path, "rb") as file:
            file.seek(place.offset)
            read = _answer(file.readline())
        if read is None:
            raise OSError(f"{place.path} was changed while it was read")
        return read[2].model_copy(update={"key": key})


def _answer(line: bytes) -> tuple[str, int, Reply] | None:
    """An answer line: its ``custom_id``, what it is worth (see `_Place`) and the reply; None if it is no such line.

    Taken are the forms of OpenAI and of those who follow it: the completion in ``response.body`` (also as a text), in
    ``response``, or in ``body``; errors in any of these, or in ``error``.
    """
    try:
        data = json.loads(line)
        custom_id, response, error = data["custom_id"], data.get("response"), data.get("error")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    response = response if isinstance(response, dict) else {"body": data.get("body")}
    status, said = response.get("status_code"), response.get("body", response)
    if isinstance(said, str):
        try:
            said = json.loads(said)
        except (ValueError, RecursionError):
            error = error or said
    if not isinstance(custom_id, str) or not (isinstance(said, dict) or error):
        return None
    if isinstance(said, dict) and "messages" in said and "choices" not in said and not error:
        return None  # a request file, put among the answers
    if isinstance(said, dict) and said.get("choices"):
        try:
            reply = wire.completion(custom_id, said)
            return custom_id, 1 if reply.failure else 2 if reply.finish == "length" else 3, reply
        except BadBody as fault:
            status, error = 500, str(fault)
    status = status if isinstance(status, int) and status >= 400 else 0
    problem = wire.problem(status, error or said)[:600]
    failure = wire.failure(status or 400, problem)
    if (status in _PASSING and failure != "refused") or (status == 0 and failure == "rejected"):
        failure = "transport"
    reply = Reply(key=custom_id, finish="error", failure=failure, detail=problem)
    return custom_id, 0 if failure in ("transport", "rate_limit") else 1, reply


def _key_and_try(custom_id: str) -> tuple[str, int]:
    found = _TRY.search(custom_id)
    return (custom_id[: found.start()], int(found[1])) if found else (custom_id, 1)


def _path_url(image: Image) -> str:
    """A picture that is a file by its ``file://`` address; opened all the same, so that a broken one is found now."""
    if image.source.startswith("data:"):
        return image.data_url()
    image.data_url()
    return Path(image.source).resolve().as_uri()
