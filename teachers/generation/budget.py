"""What a run may cost: estimated before the first call, counted live, a hard stop, right after a resume.

A request is only handed to the teacher if what was spent, what is under way and the request itself fit into the
budget, each request under way at its estimate: the prompt, and an answer of full length. So the budget is kept up to
the error of the prompts' estimate, whatever the concurrency. Cached prompt tokens are counted at the full price.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated

from pydantic import Field

from ...tasks.record import Record
from ...tasks.task import DataFault
from ..ledger.ledger import Ledger, read
from ..ledger.row import Row, uncounted
from ..teacher import Reply, Request, Teacher
from ..tokens import BYTES_A_TOKEN, TOKENS_A_PICTURE, count_tokens, text_tokens

Amount = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]


class Budget(Record):
    """Limits over all runs on one ledger, and prices; None is no limit, or an unknown price.

    Attributes:
        tokens: read and written, together.
        usd: dollars; needs both prices.
        price_in, price_out: dollars per million tokens read and written.
    """

    tokens: Annotated[int, Field(ge=0)] | None = None
    usd: Amount | None = None
    price_in: Amount | None = None
    price_out: Amount | None = None

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return self.tokens is not None or self.usd is not None

    def check(self) -> None:
        """Refuse, by a `DataFault`, a limit in dollars without prices."""
        if self.usd is not None and self.cost(0, 0) is None:
            raise DataFault(
                "the budget in dollars",
                "the price is unknown",
                "give --price-in and --price-out, dollars per million tokens (0 for a model of your own)",
            )

    def cost(self, read: int, written: int) -> Decimal | None:
        """Dollars for so many tokens; None where a price is unknown."""
        if self.price_in is None or self.price_out is None:
            return None
        return (read * self.price_in + written * self.price_out) / 1_000_000


@dataclass(frozen=True)
class Estimate:
    """What the requests to ask will use: prompts as counted, answers at most.

    Attributes:
        requests: how many.
        prompt_tokens: about so many will be read.
        completion_tokens: at most so many will be written (every answer of full length).
        usd: at most so many dollars; None where a price is unknown.
        rule: how prompts were counted, in words.
    """

    requests: int
    prompt_tokens: int
    completion_tokens: int
    usd: Decimal | None
    rule: str

    def __str__(self) -> str:
        said = f"{self.requests:,} requests read about {self.prompt_tokens:,} tokens ({self.rule})"
        return f"{said} and write at most {self.completion_tokens:,}; {dollars(self.usd, 'at most ')}"


class Meter:
    """Counts what a run spends against its budget.

    Args:
        teacher: its ``count_tokens(request)`` counts prompts, if it has one.
        read, written: tokens that earlier runs on the same ledger spent.
    """

    def __init__(self, budget: Budget, teacher: Teacher, read: int = 0, written: int = 0) -> None:
        self.budget, self.read, self.written = budget, read, written
        counter: Callable[[Request], int] | None = getattr(teacher, "count_tokens", None)
        self._count = counter or count_tokens
        self._rule = (
            "by the teacher's own tokenizer"
            if counter
            else f"{BYTES_A_TOKEN} bytes a token, {TOKENS_A_PICTURE:,} tokens a picture"
        )
        self._prompts: dict[str, int] = {}
        self._under_way = [0, 0]

    def estimate(self, requests: Iterable[Request]) -> Estimate:
        """What these requests will use."""
        costs = [self._cost(request) for request in requests]
        read, written = (sum(column) for column in zip(*costs, strict=True)) if costs else (0, 0)
        return Estimate(len(costs), read, written, self.budget.cost(read, written), self._rule)

    def fits(self, request: Request) -> bool:
        """Whether the request may still be asked, if everything under way comes out at its estimate."""
        if not self.budget.limited:
            return True
        cost = self._cost(request)
        read, written = self.read + self._under_way[0] + cost[0], self.written + self._under_way[1] + cost[1]
        if self.budget.tokens is not None and read + written > self.budget.tokens:
            return False
        usd = self.budget.cost(read, written)
        return self.budget.usd is None or (usd is not None and usd <= self.budget.usd)

    def start(self, request: Request) -> None:
        """The request is handed to the teacher."""
        self._reserve(request, 1)

    def settle(self, request: Request, reply: Reply | Row) -> bool:
        """Its reply came. Where the engine counted no tokens they are estimated; returns whether it counted."""
        self._reserve(request, -1)
        if uncounted(reply):
            self.spend(self._cost(request)[0], text_tokens(reply.text + reply.reasoning))
            return False
        self.spend(reply.usage.prompt_tokens, reply.usage.completion_tokens)
        return True

    def spend(self, read: int, written: int) -> None:
        """So many tokens were spent."""
        self.read += read
        self.written += written

    @property
    def usd(self) -> Decimal | None:
        """Dollars spent by all runs on this ledger; None where a price is unknown."""
        return self.budget.cost(self.read, self.written)

    @property
    def left(self) -> Budget:
        """What may still be spent, at the same prices."""
        budget, usd = self.budget, self.usd
        tokens = None if budget.tokens is None else max(0, budget.tokens - self.read - self.written)
        dollars_left = None if budget.usd is None or usd is None else max(Decimal(0), budget.usd - usd)
        return budget.model_copy(update={"tokens": tokens, "usd": dollars_left})

    def __str__(self) -> str:
        budget, said = self.budget, f"{self.read + self.written:,}"
        said += f" of {budget.tokens:,} tokens" if budget.tokens is not None else " tokens"
        return f"{said}, {dollars(self.usd)}" + (f" of ${budget.usd:,f}" if budget.usd is not None else "")

    def prompt_tokens(self, request: Request) -> int:
        """What the prompt is estimated at."""
        return self._cost(request)[0]

    def _reserve(self, request: Request, times: int) -> None:
        read, written = self._cost(request)
        self._under_way[0] += times * read
        self._under_way[1] += times * written

    def _cost(self, request: Request) -> tuple[int, int]:
        if request.key not in self._prompts:
            self._prompts[request.key] = self._count(request)
        return self._prompts[request.key], request.prompt.max_tokens


def resumed(budget: Budget, teacher: Teacher, ledger: Ledger, requests: Sequence[Request]) -> Meter:
    """A meter that knows what earlier runs spent; what their engine did not count is estimated."""
    meter = Meter(budget, teacher, ledger.spent.prompt_tokens, ledger.spent.completion_tokens)
    if ledger.spent.uncounted:
        asked = {request.key: request for request in requests}
        for row in filter(uncounted, read(ledger.path)):
            prompt = meter.prompt_tokens(asked[row.key]) if row.key in asked else 0
            meter.spend(prompt, text_tokens(row.text + row.reasoning))
    return meter


def dollars(usd: Decimal | None, before: str = "") -> str:
    """``$1.2345``, or that the price is unknown."""
    return "price unknown (give --price-in and --price-out)" if usd is None else f"{before}${usd:,.4f}"
