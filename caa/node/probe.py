"""The health endpoints for the kubelet: `/startup` and `/healthz` by HTTP on the loopback, nothing more."""

import asyncio
from collections.abc import Callable, Mapping

from caa.errors import StateError

HOST = "127.0.0.1"
_LONGEST_HEAD = 8192  # bytes; the kubelet sends about 150
_PATIENCE = 5.0  # seconds for a whole request
_REASONS: Mapping[int, str] = {200: "OK", 400: "Bad Request", 404: "Not Found", 503: "Service Unavailable"}

Question = Callable[[], str]  # "" when all is well, else a sentence


class Probe:
    """Answers 200 when the question of a path has the answer "", else 503 with the sentence."""

    def __init__(self, questions: Mapping[str, Question]) -> None:
        self._questions = questions
        self._server: asyncio.Server | None = None

    async def listen(self, port: int) -> None:
        """Listen on the loopback; port 0 takes a free one. Raises `StateError` naming PROBE_PORT."""
        try:
            self._server = await asyncio.start_server(self._serve, HOST, port, limit=_LONGEST_HEAD)
        except OSError as error:
            raise StateError(f"PROBE_PORT {port} cannot be used: {error.strerror}") from error

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening; twice is once."""
        if self._server is not None:
            self._server.close()

    def answer(self, request_line: str) -> tuple[int, str]:
        """Status and text for the first line of a request."""
        words = request_line.split()
        if len(words) != 3 or words[0] not in ("GET", "HEAD") or not words[2].startswith("HTTP/1."):
            return 400, "GET /startup or /healthz by HTTP/1.1"
        question = self._questions.get(words[1].partition("?")[0])
        if question is None:
            return 404, "there are " + ", ".join(sorted(self._questions))
        problem = question()
        return (503, problem) if problem else (200, "ok")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                status, text = self.answer(head.split(b"\r\n", 1)[0].decode("latin-1"))
                writer.write(_response(status, text))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asks badly gets no answer
        finally:
            writer.close()


def _response(status: int, text: str) -> bytes:
    body = text.encode() + b"\n"
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
