"""Routes: HTTP in front of a `Service`."""

from __future__ import annotations

import asyncio
import mimetypes
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi import Path as InPath
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST

from .. import __version__
from ..clips import Clip
from ..errors import MediaError
from ..index import Hit
from ..sampling import check_cut
from . import schemas
from .failures import FAILURES, add_failure_handlers
from .guard import UPLOAD, Guard
from .metrics import Observed
from .service import Query, Service, name_of
from .uploads import FIELDS, FILE, UploadReader

PAGE = Path(__file__).with_name("page")
RowId = Annotated[int, InPath(ge=0, lt=1 << 63)]
Result = TypeVar("Result")

UPLOAD_SCHEMA = {
    "type": "object",
    "required": [FILE],
    "properties": {FILE: {"type": "string", "format": "binary"}, **{name: {"type": "number"} for name in FIELDS}},
}


def make_app(service: Service) -> Observed:
    """The whole service as an ASGI application."""
    app = FastAPI(
        title="vtr-runtime", version=__version__, lifespan=_working(service), redoc_url=None, responses=FAILURES
    )
    add_failure_handlers(app)
    _add_state(app, service)
    _add_embedding(app, service)
    _add_search(app, service)
    _add_media(app, service)
    app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    return Observed(Guard(app, service.settings), service.metrics)


def _working(service: Service) -> Any:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker = asyncio.create_task(service.batcher.run())
        yield
        worker.cancel()
        with suppress(asyncio.CancelledError):
            await worker
        service.close()

    return lifespan


def _add_state(app: FastAPI, service: Service) -> None:
    model, index = service.model, service.index

    @app.get("/healthz")
    async def health() -> schemas.Health:
        return schemas.Health(
            ok=True,
            space=model.space,
            variant=model.variant,
            backend=model.backend_choice,
            clips=None if index is None else index.count,
        )

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _add_embedding(app: FastAPI, service: Service) -> None:
    space = service.model.space

    @app.post("/v1/texts")
    async def embed_texts(asked: schemas.TextsRequest) -> schemas.Texts:
        """Embed sentences."""
        await run_in_threadpool(service.model.tokenize, asked.texts)  # a bad one must not reach the others' batch
        answer = await _in_time(service, service.ask(Query(asked.texts)))
        return schemas.Texts(embeddings=answer.vectors.tolist(), space=space)

    body = {"required": True, "content": {"multipart/form-data": {"schema": UPLOAD_SCHEMA}}}

    @app.post(UPLOAD, openapi_extra={"requestBody": body})
    async def embed_video(request: Request) -> schemas.Video:
        """Embed a video that is sent here: the part `file`, and perhaps `start` and `end` in seconds."""
        with service.uploads.take(), tempfile.TemporaryDirectory(prefix="vtr-upload-") as folder:
            clip = await _receive_clip(request, Path(folder) / "upload")
            done = await _in_time(service, service.embed_video(clip))
        said = done.message.replace(str(clip.path), "the video")
        if done.embedding is None:
            raise MediaError(said)
        return schemas.Video(
            embedding=done.embedding.tolist(),
            times=done.times.tolist(),
            warnings=[said] if said else [],
            space=space,
        )


def _add_search(app: FastAPI, service: Service) -> None:
    @app.post("/v1/search")
    async def search(asked: schemas.SearchRequest) -> schemas.Search:
        """Find the clips of the index that sentences describe."""
        if service.index is None:
            raise HTTPException(404, "there is nothing to search: the service was started without --index")
        await run_in_threadpool(service.model.tokenize, asked.sentences)
        answer = await _in_time(service, service.ask(Query(asked.sentences, asked.k, asked.moments)))
        results = [
            schemas.Result(text=text, hits=[_shown(hits) for hits in files])
            for text, files in zip(asked.sentences, answer.found, strict=True)
        ]
        return schemas.Search(results=results, space=service.model.space)


def _add_media(app: FastAPI, service: Service) -> None:
    @app.get("/v1/media/{row_id}", response_class=FileResponse)
    async def media(row_id: RowId) -> FileResponse:
        """The file of a hit. `Range` is honoured, so that a player can jump to the moment."""
        clip = await run_in_threadpool(_clip, service, row_id)
        kind = mimetypes.guess_type(clip.path.name)[0] or ""
        # Whatever the index lists, a browser shall not run it as a page.
        return FileResponse(clip.path, media_type=kind if kind.startswith("video/") else "application/octet-stream")

    @app.get("/v1/still/{row_id}", response_class=Response)
    async def still(row_id: RowId) -> Response:
        """A picture of a hit: the middle frame as JPEG, for what a browser cannot play."""
        clip = await run_in_threadpool(_clip, service, row_id)
        try:
            picture = await _in_time(service, service.still(clip))
        except MediaError as error:
            raise MediaError(str(error).replace(str(clip.path), name_of(clip.path))) from error
        return Response(picture, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=300"})


def _clip(service: Service, row_id: int) -> Clip:
    clip = service.clip(row_id)
    if clip is None:
        raise HTTPException(404, f"there is no clip {row_id} here; take ids from /v1/search")
    if not clip.path.is_file() or not os.access(clip.path, os.R_OK):
        raise HTTPException(404, f"the file of clip {row_id}, {name_of(clip.path)}, is gone or cannot be read")
    return clip


async def _receive_clip(request: Request, path: Path) -> Clip:
    reader = UploadReader(request.headers.get("content-type", ""), path)
    try:
        async for piece in request.stream():
            await run_in_threadpool(reader.feed, piece)  # a disk may be slow
        reader.finish()
    finally:
        reader.close()
    start, end = (reader.fields.get(name) for name in FIELDS)
    check_cut(start, end)
    return Clip(path, start, end)


async def _in_time(service: Service, work: Awaitable[Result]) -> Result:
    seconds = service.settings.timeout
    try:
        return await asyncio.wait_for(work, seconds)
    except asyncio.TimeoutError:
        raise HTTPException(
            504, f"there was no answer within {seconds:g} s; ask for less, or start the service with a longer --timeout"
        ) from None


def _shown(hits: list[Hit]) -> schemas.Hit:
    best, *others = hits
    return schemas.Hit(
        **_moment(best),
        name=name_of(best.path),
        media=f"/v1/media/{best.id}",
        still=f"/v1/still/{best.id}",
        others=[schemas.Moment(**_moment(hit)) for hit in others],
    )


def _moment(hit: Hit) -> dict[str, Any]:
    return {"id": hit.id, "score": hit.score, "start": hit.start, "end": hit.end}
