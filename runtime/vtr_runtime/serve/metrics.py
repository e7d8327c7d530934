"""What the service counts, for Prometheus."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
SENTENCES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
GONE = "gone"  # instead of a status: the client left before the answer


class Metrics:
    """Kept in a registry of their own: two services in one process do not meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        route = ("route",)
        self.info = Gauge("vtr_model", "What answers.", ("space", "variant", "backend"), registry=own)
        self.requests = Counter("vtr_requests", "Requests by route and status.", ("route", "status"), registry=own)
        self.seconds = Histogram("vtr_request_seconds", "A request's whole time.", route, buckets=SECONDS, registry=own)
        self.in_flight = Gauge("vtr_requests_in_flight", "Requests that are not answered yet.", registry=own)
        self.batch = Histogram("vtr_batch_sentences", "Sentences of one pass.", buckets=SENTENCES, registry=own)
        self.batch_seconds = Histogram(
            "vtr_batch_seconds", "Time of one pass, search too.", buckets=SECONDS, registry=own
        )
        self.queue = Gauge("vtr_queue_sentences", "Sentences that wait for a pass.", registry=own)
        self.videos = Counter("vtr_videos", "Uploaded videos: ok, warning or error.", ("status",), registry=own)
        ProcessCollector(registry=own)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)


class Observed:
    """ASGI middleware that counts and times what it wraps."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, start = GONE, time.perf_counter()

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, note_status)
            finally:
                # The template, not the address: a client must not be able to make new time series.
                route = getattr(scope.get("route"), "path", "other")
                self._metrics.requests.labels(route, status).inc()
                self._metrics.seconds.labels(route).observe(time.perf_counter() - start)
