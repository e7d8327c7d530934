"""Videos are decoded here, those of strangers too: a few at a time, a few waiting, the rest refused."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from ..clips import Clip, EmbeddedClip
from ..decoding import Decoder
from ..manifest import FrameSpec
from ..model import Model
from ..video import read_rgb
from .batcher import BusyError

STILL_SIDE = 480  # pixels, the longer side
TOO_MANY = "too many videos are at work already; try again in a few seconds"
ONE_FRAME = FrameSpec(count=1)  # the middle one

Result = TypeVar("Result")


class Places:
    """So many at a time; who comes then is refused."""

    def __init__(self, count: int) -> None:
        self._free = count

    @contextmanager
    def take(self) -> Iterator[None]:
        if not self._free:
            raise BusyError(TOO_MANY)
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


class Decoders:
    """A pool of threads that refuses work beyond `room`."""

    def __init__(self, threads: int, room: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="video")
        self._room = threading.BoundedSemaphore(room)

    async def run(self, work: Callable[[], Result]) -> Result:
        """A caller that is cancelled gives its turn back; what is being decoded is decoded to its end."""
        if not self._room.acquire(blocking=False):
            raise BusyError(TOO_MANY)
        future = self._pool.submit(work)
        future.add_done_callback(lambda _: self._room.release())
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def embed_upload(model: Model, decoder: Decoder, clip: Clip) -> EmbeddedClip:
    """Decode and embed one file of a stranger."""
    [done] = model.embed_clips([clip], workers=1, decoder=decoder)
    return done


def still_picture(clip: Clip) -> bytes:
    """The middle frame as JPEG. MediaError where no frame can be had."""
    from PIL import Image

    picture = Image.fromarray(read_rgb(clip.path, ONE_FRAME, start=clip.start, end=clip.end).images[0])
    picture.thumbnail((STILL_SIDE, STILL_SIDE))
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=80)
    return encoded.getvalue()
