"""An OpenAI-compatible endpoint on 127.0.0.1 that behaves as it is told, for tests of teachers.

What the model is asked decides what it does: the last turn's text may hold one word of `BEHAVIOURS`, for
example ``[500-once]``. Without one it answers ``echo: `` and the text. Every request's body and headers are
kept.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BEHAVIOURS = (
    "[429-once]", "[429-late]", "[429-silent]", "[500-once]", "[500-always]", "[truncated-once]",
    "[slow-once]", "[refusal]", "[filter]", "[length]", "[thinks]", "[too-long]", "[bad-image]",
    "[drop-once]", "[no-key]", "[html]",
)  # fmt: skip


class StubServer:
    """Use as a context manager; ``url`` is the base URL."""

    def __init__(self) -> None:
        stub = self
        self.bodies: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.asked: Counter[str] = Counter()
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                with stub.lock:
                    stub.under_way += 1
                    stub.most_under_way = max(stub.most_under_way, stub.under_way)
                try:
                    stub._answer(self)
                finally:
                    with stub.lock:
                        stub.under_way -= 1

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def __enter__(self) -> StubServer:
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        content = body["messages"][-1]["content"]
        text = content if isinstance(content, str) else "".join(p.get("text", "<picture>") for p in content)
        with self.lock:
            self.bodies.append(body)
            self.headers.append(dict(handler.headers))
            self.asked[text] += 1
            first = self.asked[text] == 1
        time.sleep(0.01)
        match next((b for b in BEHAVIOURS if b in text), ""):
            case "[429-once]" if first:
                _send(handler, 429, _error("slow down"), {"Retry-After": "0.3"})
            case "[429-late]":
                _send(handler, 429, _error("slow down"), {"Retry-After": "86400"})
            case "[429-silent]":
                _send(handler, 429, _error("quota used up"))
            case "[500-once]" if first:
                _send(handler, 500, _error("oops"))
            case "[500-always]":
                _send(handler, 503, _error("overloaded"))
            case "[truncated-once]" if first:
                _send(handler, 200, b'{"choices": [{"message": {"con')
            case "[slow-once]" if first:
                time.sleep(1.5)
                _send(handler, 200, _completion("late"))
            case "[drop-once]" if first:
                handler.close_connection = True
                handler.connection.shutdown(socket.SHUT_RDWR)
            case "[refusal]":
                _send(handler, 200, _completion(None, refusal="I cannot help with that"))
            case "[filter]":
                _send(handler, 200, _completion("", finish="content_filter"))
            case "[length]":
                _send(handler, 200, _completion('{"entities": [', finish="length"))
            case "[thinks]":
                _send(handler, 200, _completion("42", reasoning_content="six times seven"))
            case "[too-long]":
                _send(
                    handler,
                    400,
                    _error("This model's maximum context length is 8 tokens", "context_length_exceeded"),
                )
            case "[bad-image]":
                _send(handler, 400, _error("Failed to load image: cannot identify image file"))
            case "[no-key]":
                _send(handler, 401, _error(f"wrong key {handler.headers.get('Authorization')}"))
            case "[html]":
                _send(handler, 404, b"<html>not here</html>")
            case _:
                _send(handler, 200, _completion(f"echo: {text}"))


def _completion(text: str | None, finish: str = "stop", **message: str) -> bytes:
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": text, **message},
    }
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}).encode()


def _error(message: str, code: str = "") -> bytes:
    return json.dumps({"error": {"message": message, "code": code}}).encode()


def _send(handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    try:
        handler.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
    except OSError:
        pass  # the client has given up
