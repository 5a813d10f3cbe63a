"""One process at a time: the lock beside a ledger, and the errors that name what is wrong with one."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path


class LedgerFault(RuntimeError):
    """The ledger cannot be read or written: says which file, what is wrong and what to do."""

    def __init__(self, path: Path, problem: str, remedy: str) -> None:
        self.path, self.problem, self.remedy = path, problem, remedy
        super().__init__(f"{path}: {problem} ({remedy})")


class LedgerBusy(LedgerFault):
    """Another process writes to this ledger."""


def take_lock(path: Path) -> int:
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
