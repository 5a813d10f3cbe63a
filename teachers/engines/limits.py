"""How fast an endpoint may be asked: concurrency by AIMD, requests and tokens a minute, and when to stop.

A `Gate` stands before the wire. It lets a call through when the concurrency that the endpoint has shown to bear
(`Width`), the limits that the user names (`Bucket`) and the last cool-down allow it, in the order of arrival. What
the calls ended with is told to it, and it draws the consequences: a success widens, a 429 narrows and cools down, a
high rate of errors closes the gate for all but one probe at a time, and an endpoint that stays so is given up
(`EndpointDown`).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

#: Concurrency to begin with: doubled every round trip until the first 429.
START = 16
#: After the first 429: one more at once after so many successes in a row.
RAISE_AFTER = 25
#: What a 429 leaves of the concurrency.
CUT = 0.75
#: The gate closes when half of the last `WINDOW` calls failed, and at least `LEAST` did.
WINDOW, LEAST = 50, 10
#: So many failed probes, and an endpoint that has never answered is given up.
NEVER = 5
#: Longest pause of our own choice, in seconds.
LONGEST = 60.0


class EndpointDown(RuntimeError):
    """The endpoint answers nobody (or not this key): says how many calls failed, and why."""


def backoff(failed: int, base: float = 0.5, longest: float = 30.0) -> float:
    """Seconds to wait after so many failed tries: exponential with full jitter, so that clients spread out."""
    return random.uniform(0.0, min(longest, base * 2.0 ** (min(failed, 20) - 1)))


class Bucket:
    """A token bucket: never more than ``per_minute`` in any 60 seconds.

    A twentieth of the limit may pass at once; the rest flows in. A single amount larger than that passes when the
    bucket is full and is paid off afterwards, so that a minute may hold that much more.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        if not per_minute >= 1:
            raise ValueError(f"a limit of {per_minute} a minute lets nothing pass; 1 is the least")
        self.size = max(1.0, per_minute / 20)
        self.rate = (per_minute + 1 - self.size) / 60
        self._clock, self._level, self._at = clock, self.size, clock()

    def wait(self, amount: float) -> float:
        """Seconds until ``amount`` may pass."""
        now = self._clock()
        self._level = min(self.size, self._level + (now - self._at) * self.rate)
        self._at = now
        return max(0.0, (min(amount, self.size) - self._level) / self.rate)

    def take(self, amount: float) -> None:
        """Let it pass. A negative amount gives back what was estimated too high."""
        self._level = min(self.size, self._level - amount)


class Width:
    """How many calls may be under way: additive increase, multiplicative decrease (AIMD).

    It starts at `START` and grows by one a success until the first 429, then by one after `RAISE_AFTER` successes
    in a row, up to ``most``. Only the first 429 of a burst cuts it: calls that were sent before the last cut say
    nothing new.
    """

    def __init__(self, most: int) -> None:
        if most < 1:
            raise ValueError(f"a concurrency of {most} asks nothing; 1 is the least")
        self.most, self.now = most, min(START, most)
        self.cuts = 0
        self._row = 0

    def success(self) -> None:
        """A call was answered."""
        self._row += 1
        if self.now < self.most and (self.cuts == 0 or self._row >= RAISE_AFTER):
            self.now, self._row = self.now + 1, 0

    def slow_down(self, sent_after: int) -> bool:
        """A 429 to a call sent when there were ``sent_after`` cuts; whether it begins a burst (and cuts)."""
        self._row = 0
        if sent_after < self.cuts:
            return False
        self.cuts, self.now = self.cuts + 1, max(1, int(self.now * CUT))
        return True


