"""The ledger: the truth of a run. One line a reply, on the disk before the next one is looked at.

A file is JSON lines, append-only, written by one process at a time. Everything else (the corpus, its card,
its counts) is rebuilt from it. After a kill -9 or a power cut the only thing that can be wrong is a torn
last line; it is found, dropped and said when the file is next opened.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..tasks.images import Image
from ..tasks.record import Record
from .teacher import Failure, Finish, Reply, Request, Usage

#: Raised when the meaning of the key changes: old rows are then not found, never mistaken for new ones.
KEY_VERSION = 1
#: The form of a line. A ledger written in another form is refused, never read as empty.
LINE_VERSION = 1
#: Failures in which the teacher was never asked: nothing was spent, so they are simply asked the next time.
NEVER_ASKED = frozenset({"over_budget"})


class LedgerFault(RuntimeError):
    """The ledger cannot be read or written: says which file, what is wrong and what to do."""

    def __init__(self, path: Path, problem: str, remedy: str) -> None:
        self.path, self.problem, self.remedy = path, problem, remedy
        super().__init__(f"{path}: {problem} ({remedy})")


class LedgerBusy(LedgerFault):
    """Another process writes to this ledger."""


class LedgerFull(LedgerFault):
    """A reply could not be written: the disk is full, or a quota or file size limit was met."""


def request_key(
    request: Request,
    teacher_identity: Mapping[str, Any],
    image_hash: Callable[[Image], str] = Image.sha256,
) -> str:
    """SHA-256 over canonical JSON of everything that decides the answer, and of nothing else.

    In the key: the key's version, the rendered messages (role, texts and pictures in order, the system turn
    included), each picture by the hash of its content, the strings at which the answer ends, the answer's
    JSON schema with its properties in order (a grammar makes the model answer in that order), the teacher's
    identity, temperature, seed and sample.

    Left out:

    ============================  =====================================================================
    left out                      why
    ============================  =====================================================================
    a picture's path and type     the same picture elsewhere is the same question
    the example's id              two examples that ask the very same share one answer
    template name and digest      only the words that reach the teacher count; both are kept in the row
    max_tokens                    an answer that stopped by itself does not depend on it; rows that met the
                                  limit are asked again when the limit is raised (see `Ledger.settled`)
    the teacher's spec string     its identity says what matters of it
    host, batch size, timeouts,   they change when an answer arrives, not what it says
    concurrency, retries, prices
    ============================  =====================================================================

    Args:
        image_hash: the content hash of a picture; pass a caching one where pictures recur.

    Raises:
        ImageFault: a picture cannot be read.
        TypeError: the teacher's identity holds something that is not JSON.
    """
    prompt = request.prompt
    facts = {
        "version": KEY_VERSION,
        "teacher": dict(teacher_identity),
        "messages": [
            {
                "role": message.role,
                "parts": [
                    {"text": part.text} if part.image is None else {"image": image_hash(part.image)}
                    for part in message.parts
                ],
            }
            for message in prompt.messages
        ],
        "stop": list(prompt.stop),
        "schema": None if prompt.answer_schema is None else json.dumps(prompt.answer_schema),
        "temperature": float(request.temperature),
        "seed": request.seed,
        "sample": request.sample,
    }
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


class Row(Record):
    """One line: what was asked (by key), of which example, and what came back, as it was said.

    ``seconds`` and ``usage`` are the engine's; ``time`` is when the reply arrived (UTC, ISO 8601).
    """

    v: int = LINE_VERSION
    key: str
    example: str
    template: str
    digest: str
    sample: int
    temperature: float
    seed: int
    max_tokens: int
    finish: Finish
    failure: Failure | None
    detail: str
    text: str
    usage: Usage
    seconds: float
    teacher: str
    identity: dict[str, Any]
    time: str

    @classmethod
    def of(cls, request: Request, reply: Reply, spec: str, identity: Mapping[str, Any]) -> Row:
        """The row of a reply to a request. An unnamed error is a transport failure: a row is never without a
        reason."""
        failure = reply.failure
        if failure is None and reply.finish == "error":
            failure = "transport"
        return cls(
            key=request.key,
            example=request.example,
            template=request.prompt.template,
            digest=request.prompt.digest,
            sample=request.sample,
            temperature=request.temperature,
            seed=request.seed,
            max_tokens=request.prompt.max_tokens,
            finish=reply.finish,
            failure=failure,
            detail=reply.detail,
            text=reply.text,
            usage=reply.usage,
            seconds=reply.seconds,
            teacher=spec,
            identity=dict(identity),
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )


@dataclass(frozen=True)
class Opened:
    """What was found at opening: rows read, torn bytes dropped at the end, and damaged lines by number
    (1-based)."""

    rows: int
    torn_bytes: int
    damaged: tuple[int, ...]

    def __str__(self) -> str:
        said = [f"{self.rows:,} replies"]
        if self.torn_bytes:
            said.append(f"a torn last line of {self.torn_bytes:,} bytes was dropped (its reply will be asked again)")
        if self.damaged:
            shown = ", ".join(map(str, self.damaged[:10])) + (", ..." if len(self.damaged) > 10 else "")
            said.append(f"{len(self.damaged):,} damaged lines were left out: {shown}")
        return "; ".join(said)


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the index keeps of a row: enough to decide, and where the rest lies."""

    offset: int
    length: int
    finish: Finish
    failure: Failure | None
    max_tokens: int

    @property
    def preference(self) -> int:
        """A whole answer is better than a cut one, and that better than a failure."""
        return 0 if self.failure else (1 if self.finish == "length" else 2)


