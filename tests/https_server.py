"""A server for downloads with a certificate of its own, on this machine."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from minicluster import pki
from minicluster.model.spec import LOCALHOST, CertificateSpec

Handler = http.server.BaseHTTPRequestHandler


class Server:
    """What it answers is set by path: content, or a function that answers a request."""

    def __init__(self, port: int) -> None:
        self.url = f"https://{LOCALHOST}:{port}"
        self.answers: dict[str, bytes | Callable[[Handler], None]] = {}
        self.asked: list[str] = []


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Serves within the block; ``ca.pem`` in the folder is what clients must trust."""
    authority = pki.Authority()
    issued = authority.issue(CertificateSpec("", "server", addresses=(LOCALHOST,)))
    for name, content in (("ca", issued.ca), ("cert", issued.certificate), ("key", issued.key)):
        (folder / f"{name}.pem").write_bytes(content)

    class Answers(Handler):
        def do_GET(self) -> None:
            server.asked.append(self.path)
            answer = server.answers.get(self.path)
            if answer is None:
                self.send_error(404)
            elif callable(answer):
                answer(self)
            else:
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    http_server = http.server.ThreadingHTTPServer((LOCALHOST, 0), Answers)
    http_server.daemon_threads = True
    http_server.socket = context.wrap_socket(http_server.socket, server_side=True, do_handshake_on_connect=False)
    server = Server(http_server.server_port)
    thread = threading.Thread(target=http_server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http_server.shutdown()
        http_server.server_close()
        thread.join()
