"""A socket, and uvicorn on it."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import VtrError
from .app import make_app
from .service import Service
from .settings import Settings

KEEP_ALIVE_SECONDS = 5
SHUTDOWN_SECONDS = 5  # for answers that are on their way; a paused player would keep its connection for ever
SPARE_CONNECTIONS = 256  # idle ones, and those that are still sending a request's head


def open_socket(settings: Settings) -> socket.socket:
    """Take the address before anything slow is done; nobody is answered before `serve`. VtrError where it is taken."""
    host, port = settings.host, settings.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, protocol)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VtrError(
            f"{host}:{port} cannot be taken ({reason}); choose another --port, or 0 for any free one"
        ) from error
    return opened


def url_of(opened: socket.socket) -> str:
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def serve(service: Service, opened: socket.socket, ready: Callable[[], None]) -> None:
    """Answer until SIGTERM, after which this returns, or SIGINT, after which it raises KeyboardInterrupt."""
    settings = service.settings
    config = uvicorn.Config(
        make_app(service),
        http=_protocol(settings.timeout),
        ws="none",
        lifespan="on",
        log_config=None,  # warnings and errors go to standard error, as Python's logging does by itself
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        limit_concurrency=settings.requests + SPARE_CONNECTIONS,
    )
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a client's mistake, which it is told
    # uvicorn ends in order and then raises the signal again for whoever was there before it.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        _Server(config, ready).run(sockets=[opened])
    finally:
        signal.signal(signal.SIGTERM, before)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()


def _protocol(head_seconds: float) -> type[asyncio.Protocol]:
    class PatientProtocol(H11Protocol):
        """Hangs up where a request's head is not there in time, for which uvicorn waits without end."""

        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def _watch_head(self) -> None:
            if self.conn.their_state is not h11.IDLE:
                self._stop_timer()
            elif self._head_timer is None:
                self._head_timer = self.loop.call_later(head_seconds, self.transport.close)

        def _stop_timer(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

    return PatientProtocol