class Ledger:
    """An open ledger: look rows up by key, append rows. Use as a context manager; one process at a time.

    Only keys and offsets are held in memory (some 300 bytes a row); texts are read from the file when they
    are needed.

    Args:
        path: the file; made if it is not there. The lock file lies beside it (``ledger.jsonl.lock``).

    Raises:
        LedgerBusy: another process has it open.
        LedgerFault: the file was written in another form.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _take_lock(self.path)
        self._index: dict[str, _Entry] = {}
        try:
            self._file = open(self.path, "a+b", buffering=0)  # noqa: SIM115 - closed by close()
            try:
                self.opened = self._recover()
                self._start = os.fstat(self._file.fileno()).st_size
            except BaseException:
                self._file.close()
                raise
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and free the lock. May be called twice."""
        if not self._file.closed:
            self._file.close()
            os.close(self._lock)

    def __len__(self) -> int:
        """How many keys have a row."""
        return len(self._index)

    def keys(self) -> frozenset[str]:
        """The keys that have a row."""
        return frozenset(self._index)

    def settled(self, request: Request, retry_failed: bool = False) -> bool:
        """Whether this request needs no (further) asking.

        An answer that stopped by itself settles it, whatever the token limit. One that met its limit settles
        it only if no more is allowed now. A failure settles it unless ``retry_failed``, or unless the
        teacher was never asked.
        """
        entry = self._index.get(request.key)
        if entry is None:
            return False
        if entry.failure is not None:
            return not retry_failed and entry.failure not in NEVER_ASKED
        return entry.finish != "length" or request.prompt.max_tokens <= entry.max_tokens

    def failed(self, key: str) -> bool:
        """Whether all that came for a key is a failure."""
        entry = self._index.get(key)
        return entry is not None and entry.failure is not None

    def row(self, key: str) -> Row | None:
        """The row that counts for a key: its last whole answer, else its last cut one, else its last
        failure."""
        entry = self._index.get(key)
        if entry is None:
            return None
        return _parse(self.path, 0, os.pread(self._file.fileno(), entry.length, entry.offset))

    def arrived(self) -> int:
        """How many rows were written since the opening, counted in the file itself.

        Ctrl-C may fall between the writing of a row and everything else that would count it.
        """
        with open(self.path, "rb") as file:
            file.seek(self._start)
            return sum(line.endswith(b"\n") for line in file)

    def append(self, row: Row) -> None:
        """Write one row and wait until it is on the disk.

        Raises:
            LedgerFull: it could not be written; the file is put back to its last whole line.
        """
        line = json.dumps(row.model_dump(mode="json")).encode("ascii") + b"\n"
        at = os.fstat(self._file.fileno()).st_size
        try:
            _write_all(self._file, line)
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):  # if even this fails, the torn line is dropped at the next opening
                os.ftruncate(self._file.fileno(), at)
            raise LedgerFull(
                self.path,
                f"{error.strerror or error}: the reply for example {row.example} could not be written",
                f"the replies of {len(self):,} requests are saved; make room and run the same command again",
            ) from error
        self._note(row, at, len(line))

    def _note(self, row: Row, offset: int, length: int) -> None:
        entry = _Entry(offset, length, row.finish, row.failure, row.max_tokens)
        known = self._index.get(row.key)
        if known is None or entry.preference >= known.preference:
            self._index[row.key] = entry

    def _recover(self) -> Opened:
        """Index the file and cut off a torn last line. A whole last row without its line end is given one."""
        count, damaged, end, whole = 0, [], 0, True
        for number, offset, line in _lines(self.path):
            row = _parse(self.path, number, line)
            ended = line.endswith(b"\n")
            if row is not None:
                self._note(row, offset, len(line))
                count += 1
            elif ended:
                damaged.append(number)
            if ended or row is not None:
                end, whole = offset + len(line), ended
        torn = self.path.stat().st_size - end
        if torn:
            os.ftruncate(self._file.fileno(), end)
        if not whole:
            _write_all(self._file, b"\n")
        os.fsync(self._file.fileno())
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name of a new file, too, has to survive a power cut
        finally:
            os.close(folder)
        return Opened(count, torn, tuple(damaged))


