"""A web server on this machine that writes down what is posted to it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Receiver:
    """What was asked, and how it is answered."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    """Method and path, headers and body of each."""
    may_answer: threading.Event = field(default_factory=threading.Event)
    """Clear it, and the server hangs until the test is over."""

    @property
    def payloads(self) -> list[Any]:
        return [json.loads(body) for _, _, body in self.requests]


class Handler(BaseHTTPRequestHandler):
    receiver: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.receiver.requests.append((f"{self.command} {self.path}", dict(self.headers), body))
        self.receiver.may_answer.wait()
        self.send_response(self.receiver.status)
        for name, value in {**self.receiver.headers, "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, format: str, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Who hung up early is no news."""


@contextmanager
def serve() -> Iterator[Receiver]:
    receiver = Receiver()
    receiver.may_answer.set()
    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"receiver": receiver}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield receiver
    finally:
        receiver.may_answer.set()
        server.shutdown()
        server.server_close()
        thread.join()
