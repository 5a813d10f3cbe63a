"""What the endpoint can bear: plain sockets, one request over and over, of each response only its length looked at.

See ../generation.py.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit


async def ask(bodies: Iterator[bytes], url: str) -> int:
    """One connection, until there is no body left; the number of responses."""
    at = urlsplit(url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    head = f"POST {at.path}/chat/completions HTTP/1.1\r\nHost: {at.netloc}\r\nContent-Length: %d\r\n\r\n".encode()
    count = 0
    for body in bodies:
        writer.write(head % len(body) + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(answer[answer.rindex(b":") + 1 :]))
        count += 1
    writer.close()
    return count


async def main(data: str, url: str, folder: str, concurrency: str) -> None:
    lines = Path(data).read_text().splitlines()
    bodies = iter([json.dumps({"messages": json.loads(line)["user"]}).encode() for line in lines])
    started, cpu = time.monotonic(), time.process_time()
    counts = await asyncio.gather(*(ask(bodies, url) for _ in range(int(concurrency))))
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    print(json.dumps({"rows": sum(counts), "seconds": seconds, "cpu": cpu}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
