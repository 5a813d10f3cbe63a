"""The ceiling: a bare asyncio loop over httpx, which keeps nothing but the answers' texts. See ../generation.py."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import httpx


async def ask(rows: list[dict[str, str]], url: str, concurrency: int, clients: int) -> list[str]:
    """Every row's answer; so many workers, so many to a client."""
    texts: list[str] = [""] * len(rows)
    todo = iter(enumerate(rows))

    async def worker(client: httpx.AsyncClient) -> None:
        for place, row in todo:
            turns = [{"role": "system", "content": row["system"]}, {"role": "user", "content": row["user"]}]
            body = {"model": "stub", "messages": turns, "max_tokens": 512, "temperature": 0}
            response = await client.post(f"{url}/chat/completions", json=body)
            response.raise_for_status()
            texts[place] = response.json()["choices"][0]["message"]["content"]

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    made = [httpx.AsyncClient(timeout=60, limits=limits) for _ in range(clients)]
    await asyncio.gather(*(worker(made[n % clients]) for n in range(concurrency)))
    for client in made:
        await client.aclose()
    return texts


def main(data: str, url: str, folder: str, concurrency: int, clients: int = 1) -> None:
    rows = [json.loads(line) for line in Path(data).read_text().splitlines()]
    started, cpu = time.monotonic(), time.process_time()
    texts = asyncio.run(ask(rows, url, concurrency, clients))
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    print(json.dumps({"rows": sum(bool(text) for text in texts), "seconds": seconds, "cpu": cpu}))


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:]))