def read(path: Path) -> Iterator[Row]:
    """The rows of a ledger in the order of their arrival, without opening it for writing.

    Every row, so the same key may come several times. A torn last line and damaged lines are passed over;
    open a `Ledger` to have them said.
    """
    for number, _, line in _lines(Path(path)):
        row = _parse(Path(path), number, line)
        if row is not None:
            yield row


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Line number (from 1), offset in bytes, and the line with its end."""
    offset = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            yield number, offset, line
            offset += len(line)


def _parse(path: Path, number: int, line: bytes) -> Row | None:
    """The row of a line; None if it is no JSON object (torn or damaged); a `LedgerFault` if it is another
    form of row.

    To pass over rows of another form would ask, and pay for, everything once more.
    """
    try:
        data = json.loads(line)
    except ValueError:
        return None
    if not isinstance(data, dict):
        return None
    try:
        if data.get("v") == LINE_VERSION:
            return Row.model_validate(data)
    except ValidationError as error:
        problem = f"line {number} is no row of a ledger: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}"
    else:
        problem = f"line {number} is a row of version {data.get('v')!r}, this Magister reads version {LINE_VERSION}"
    raise LedgerFault(path, problem, "read it with the Magister that wrote it, or choose another folder")


def _write_all(file: Any, data: bytes) -> None:
    """Write every byte: a raw file may take fewer than it was given."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _take_lock(path: Path) -> int:
    """Lock the ledger for this process; the system frees the lock when the process ends, however it ends."""
    lock = path.with_name(path.name + ".lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip() or "another process"
        os.close(descriptor)
        raise LedgerBusy(path, f"in use by {holder}", "wait for it, or choose another folder") from None
    except OSError as error:
        os.close(descriptor)
        raise LedgerFault(
            path, f"cannot be locked: {error.strerror}", "choose a folder on a file system that has locks"
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    return descriptor
