"""Real servers on this machine that receive what Lorasite sends."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


@contextmanager
def serving(server: socketserver.TCPServer) -> Iterator[int]:
    """Run a server in a thread and yield its port."""
    thread = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Hook(HTTPServer):
    """Keeps each request as (path, headers, body) and answers with `status`."""

    def __init__(self, status: int = 204) -> None:
        self.status = status
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), HookHandler)


class HookHandler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        if self.server.status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Keep the output of the tests clean."""


class Drip(socketserver.TCPServer):
    """Answers with one byte of a header now and then, without an end."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), DripHandler)


class DripHandler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        pause = threading.Event()
        try:
            self.request.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not pause.wait(0.02):
                self.request.sendall(b"x")
        except OSError:
            return


class Mailbox(socketserver.TCPServer):
    """An SMTP server that keeps each message as (recipients, content)."""

    def __init__(self) -> None:
        self.messages: list[tuple[list[str], bytes]] = []
        super().__init__(("127.0.0.1", 0), SmtpHandler)


class SmtpHandler(socketserver.StreamRequestHandler):
    server: Mailbox

    def handle(self) -> None:
        recipients: list[str] = []
        self.answer("220 mailbox")
        while line := self.rfile.readline():
            command = line.decode().strip()
            if command.upper().startswith("RCPT"):
                recipients.append(command.partition(":")[2])
            if command.upper() == "DATA":
                self.answer("354 go on")
                content = b"".join(iter(self.rfile.readline, b".\r\n"))
                self.server.messages.append((recipients, content))
            self.answer("221 bye" if command.upper() == "QUIT" else "250 ok")

    def answer(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())
