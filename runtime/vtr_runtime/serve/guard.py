"""What every request passes before a route sees it: too many, too large, too slow, gone, or for another host."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from fastapi import HTTPException
from fastapi.responses import JSONResponse

from ..console import printable
from .settings import Settings, is_loopback

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

UPLOAD = "/v1/videos"
# FastAPI's page of the interface loads its parts from elsewhere; all others load nothing from anywhere else.
DOCS = "/docs"
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
LINGER_SECONDS, LINGER_BYTES = 1, 4 << 20
HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}


class Guard:
    """ASGI middleware. What it refuses is answered in the form that the routes use."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings, self._active = app, settings, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = Body(scope, receive, self._settings)
        send = _finished(send, scope["path"], body)
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        self._active += 1
        try:
            await self._pass_on(scope, body, send)
        finally:
            self._active -= 1

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        if self._active >= self._settings.requests:
            return refuse(503, "too many requests at once; try again in a second", {"Retry-After": "1"})
        if self._settings.is_local and not is_loopback(_name_of(_header(scope, b"host"))):
            # A page elsewhere whose name is made to point here could read the answers otherwise (DNS rebinding).
            return refuse(
                421, "this service answers on the loopback alone; a proxy must send 127.0.0.1 or localhost as Host"
            )
        return None

    async def _pass_on(self, scope: Scope, body: Body, send: Send) -> None:
        """Run the app until it ends, the client is gone, or the server ends."""
        handler = asyncio.ensure_future(self._app(scope, body.receive, send))
        watcher = asyncio.ensure_future(body.wait_until_gone())
        with suppress(asyncio.CancelledError):
            await asyncio.wait((handler, watcher), return_when=asyncio.FIRST_COMPLETED)
        for task in (watcher, handler):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


class Body:
    """A request's body within its limits: size, whatever its length claims, and time."""

    def __init__(self, scope: Scope, receive: Receive, settings: Settings) -> None:
        self._receive, self._settings = receive, settings
        upload = scope["path"] == UPLOAD
        self._most = settings.max_upload_bytes if upload else settings.max_json_bytes
        self._claimed = int(_header(scope, b"content-length") or 0)
        self._start, self._count = time.monotonic(), 0
        self._complete, self._gone = asyncio.Event(), asyncio.Event()
        if scope["method"] in ("GET", "HEAD") and not self._claimed and not _header(scope, b"transfer-encoding"):
            self._complete.set()

    @property
    def is_complete(self) -> bool:
        return self._complete.is_set()

    async def receive(self) -> Message:
        """The next message. HTTPException 413 and 408, the former before anything is read where the length says so."""
        if self._complete.is_set():
            await self._gone.wait()
            return {"type": "http.disconnect"}
        if max(self._claimed, self._count) > self._most:
            raise self._too_large()
        # A slow client gets the more time the more it has sent: neither a byte now and then nor a stop holds a place.
        deadline = self._start + self._settings.timeout + self._count / self._settings.least_rate
        try:
            message = await asyncio.wait_for(self._receive(), deadline - time.monotonic())
        except asyncio.TimeoutError:
            raise HTTPException(408, "the body came too slowly; send it again") from None
        if message["type"] == "http.disconnect":
            self._gone.set()
            self._complete.set()
            await asyncio.Event().wait()  # until the guard cancels whoever waits here
        self._count += len(message.get("body", b""))
        if self._count > self._most:
            raise self._too_large()
        if not message.get("more_body", False):
            self._complete.set()
        return message

    async def wait_until_gone(self) -> None:
        """Returns when the client has left. Until its body is read only `receive` can see that."""
        await self._complete.wait()
        while not self._gone.is_set():
            if (await self._receive())["type"] == "http.disconnect":
                self._gone.set()

    async def linger(self) -> None:
        """Drop a little of what still comes, and wait a moment: closing at once would reset the connection, and a
        client that is still sending would not see the answer."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._drop(), LINGER_SECONDS)

    async def _drop(self) -> None:
        dropped = 0
        while dropped < LINGER_BYTES:
            message = await self._receive()
            if not message.get("more_body", False):  # the body's end, or the client's
                return
            dropped += len(message.get("body", b""))
        await asyncio.Event().wait()  # the server reads no more, which holds the client up

    def _too_large(self) -> HTTPException:
        most = f"{self._most / (1 << 20):g} MB"
        return HTTPException(413, f"the body is larger than {most}, the limit here")


def refuse(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The one form of every error; what a client or a file named is made readable first."""
    return JSONResponse({"error": printable(sentence)}, status, headers)


def _finished(send: Send, path: str, body: Body) -> Send:
    """With the headers of every answer, and an end that a client sees which is still sending."""

    async def finish(message: Message) -> None:
        early = not body.is_complete
        if message["type"] == "http.response.start":
            extra = dict(HEADERS)
            if not path.startswith(DOCS):
                extra["content-security-policy"] = CONTENT_POLICY
            if early:  # else the server would read and drop the rest, however much comes
                extra["connection"] = "close"
            pairs = [(key.encode(), value.encode()) for key, value in extra.items()]
            message = {**message, "headers": [*message.get("headers", []), *pairs]}
        elif early and not message.get("more_body", False):
            await send({**message, "more_body": True})
            await body.linger()
            message = {"type": "http.response.body"}
        await send(message)

    return finish


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def _name_of(host: str) -> str:
    """`localhost` of `localhost:8080`, `::1` of `[::1]:8080`."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
