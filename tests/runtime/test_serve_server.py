"""The service as a process: many clients at once, clients that misbehave, and how it ends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from vtr_runtime.model import Model


@dataclass
class Running:
    process: subprocess.Popen[str]
    port: int
    uploads: Path  # where it keeps what it receives

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def raw(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def post(self, route: str, body: object) -> tuple[int, dict[str, object]]:
        connection = self.connect()
        try:
            connection.request("POST", route, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        connection = self.connect()
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)

    def is_clean(self) -> bool:
        return not list(self.uploads.glob("vtr-upload-*"))


def start(*arguments: object, folder: Path) -> Running:
    command = [sys.executable, "-m", "vtr_runtime.cli", "serve", *map(str, arguments), "--port", "0"]
    environment = {**os.environ, "TMPDIR": str(folder)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=(folder.parent / "stderr").open("w"), text=True, env=environment
    )
    assert process.stdout is not None
    url = process.stdout.readline()
    assert url.startswith("http://127.0.0.1:"), (folder.parent / "stderr").read_text()
    return Running(process, int(url.rstrip("/\n").rpartition(":")[2]), folder)


@pytest.fixture(scope="module")
def server(small_bundle: Path, served_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("serve") / "uploads"
    folder.mkdir()
    limits = ("--max-upload-mb", 1, "--timeout", 2, "--batch-wait-ms", 20)
    running = start(small_bundle, "--index", served_folder / "x.vtri", *limits, folder=folder)
    yield running
    running.process.terminate()
    assert running.process.wait(15) == 0
    assert "Traceback" not in (folder.parent / "stderr").read_text()
    assert running.is_clean()


def test_64_clients_at_once_get_what_the_model_gives(server: Running, small_model: Model) -> None:
    texts = [f"a {colour} {shape} number {i}" for i in range(32) for colour, shape in (("red", "dog"), ("blue", "cat"))]
    passes = server.metric("vtr_batch_sentences_count")
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda text: server.post("/v1/texts", {"texts": [text]}), texts))
    assert [status for status, _ in answers] == [200] * 64
    got = np.array([answer["embeddings"] for _, answer in answers])[:, 0]
    assert np.abs(got - small_model.encode_texts(texts)).max() < 1e-6
    assert 1 <= server.metric("vtr_batch_sentences_count") - passes <= 32  # they went together


def test_one_bad_sentence_does_not_harm_those_beside_it(server: Running) -> None:
    bad = "&" + "amp;" * 60 + "lt;"
    texts = [bad if i % 4 == 0 else f"a dog {i}" for i in range(16)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda text: server.post("/v1/search", {"text": text, "k": 1}), texts))
    assert [status for status, _ in answers] == [422 if text == bad else 200 for text in texts]


def test_an_upload_that_claims_10_gb_is_refused_before_it_is_read(server: Running) -> None:
    with server.raw() as client:
        client.sendall(
            b"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
            b"Content-Length: 10737418240\r\nExpect: 100-continue\r\n\r\n"
        )
        begun = time.monotonic()
        answer = client.recv(1 << 16)
        assert time.monotonic() - begun < 1
        answer += read_all(client)
    assert answer.startswith(b"HTTP/1.1 413 ")  # and not 100
    assert b"larger than 1 MB" in answer


def test_who_is_still_sending_sees_why_it_is_refused(server: Running) -> None:
    """One thread sends without end while the other reads: closing at once would reset both."""
    with server.raw() as client:
        client.sendall(upload_head() + b"Content-Length: 10737418240\r\n\r\n")

        def send() -> None:
            with suppress(OSError):
                while True:
                    client.sendall(b"0" * (1 << 16))

        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(send)
            answer = client.recv(1 << 16)
            assert not sending.done()
            client.shutdown(socket.SHUT_RDWR)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_an_upload_without_end_is_cut_at_the_limit(server: Running) -> None:
    piece = b"10000\r\n" + b"0" * 0x10000 + b"\r\n"
    sent = 0
    with server.raw() as client:
        client.sendall(upload_head() + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(part_head()))
        try:
            while sent < 1 << 30:
                client.sendall(piece)
                sent += len(piece)
        except OSError:  # it hung up
            pass
        answer = read_all(client)
    assert sent < 32 << 20  # the limit, and what lay in sockets
    assert answer.startswith(b"HTTP/1.1 413 ") or answer == b""  # a reset may swallow the answer
    assert eventually(server.is_clean)


def test_a_client_who_leaves_in_the_midst_of_an_upload_leaves_nothing(server: Running) -> None:
    with server.raw() as client:
        client.sendall(upload_head() + b"Content-Length: 900000\r\n\r\n" + part_head() + b"0" * 500_000)
        assert eventually(lambda: any(path.stat().st_size > 100_000 for path in server.uploads.glob("*/upload")))
    assert eventually(server.is_clean)
    assert eventually(lambda: server.metric("vtr_requests_in_flight") == 1)  # the one that asks


def test_uploads_beyond_their_places_are_refused(server: Running) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(server.raw()) for _ in range(17)]
        for client in clients[:16]:
            client.sendall(upload_head() + b"Content-Length: 900000\r\n\r\n" + part_head() + b"0" * 100_000)
        assert eventually(lambda: len(list(server.uploads.glob("*/upload"))) == 16)
        clients[16].sendall(upload_head() + b"Content-Length: 900000\r\n\r\n" + part_head())
        answer = read_all(clients[16])
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in answer.lower()
        assert b"connection: close\r\n" in answer.lower()
    assert eventually(server.is_clean)


def test_a_client_who_leaves_is_not_waited_for(server: Running) -> None:
    gone = 'vtr_requests_total{route="/v1/texts",status="gone"}'
    before = server.metric(gone)
    body = json.dumps({"texts": ["a dog"]}).encode()
    head = b"POST /v1/texts HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    for _ in range(20):
        with server.raw() as client:
            client.sendall(head % len(body) + body)
    assert eventually(lambda: server.metric(gone) > before)
    assert server.post("/v1/texts", {"texts": ["a dog"]})[0] == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /v1/texts HTTP/1.1\r\nHost: localhost\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HTT",
    ],
)
def test_a_head_that_never_ends_is_hung_up_on(server: Running, sent: bytes) -> None:
    with server.raw() as client:
        client.sendall(sent)
        begun = time.monotonic()
        for letter in b"X-Slow: " + b"a" * 100:  # a byte now and then does not help
            time.sleep(0.2)
            try:
                if sent:
                    client.sendall(bytes([letter]))
                client.setblocking(False)
                if client.recv(1 << 16) == b"":
                    break
            except BlockingIOError:
                pass
            except OSError:
                break
            finally:
                client.setblocking(True)
        assert time.monotonic() - begun < 8


@pytest.mark.parametrize("route", [b"/v1/texts", b"/v1/videos"])
def test_a_body_that_drips_is_cut(server: Running, route: bytes) -> None:
    with server.raw() as client:
        client.sendall(
            b"POST " + route + b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
            b"Content-Length: 9000\r\n\r\n" + part_head()
        )
        begun = time.monotonic()
        answer = b""
        while not answer and time.monotonic() - begun < 10:
            client.sendall(b"0")
            client.settimeout(0.3)
            try:
                answer = client.recv(1 << 16)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert eventually(server.is_clean)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n",  # TLS
        b"POST /v1/texts HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"POST /v1/texts HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET /" + b"a" * 100_000,
    ],
)
def test_what_is_no_http_is_answered_and_hung_up_on(server: Running, sent: bytes) -> None:
    with server.raw() as client:
        client.sendall(sent)
        assert read_all(client).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 413 "))


def test_a_port_that_is_taken_is_said(server: Running, small_bundle: Path) -> None:
    command = [sys.executable, "-m", "vtr_runtime.cli", "serve", str(small_bundle), "--port", str(server.port)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: 127.0.0.1:{server.port} cannot be taken (Address already in use); choose another")


def test_it_ends_in_order_though_a_player_holds_its_connection(
    small_bundle: Path, served_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "uploads").mkdir()
    running = start(
        small_bundle, "--index", served_folder / "x.vtri", "--host", "localhost", folder=tmp_path / "uploads"
    )
    with running.raw() as client:
        client.sendall(upload_head() + b"Content-Length: 900000\r\n\r\n" + part_head() + b"0" * 300_000)
        assert eventually(lambda: any(running.uploads.glob("*/upload")))
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(15) == 130
    assert (tmp_path / "stderr").read_text().endswith("interrupted\n")
    assert "Traceback" not in (tmp_path / "stderr").read_text()
    assert running.is_clean()


def upload_head() -> bytes:
    return b"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"


def part_head() -> bytes:
    return b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def read_all(client: socket.socket) -> bytes:
    found = b""
    try:
        while piece := client.recv(1 << 16):
            found += piece
    except OSError:
        pass
    return found


def eventually(condition: object, seconds: float = 10) -> bool:
    assert callable(condition)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False
