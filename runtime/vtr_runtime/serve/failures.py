"""Every failure is answered as {"error": "one sentence"}, with the status that fits it."""

from __future__ import annotations

import errno
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ..errors import MediaError, TextError, UsageError
from .batcher import BusyError
from .guard import refuse
from .schemas import Failure

# For the description of the interface; FastAPI would promise a shape of its own for 422.
FAILURES: dict[int | str, dict[str, Any]] = {422: {"model": Failure}, "default": {"model": Failure}}
NO_JSON = 'the body is no JSON; send for example {"text": "a dog runs"}'
NO_PATHS = "a client names no file of the server: send a video to /v1/videos, or search by text"


def add_failure_handlers(app: FastAPI) -> None:
    app.add_exception_handler(UsageError, _with_status(400))
    app.add_exception_handler(TextError, _with_status(422))
    app.add_exception_handler(MediaError, _with_status(422))
    app.add_exception_handler(BusyError, _with_status(503, {"Retry-After": "1"}))
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(OSError, _storage)
    app.add_exception_handler(Exception, _unexpected)


def _with_status(status: int, headers: dict[str, str] | None = None) -> Any:
    async def answer(_: Request, error: Exception) -> JSONResponse:
        return refuse(status, str(error), headers)

    return answer


async def _invalid(_: Request, error: Any) -> JSONResponse:
    """The first thing that is wrong, without the value: it may be long, and it is the client's."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])[:100] or "the body"
    if first["type"] == "extra_forbidden":
        return refuse(422, f"there is no field '{where}' here; {NO_PATHS}")
    if first["type"] == "json_invalid":
        return refuse(422, NO_JSON)
    said = first["msg"].removeprefix("Value error, ")
    return refuse(422, f"{where}: {said[:1].lower()}{said[1:]}; /docs shows what is taken")


async def _refused(request: Request, error: Any) -> JSONResponse:
    """Our own sentences as they are, the framework's few words in a sentence."""
    framework = {
        "Not Found": f"there is nothing at {request.url.path[:100]}; see /docs",
        "Method Not Allowed": f"{request.method} is not answered at {request.url.path[:100]}; see /docs",
        "There was an error parsing the body": NO_JSON,
    }
    return refuse(error.status_code, framework.get(error.detail, error.detail), error.headers)


async def _storage(_: Request, error: Any) -> JSONResponse:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return refuse(507, "the server has no room for the upload; try again later")
    raise error


async def _unexpected(_: Request, __: Exception) -> JSONResponse:
    """The server logs the error itself."""
    return refuse(500, "the service failed; its log says why")