class Health:
    """The last calls, good and bad, and since when nothing good has come."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: deque[str] = deque(maxlen=WINDOW)
        self._bad = 0
        self.ever = False
        self.closed = False
        self.failed_probes = 0
        self._since: float | None = None
        self._detail = ""

    def success(self) -> None:
        """A call was answered: whatever was wrong is over."""
        self.ever, self._since, self.failed_probes = True, None, 0
        if self.closed:
            self.closed, self._bad = False, 0
            self._last.clear()
        self._note("")

    def trouble(self, detail: str) -> None:
        """A 429: no error, but nothing good either."""
        self._since = self._clock() if self._since is None else self._since
        self._detail = detail

    def error(self, kind: str, detail: str, unreachable: bool = False) -> None:
        """A call failed in a way that speaks against the endpoint; ``kind`` is what such failures are counted by.

        One that cannot be reached at all closes the gate at once: no further call can fare better.
        """
        self._note(kind)
        self._detail = detail
        often = self._bad >= LEAST and 2 * self._bad >= len(self._last)
        if (often or unreachable) and not self.closed:
            self.closed = True
            self.trouble(detail)

    def gone(self, patience: float) -> str:
        """Why the endpoint is to be given up, or nothing.

        One that has never answered is given up after `NEVER` failed probes, any other after ``patience`` seconds
        without an answer.
        """
        if self._since is None:
            return ""
        never = not self.ever and self.failed_probes >= NEVER
        if not never and self._clock() - self._since <= patience:
            return ""
        kinds = Counter(kind for kind in self._last if kind)
        said = f"{self._bad} of the last {len(self._last)} calls failed" if self._last else "no call was answered"
        counted = ", ".join(f"{n} x {kind}" for kind, n in kinds.most_common(3))
        silent = "it never answered" if not self.ever else f"no answer for {self._clock() - self._since:.0f} s"
        return f"{said}{f' ({counted})' if counted else ''}, {silent}; the last said: {self._detail}"

    def _note(self, kind: str) -> None:
        if len(self._last) == WINDOW:
            self._bad -= bool(self._last[0])
        self._last.append(kind)
        self._bad += bool(kind)


class Limits:
    """What is known and wanted of an endpoint; lives as long as its teacher.

    Args:
        concurrency: most calls under way at once.
        rpm, tpm: requests and tokens a minute, or None for no limit of ours.
        patience: seconds without an answer after which the endpoint is given up; also the longest ``Retry-After``
            that is waited for.
    """

    def __init__(
        self, concurrency: int, rpm: float | None = None, tpm: float | None = None, patience: float = 300.0
    ) -> None:
        self.width, self.health, self.patience = Width(concurrency), Health(), patience
        self.requests = Bucket(rpm) if rpm is not None else None
        self.tokens = Bucket(tpm) if tpm is not None else None
        self.resume_at = 0.0
        self.bursts = 0


@dataclass(frozen=True, eq=False, slots=True)
class Pass:
    """A call that was let through: with how many cuts of the concurrency before it."""

    cuts: int


class Gate:
    """Lets calls through, in the order of arrival, as `Limits` allow. One event loop's own.

    `enter` before a call and `leave` after it, whatever happened; between the two, what happened: `success`,
    `slow_down` or `error`. While the gate is closed, one call sent since goes at a time (the probe), however many older
    ones are still open: they may hang for long, and what they end with says nothing new.
    """

    def __init__(self, limits: Limits, name: str = "endpoint") -> None:
        self.limits, self.name = limits, name
        self.under_way = 0
        self._probe: Pass | None = None
        self._waiting: deque[tuple[asyncio.Future[Pass], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._stop: Exception | None = None

    async def enter(self, tokens: float = 0.0) -> Pass:
        """Wait until a call of about so many tokens may go.

        Raises:
            EndpointDown: the endpoint was given up.
        """
        if self._stop is not None:
            raise self._stop
        if not self._waiting and self._wait(tokens) <= 0:
            return self._admit(tokens)
        turn: asyncio.Future[Pass] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, tokens))
        self._open()
        return await turn

    def leave(self, call: Pass, estimated: float = 0.0, used: float | None = None) -> None:
        """A call is over; ``used`` are the tokens that it took in truth, where the endpoint said so."""
        self.under_way -= 1
        if call is self._probe:
            self._probe = None
        if used is not None and self.limits.tokens is not None:
            self.limits.tokens.take(used - estimated)
        if self._waiting:
            self._open()

    def success(self) -> None:
        """The call was answered."""
        self.limits.bursts = 0
        self.limits.health.success()
        self.limits.width.success()

    def slow_down(self, call: Pass, retry_after: float | None, detail: str) -> None:
        """The call met a 429: fewer at once, and all wait (see the module)."""
        limits, width = self.limits, self.limits.width
        limits.health.trouble(detail)
        before = width.now
        if width.slow_down(call.cuts):
            limits.bursts += 1
            own = min(LONGEST, 2.0 ** (limits.bursts - 1))
            pause = own * random.uniform(0.5, 1) if retry_after is None else retry_after + random.uniform(0, own / 10)
            source = "no Retry-After" if retry_after is None else f"Retry-After {retry_after:g} s"
            fewer = f"{before} -> {width.now} at once"
            log.warning("%s says 429 (%s): %s, all wait %.1f s", self.name, source, fewer, pause)
            self.cool_down(pause)
        elif retry_after is not None:
            self.cool_down(retry_after)
        self._judge(call)

    def error(self, call: Pass, kind: str, detail: str, unreachable: bool = False) -> None:
        """The call failed in a way that speaks against the endpoint (see `Health.error`)."""
        health = self.limits.health
        was_closed = health.closed
        health.error(kind, detail, unreachable)
        if health.closed and not was_closed:
            log.warning("%s fails (%s): one call at a time until it answers again", self.name, detail)
            self._probe = None
        health.failed_probes += call is self._probe
        if health.closed and (not was_closed or call is self._probe):
            self.limits.bursts += 1
            self.cool_down(backoff(self.limits.bursts) + 0.1)
        self._judge(call)

    def cool_down(self, seconds: float) -> None:
        """Nothing goes out for so long."""
        self.limits.resume_at = max(self.limits.resume_at, time.monotonic() + seconds)

    @property
    def closed(self) -> bool:
        """Whether only probes go out."""
        return self.limits.health.closed

    def stop(self, error: Exception) -> None:
        """Let nothing through any more; calls under way may end."""
        self._stop = self._stop or error
        while self._waiting:
            turn, _ = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(self._stop)

    @property
    def stopped(self) -> Exception | None:
        """Why nothing goes through any more."""
        return self._stop

    def _judge(self, call: Pass) -> None:
        """Give the endpoint up where that is due: closed, by what the probe met; else when no other call is open."""
        counts = call is self._probe if self.closed else self.under_way <= 1
        if counts and (why := self.limits.health.gone(self.limits.patience)):
            self.stop(EndpointDown(f"{self.name}: {why}"))

    def _wait(self, tokens: float) -> float:
        """Seconds until such a call may go; infinite while another has to end first."""
        limits = self.limits
        if self._probe is not None if limits.health.closed else self.under_way >= limits.width.now:
            return float("inf")
        seconds = limits.resume_at - time.monotonic()
        if limits.requests is not None:
            seconds = max(seconds, limits.requests.wait(1))
        if limits.tokens is not None:
            seconds = max(seconds, limits.tokens.wait(tokens))
        return seconds

    def _admit(self, tokens: float) -> Pass:
        call = Pass(self.limits.width.cuts)
        self.under_way += 1
        if self.closed:
            self._probe = call
        if self.limits.requests is not None:
            self.limits.requests.take(1)
        if self.limits.tokens is not None:
            self.limits.tokens.take(tokens)
        return call

    def _open(self) -> None:
        """Let the first in the line go if they may, else look again when the time has come."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            turn, tokens = self._waiting[0]
            if turn.done():  # cancelled
                self._waiting.popleft()
                continue
            seconds = self._wait(tokens)
            if seconds > 0:
                if seconds < float("inf"):
                    self._timer = asyncio.get_running_loop().call_later(seconds + 0.001, self._open)
                return
            self._waiting.popleft()
            turn.set_result(self._admit(tokens))
