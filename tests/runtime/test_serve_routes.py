"""The service's routes: what they answer, and the one sentence with which they refuse."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from vtr_runtime.clips import Clip
from vtr_runtime.errors import UsageError
from vtr_runtime.index import Index
from vtr_runtime.model import Model
from vtr_runtime.serve.app import make_app
from vtr_runtime.serve.service import Service
from vtr_runtime.serve.settings import Settings

HERE = "http://127.0.0.1:8080"


def client_of(model: Model, folder: Path | None, **changes: Any) -> TestClient:
    index = None if folder is None else Index(folder / "x.vtri")
    settings = Settings(**changes)
    return TestClient(make_app(Service(model, index, settings)), HERE, raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client(small_model: Model, served_folder: Path) -> Iterator[TestClient]:
    with client_of(small_model, served_folder) as opened:
        yield opened


def test_health_says_what_answers(client: TestClient, small_model: Model) -> None:
    answer = client.get("/healthz")
    assert answer.status_code == 200
    assert answer.json() == {
        "ok": True,
        "space": small_model.space,
        "variant": small_model.variant,
        "backend": small_model.backend_choice,
        "clips": 7,
    }


def test_sentences_are_embedded_as_the_model_does(client: TestClient, small_model: Model) -> None:
    texts = ["a dog", "a cat sleeps on a chair", "ŝercas 東京"]
    answer = client.post("/v1/texts", json={"texts": texts}).json()
    assert answer["space"] == small_model.space
    assert np.abs(np.array(answer["embeddings"]) - small_model.encode_texts(texts)).max() < 1e-6


def test_an_upload_is_embedded_as_the_file_is(client: TestClient, small_model: Model, good_clips: list[Path]) -> None:
    film = good_clips[1]
    answer = client.post("/v1/videos", files={"file": ("../../etc/passwd", film.read_bytes())}, data={"start": "1"})
    [want] = small_model.embed_clips([Clip(film, 1.0)])
    assert answer.status_code == 200, answer.text
    got = answer.json()
    assert np.abs(np.array(got["embedding"]) - want.embedding).max() < 1e-6
    assert got["times"] == pytest.approx(want.times.tolist())
    assert got["warnings"] == []
    assert got["space"] == small_model.space


def test_a_damaged_upload_is_embedded_with_its_warnings(client: TestClient, good_clips: list[Path]) -> None:
    film = bytearray(good_clips[1].read_bytes())
    film[len(film) // 2 : len(film) * 6 // 10] = bytes(len(film) * 6 // 10 - len(film) // 2)
    warnings = client.post("/v1/videos", files={"file": ("x.mp4", bytes(film))}).json()["warnings"]
    assert "cannot be decoded, the nearest earlier one" in warnings[0]


def test_search_equals_the_index(client: TestClient, small_model: Model, served_folder: Path) -> None:
    texts, index = ["a dog", "a cat"], Index(served_folder / "x.vtri")
    answer = client.post("/v1/search", json={"texts": texts, "k": 5}).json()
    assert [result["text"] for result in answer["results"]] == texts
    for result, hits in zip(answer["results"], index.search(small_model.encode_texts(texts), 5), strict=True):
        assert [hit["id"] for hit in result["hits"]] == [hit.id for hit in hits]
        assert [hit["score"] for hit in result["hits"]] == pytest.approx([hit.score for hit in hits], abs=1e-6)
        assert [(hit["start"], hit["end"]) for hit in result["hits"]] == [(hit.start, hit.end) for hit in hits]
        assert result["hits"][0]["media"] == f"/v1/media/{hits[0].id}"


def test_search_for_moments_gives_a_file_once(client: TestClient, small_model: Model, served_folder: Path) -> None:
    [result] = client.post("/v1/search", json={"text": "a dog", "k": 3, "moments": 2}).json()["results"]
    [files] = Index(served_folder / "x.vtri").search_files(small_model.encode_texts(["a dog"]), 3, 2)
    assert [[hit["id"], *(other["id"] for other in hit["others"])] for hit in result["hits"]] == [
        [hit.id for hit in hits] for hits in files
    ]


def test_callers_of_one_batch_get_what_each_asked_for(small_model: Model, served_folder: Path) -> None:
    """One pass serves a deep and a shallow search, a search for moments and one who wants no search at all."""
    from vtr_runtime.serve.service import Query

    index = Index(served_folder / "x.vtri")
    service = Service(small_model, index, Settings())
    asked = [Query(["a"], 2), Query(["b", "c"], 4), Query(["d"], 0), Query(["e"], 2, 2), Query(["f"], 3, 1)]
    answers = service._answer(asked)
    for query, answer in zip(asked, answers, strict=True):
        vectors = small_model.encode_texts(query.texts)
        assert np.abs(answer.vectors - vectors).max() < 1e-6
        ids = [[[hit.id for hit in hits] for hits in files] for files in answer.found]
        if not query.hits:
            assert ids == []
        elif query.moments is None:
            assert ids == [[[hit.id] for hit in hits] for hits in index.search(vectors, query.hits)]
        else:
            want = index.search_files(vectors, query.hits, query.moments)
            assert ids == [[[hit.id for hit in hits] for hits in files] for files in want]


def test_names_are_readable_and_tell_no_folder(client: TestClient, served_folder: Path) -> None:
    answer = client.post("/v1/search", json={"text": "a dog", "k": 7})
    assert str(served_folder) not in answer.text
    assert "caf\\udce9.webm" in [hit["name"] for hit in answer.json()["results"][0]["hits"]]


def test_a_clip_is_served_by_its_id_and_by_parts(client: TestClient, served_folder: Path) -> None:
    film = (served_folder / "bear.webm").read_bytes()
    whole = client.get("/v1/media/1")
    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, film, "video/webm")
    part = client.get("/v1/media/1", headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, film[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(film)}"


def test_a_still_is_the_middle_frame(client: TestClient, served_folder: Path) -> None:
    import av

    answer = client.get("/v1/still/1")  # 0.5 s to 0.75 s
    assert answer.headers["content-type"] == "image/jpeg"
    with av.open(str(served_folder / "bear.webm")) as container:
        frames = [(frame.time or 0.0, frame.to_image()) for frame in container.decode(video=0)]
    part = [time for time, _ in frames if 0.5 <= time < 0.75]
    end = min(time for time, _ in frames if time >= 0.75)
    middle = max((pair for pair in frames if pair[0] <= (part[0] + end) / 2), key=lambda pair: pair[0])[1]
    got, want = (
        np.asarray(picture.convert("L"), float) for picture in (Image.open(io.BytesIO(answer.content)), middle)
    )
    others = [np.abs(np.asarray(picture.convert("L"), float) - got).mean() for _, picture in frames]
    assert np.abs(got - want).mean() == min(others)


def test_what_is_gone_outside_or_unknown_is_not_there(client: TestClient) -> None:
    for address, words in (
        ("/v1/media/4", "gone.webm, is gone"),
        ("/v1/still/4", "gone.webm, is gone"),
        ("/v1/media/7", "no clip 7"),
        ("/v1/media/9223372036854775807", "no clip 922"),
        ("/v1/media/..%2f..%2fetc%2fpasswd", "nothing at"),
        ("/page.css/../../app.py", "nothing at"),
        ("/%2e%2e/app.py", "nothing at"),
        ("/v2", "nothing at /v2"),
    ):
        answer = client.get(address)
        assert answer.status_code == 404, address
        assert words in answer.json()["error"]


@pytest.mark.parametrize("row_id", ["passwd", "-1", "1.5", "9223372036854775808", "%00"])
def test_an_id_that_is_no_id_is_refused(client: TestClient, row_id: str) -> None:
    answer = client.get(f"/v1/media/{row_id}")
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("row_id: input should be ")


def test_nothing_outside_the_media_root_is_shown(small_model: Model, served_folder: Path, tmp_path: Path) -> None:
    with client_of(small_model, served_folder, media_root=served_folder) as client:
        assert client.get("/v1/media/0").status_code == 200
        assert client.get("/v1/media/6").status_code == 404
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(served_folder)
    service = Service(small_model, Index(served_folder / "x.vtri"), Settings(media_root=tmp_path / "root"))
    assert service.clip(0) is None  # it is asked for by its own path
    index = Index(served_folder / "x.vtri")
    index.clip = lambda _: Clip(Path("link/bear.webm"))  # type: ignore[method-assign]
    assert replace_index(service, index).clip(0) is None  # a link that leads out
    index.clip = lambda _: Clip(Path("a/b.webm"))  # type: ignore[method-assign]
    assert replace_index(service, index).clip(0) == Clip((tmp_path / "root" / "a" / "b.webm").resolve())


def replace_index(service: Service, index: Index) -> Service:
    service.index = index
    return service


@pytest.mark.parametrize(
    ("route", "body", "status", "words"),
    [
        ("/v1/search", {"path": "/etc/passwd"}, 422, "no field 'path' here; a client names no file"),
        ("/v1/texts", {"texts": ["a"], "path": "x"}, 422, "no field 'path' here"),
        ("/v1/search", {"text": "a", "texts": ["b"]}, 422, "give either text"),
        ("/v1/search", {}, 422, "give either text"),
        ("/v1/search", {"text": "a", "k": 0}, 422, "k: input should be greater than or equal to 1"),
        ("/v1/search", {"text": "a", "k": 10**9}, 422, "k: input should be less than"),
        ("/v1/search", {"text": "a", "k": "5"}, 422, "k: input should be a valid integer"),
        ("/v1/search", {"text": "a", "moments": 0}, 422, "moments: "),
        ("/v1/texts", {"texts": []}, 422, "texts: list should have at least 1 item"),
        ("/v1/texts", {"texts": ["a"] * 257}, 422, "at most 256 items"),
        ("/v1/texts", {"texts": ["a", "b" * 5_001]}, 422, "texts.1: string should have at most 5000 characters"),
        ("/v1/texts", {"texts": "a"}, 422, "texts: input should be a valid list"),
        ("/v1/texts", ["a"], 422, "the body: "),
        ("/v1/texts", {"texts": ["&" + "amp;" * 60 + "lt;"]}, 422, "still changes after"),
    ],
)
def test_a_body_that_is_not_asked_for_is_refused(
    client: TestClient, route: str, body: object, status: int, words: str
) -> None:
    answer = client.post(route, json=body)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "is no JSON"),
        (b'{"text": "\\ud800"}', "text: input should be a valid string"),
        (b'{"\\ud800": 1, "text": "a"}', "unable to parse"),
        (b"[" * 100_000, "is no JSON"),
        (b"\xff\xfe", "is no JSON"),
        (b'{"text": "\xff"}', "is no JSON"),
        (b"", "the body: field required"),
    ],
)
def test_bytes_that_are_no_json_are_refused(client: TestClient, content: bytes, words: str) -> None:
    answer = client.post("/v1/search", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert words in answer.json()["error"]


def multipart(*parts: tuple[str, bytes], end: bytes = b"--\r\n") -> dict[str, Any]:
    body = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), value)
        for name, value in parts
    )
    return {"content": body + b"--x" + end, "headers": {"Content-Type": "multipart/form-data; boundary=x"}}


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        (multipart(("path", b"/etc/passwd")), 400, "'path' and may have file, start and end"),
        (multipart(("start", b"1")), 400, "no part named 'file'"),
        (multipart(("file", b"a"), ("file", b"b")), 400, "two parts named 'file'"),
        (multipart(("start", b"1"), ("start", b"2")), 400, "two parts named 'start'"),
        (multipart(("start", b"1e"), ("file", b"a")), 400, "'start' is '1e', no number"),
        (multipart(("end", b"9" * 1000), ("file", b"a")), 400, "'end' is no number"),
        (multipart(("start", b"nan"), ("file", b"a")), 400, "start is nan"),
        (multipart(("start", b"3"), ("end", b"2"), ("file", b"a")), 400, "end must lie after start"),
        (multipart(("file", b"a"), end=b""), 400, "ends early"),
        (multipart(("a" * 5000, b"a")), 400, "header"),
        ({"content": b"zzz", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400, "cannot be read"),
        ({"content": b"a", "headers": {"Content-Type": "video/mp4"}}, 400, "as multipart/form-data"),
        ({"json": {"path": "/etc/passwd"}}, 400, "as multipart/form-data"),
        (multipart(("file", b"")), 422, "the video "),
        (multipart(("file", b"no video")), 422, "the video cannot be read as a video"),
    ],
)
def test_an_upload_that_is_none_is_refused(
    client: TestClient, sent: dict[str, Any], status: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    answer = client.post("/v1/videos", **sent)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]
    assert list(tmp_path.iterdir()) == []


def test_too_much_is_refused(small_model: Model, served_folder: Path) -> None:
    with client_of(small_model, served_folder, max_upload_bytes=10_000, max_json_bytes=1000) as client:
        large = client.post("/v1/videos", files={"file": b"0" * 10_000})
        assert (large.status_code, large.json()["error"][:29]) == (413, "the body is larger than 0.009")
        chunked = client.post("/v1/search", content=(b" " * 100 for _ in range(11)))
        assert chunked.status_code == 413
        assert client.post("/v1/search", json={"text": "a" * 900}).status_code == 200


def test_what_takes_too_long_or_finds_no_place_is_refused(
    small_model: Model, served_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setattr("vtr_runtime.serve.service.embed_upload", lambda *_: time.sleep(0.5))
    with client_of(small_model, served_folder, timeout=0.1, decoders=1, uploads=1) as client:
        late = client.post("/v1/videos", files={"file": b"0"})
        assert late.status_code == 504
        assert "no answer within 0.1 s" in late.json()["error"]
        busy = client.post("/v1/videos", files={"file": b"0"})
        assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
        assert "too many videos" in busy.json()["error"]


def test_without_an_index_nothing_is_searched(small_model: Model) -> None:
    with client_of(small_model, None) as client:
        answer = client.post("/v1/search", json={"text": "a dog"})
        assert (answer.status_code, "--index" in answer.json()["error"]) == (404, True)
        assert client.get("/v1/media/0").status_code == 404
        assert client.get("/healthz").json()["clips"] is None


def test_what_nobody_foresaw_tells_no_inside(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "encode_texts", lambda *_: 1 / 0)
    answer = client.post("/v1/texts", json={"texts": ["a"]})
    assert (answer.status_code, answer.json()) == (500, {"error": "the service failed; its log says why"})


def test_a_full_disk_is_said(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vtr_runtime.serve.uploads.UploadReader.feed", full)
    answer = client.post("/v1/videos", files={"file": b"0"})
    assert (answer.status_code, answer.json()["error"][:22]) == (507, "the server has no room")


def test_another_name_for_the_loopback_is_refused(small_model: Model, served_folder: Path) -> None:
    with client_of(small_model, served_folder) as client:
        for host, status in (
            ("evil.example", 421),
            ("127.0.0.1.evil.example", 421),
            ("localhost:1", 200),
            ("[::1]", 200),
        ):
            answer = client.get("/healthz", headers={"Host": host})
            assert answer.status_code == status, host
    with client_of(small_model, served_folder, host="0.0.0.0") as client:
        assert client.get("/healthz", headers={"Host": "search.example"}).status_code == 200


def test_every_answer_carries_the_policy(client: TestClient) -> None:
    for address in ("/", "/page.js", "/healthz", "/v1/media/0", "/nothing"):
        headers = client.get(address).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    assert "http" not in client.get("/").text.replace("http-equiv", "")  # nothing is loaded from elsewhere


def test_the_interface_describes_itself(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) == {
        *("/healthz", "/metrics", "/v1/texts", "/v1/videos", "/v1/search", "/v1/media/{row_id}", "/v1/still/{row_id}")
    }
    failure = described["paths"]["/v1/search"]["post"]["responses"]["422"]["content"]["application/json"]["schema"]
    assert failure == {"$ref": "#/components/schemas/Failure"}
    assert client.get("/docs").status_code == 200


def test_metrics_count_by_route_and_know_no_address(small_model: Model, served_folder: Path) -> None:
    with client_of(small_model, served_folder) as client:
        client.post("/v1/search", json={"text": "a dog"})
        client.post("/v1/texts", json={"texts": ["a", "b"]})
        client.post("/v1/texts", json={"texts": []})
        client.get("/v1/media/1")
        client.get("/some/address")
        client.post("/v1/videos", files={"file": b"no video"})
        lines = client.get("/metrics").text.splitlines()
    for line in (
        'vtr_requests_total{route="/v1/search",status="200"} 1.0',
        'vtr_requests_total{route="/v1/texts",status="422"} 1.0',
        'vtr_requests_total{route="/v1/media/{row_id}",status="200"} 1.0',
        'vtr_requests_total{route="other",status="404"} 1.0',
        'vtr_request_seconds_count{route="/v1/texts"} 2.0',
        "vtr_batch_sentences_sum 3.0",
        "vtr_batch_sentences_count 2.0",
        "vtr_queue_sentences 0.0",
        "vtr_requests_in_flight 1.0",  # this one
        'vtr_videos_total{status="error"} 1.0',
    ):
        assert line in lines, line
    assert not [line for line in lines if "/some/address" in line]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch": 0}, "batch is 0; it must be at least 1"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"batch_wait": -1}, "batch_wait is -1"),
        ({"media_root": Path("nowhere")}, "--media-root nowhere is not a folder"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        replace(Settings(), **changes)


def test_a_still_of_what_is_no_video_is_refused(client: TestClient, served_folder: Path) -> None:
    film = served_folder / "bear.webm"
    kept = film.read_bytes()
    try:
        film.write_bytes(b"no video any more")
        answer = client.get("/v1/still/0")
    finally:
        film.write_bytes(kept)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("bear.webm cannot be read")
    assert os.sep not in answer.json()["error"].split(" ")[0]
