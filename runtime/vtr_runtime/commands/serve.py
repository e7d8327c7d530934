"""`vtr-runtime serve`"""

from __future__ import annotations

from pathlib import Path

import click

from ..console import echo_json, json_option, note
from ..errors import BackendError, UsageError
from .options import BackendChoice, backend_options, bundle_argument


@click.command()
@bundle_argument
@click.option("--index", "index_path", type=click.Path(path_type=Path), help="Index (.vtri) to search.")
@click.option("--ann", is_flag=True, help="Search the graph that `index --ann` made: faster, not quite exact.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to answer on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0: any free one.")
@click.option("--max-upload-mb", default=512, show_default=True, type=click.IntRange(1), help="Largest video.")
@click.option("--timeout", default=30.0, show_default=True, metavar="SECONDS", help="Longest wait for an answer.")
@click.option("--batch", default=64, show_default=True, metavar="N", help="Sentences of one pass; 1: no batching.")
@click.option("--batch-wait-ms", default=2.0, show_default=True, help="How long a sentence waits for others.")
@click.option("--media-root", type=click.Path(path_type=Path), help="Show no file outside this folder.")
@backend_options
@json_option
def serve(
    bundle: Path,
    index_path: Path | None,
    ann: bool,
    host: str,
    port: int,
    max_upload_mb: int,
    timeout: float,
    batch: int,
    batch_wait_ms: float,
    media_root: Path | None,
    backend: BackendChoice,
    as_json: bool,
) -> None:
    """Answer over HTTP: embed sentences and uploaded videos, search INDEX, and a page to search with.

    The address is printed when the service is ready. It ends with SIGTERM or Ctrl-C.

    \b
    vtr-runtime serve bundle/ --index videos.vtri
    curl -s localhost:8080/v1/search -H 'Content-Type: application/json' -d '{"text": "a dog runs", "k": 3}'"""
    _check_packages()
    from ..index import Index, check_space
    from ..model import load
    from ..serve import server
    from ..serve.service import Service
    from ..serve.settings import Settings

    if ann and index_path is None:
        raise UsageError("--ann says how the index is searched; give --index too")
    settings = Settings(
        host=host,
        port=port,
        media_root=media_root,
        max_upload_bytes=max_upload_mb << 20,
        timeout=timeout,
        batch=batch,
        batch_wait=batch_wait_ms / 1000,
    )
    with server.open_socket(settings) as opened:
        model = load(bundle, **backend)
        note(f"backend: {model.backend_choice}")
        index = None
        if index_path is not None:
            index = Index(index_path, ann=ann)
            check_space(index, model.space)
            if index.kind != "video":
                raise UsageError(f"{index_path} holds sentences; give --index one of videos")
            note(f"index: {index.count} clips")
        if not settings.is_local:
            note(f"{host} is not the loopback: whoever reaches it may ask, without a password; put a proxy in front")
        url = server.url_of(opened)
        server.serve(
            Service(model, index, settings), opened, lambda: echo_json({"url": url}) if as_json else click.echo(url)
        )


def _check_packages() -> None:
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise BackendError(f"the service needs more packages ({error}): pip install 'vtr-runtime[serve]'") from error
