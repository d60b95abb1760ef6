"""An OpenAI-compatible server that fails as told: standard library only, one thread per request."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD = {"reason": "adds", "scores": {"correctness": 9, "clarity": 8, "efficiency": 7, "robustness": 6, "honesty": 10}}


class FaultServer:
    """`script` maps (request number from 0, request body) to a behaviour; every request is kept in `requests`."""

    def __init__(self, script: Callable[[int, dict[str, Any]], dict[str, Any]]) -> None:
        self.requests: list[dict[str, Any]] = []
        self.in_flight = self.most_in_flight = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    number = len(outer.requests)
                    outer.requests.append(body)
                    outer.in_flight += 1
                    outer.most_in_flight = max(outer.most_in_flight, outer.in_flight)
                try:
                    self.behave(script(number, body), body)
                except (BrokenPipeError, ConnectionResetError):
                    pass
                finally:
                    with outer._lock:
                        outer.in_flight -= 1

            def do_GET(self) -> None:
                self.reply(200, b'{"object": "list", "data": []}')

            def behave(self, plan: dict[str, Any], body: dict[str, Any]) -> None:
                time.sleep(plan.get("delay", 0))
                if "status" in plan:
                    return self.reply(plan["status"], json.dumps(plan.get("error", {"error": {"message": "no"}})).encode(), plan.get("headers", {}))
                if "raw" in plan:
                    return self.reply(200, plan["raw"])
                content = plan.get("content", json.dumps(GOOD))
                choice = {"index": 0, "finish_reason": plan.get("finish", "stop"), "message": {"role": "assistant", "content": content}}
                answer = {"id": "1", "object": "chat.completion", "created": 0, "model": plan.get("model", body["model"]), "choices": [choice]}
                if plan.get("usage", True):
                    answer["usage"] = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
                data = json.dumps(answer).encode()
                if "cut" in plan:
                    self.reply(200, data, {}, sent=plan["cut"])
                    self.close_connection = True
                    return self.connection.shutdown(socket.SHUT_RDWR)
                self.reply(200, data)

            def reply(self, status: int, data: bytes, headers: dict[str, str] | None = None, sent: int | None = None) -> None:
                self.send_response(status)
                for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[:sent])
                self.wfile.flush()

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 256
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(poll_interval=0.02), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
