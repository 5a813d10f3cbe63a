"""An OpenAI-compatible endpoint that costs next to nothing, for benchmarks: one fixed answer, after a fixed latency.

python benchmarks/stub.py LATENCY_MS [PORT]

It prints its base URL; GET /v1/count says what it was asked, and forgets it. HTTP/1.1 by hand on asyncio's protocols:
under 100 microseconds of processor time a request, so that on two cores the client is what is measured. (For hostile
behaviour see tests/stub_server.py.)
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time

ANSWER = json.dumps({"entities": [{"text": "Ada Lovelace", "type": "PER"}, {"text": "Paris", "type": "LOC"}]})
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
#: Rate limits, for a client that asks for them (curator does).
_LIMITS = "".join(f"x-ratelimit-limit-{what}: 1000000000\r\n" for what in ("requests", "tokens"))


def response(said: object) -> bytes:
    """A whole 200 response."""
    body = json.dumps(said)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{_LIMITS}Content-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


COMPLETION = response(
    {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "stub",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ANSWER}}],
        "usage": {"prompt_tokens": 300, "completion_tokens": 30, "total_tokens": 330},
    }
)


class Counts:
    """What was asked since the last time somebody wanted to know."""

    def __init__(self) -> None:
        self.requests = self.under_way = self.most = 0
        self.cpu = time.process_time()

    def told(self) -> dict[str, float]:
        """The counts, which begin anew: requests, most of them at once, and own processor seconds."""
        now = time.process_time()
        said = {"requests": self.requests, "most_at_once": self.most, "cpu": now - self.cpu}
        self.requests, self.most, self.cpu = 0, self.under_way, now
        return said


class Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, latency: float, counts: Counts) -> None:
        self._latency, self._counts = latency, counts
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (head := self._held.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._held, 0, head + 2)
            end = head + 4 + (int(length[1]) if length else 0)
            if len(self._held) < end:
                return
            first, self._held = self._held[: self._held.find(b"\r\n")], self._held[end:]
            if first.startswith(b"GET"):
                self._transport.write(response(self._counts.told()))
            else:
                self._ask()

    def _ask(self) -> None:
        counts = self._counts
        counts.requests += 1
        counts.under_way += 1
        counts.most = max(counts.most, counts.under_way)
        if self._latency:
            asyncio.get_running_loop().call_later(self._latency, self._answer)
        else:
            self._answer()

    def _answer(self) -> None:
        self._counts.under_way -= 1
        self._transport.write(COMPLETION)


async def serve(latency: float, port: int = 0) -> None:
    """Answer until the process ends; prints the base URL first."""
    counts = Counts()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(latency, counts), "127.0.0.1", port, backlog=1024
    )
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]) / 1000, int(sys.argv[2]) if len(sys.argv) > 2 else 0))
