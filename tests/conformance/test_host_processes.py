"""Hosts in processes of their own: what the protocol carries, and each way in which a process fails."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from vtr_conformance.cases import Case, read_cases
from vtr_conformance.cli import main
from vtr_conformance.corners import corners
from vtr_conformance.hosts import ProcessHost, ProcessOptions, open_command, open_host, open_in_process
from vtr_conformance.hosts import child as child_module
from vtr_conformance.hosts import process as process_module
from vtr_conformance.hosts.child import LOG_BYTES
from vtr_conformance.hosts.errors import HostCrashed, HostError, HostProtocolError, HostTimeout
from vtr_conformance.run import answer_case, run
from vtr_runtime.bundle import Bundle, open_bundle
from vtr_runtime.errors import UsageError
from vtr_runtime.stages import BEFORE_THE_GRAPHS

HERE = Path(__file__).parent
IDS = Case("ids/texts", "ids", {"ids": np.zeros((2, 77), np.int32)}, texts=("a dog", "a cat"))
FEED = {"input_ids": np.ones((2, 5), np.int32)}

Open = Callable[..., ProcessHost]


@pytest.fixture(scope="module")
def bundle(small_bundle: Path) -> Bundle:
    return open_bundle(small_bundle)


@pytest.fixture
def scripted(bundle: Bundle, tmp_path: Path) -> Iterator[Open]:
    """Opens scripted_host.py with a fault; it notes each start in tmp_path/starts."""
    with ExitStack() as stack:

        def opened(fault: str, *, seconds: float = 20.0) -> ProcessHost:
            command = [sys.executable, str(HERE / "scripted_host.py"), fault, str(tmp_path / "starts")]
            options = ProcessOptions(seconds, tmp_path / "logs")
            return stack.enter_context(closing(open_command(bundle, shlex.join(command), options)))

        yield opened


def starts(tmp_path: Path) -> int:
    return len((tmp_path / "starts").read_text())


# What the protocol carries


def test_every_stage_and_graph_is_the_host_in_this_process_to_the_bit(bundle: Bundle) -> None:
    here = open_in_process(bundle, "auto")
    with closing(open_host(bundle, "auto")) as there:
        told = (there.name, there.backend, there.precision, there.note, there.version)
        assert told == (here.name, here.backend, here.precision, here.note, here.version)
        for case in read_cases(bundle):
            want, got = here.answer(case), there.answer(case)
            assert isinstance(want, dict)
            assert isinstance(got, dict)
            assert want.keys() == got.keys()
            for name in want:
                assert want[name].dtype == got[name].dtype, case.id
                np.testing.assert_array_equal(want[name], got[name], case.id)
        for corner in corners(bundle.manifest, (1, 3)):
            start = time.perf_counter()
            outputs, seconds = there.timed(corner.graph, corner.feed)
            assert 0 < seconds < time.perf_counter() - start
            expected = here.run(corner.graph, corner.feed)
            assert outputs.keys() == expected.keys()
            for name in expected:
                np.testing.assert_array_equal(outputs[name], expected[name], corner.name)


def test_a_backend_that_is_not_here_says_so_through_its_process(bundle: Bundle) -> None:
    here = open_in_process(bundle, "onnx-tensorrt")
    with closing(open_host(bundle, "onnx-tensorrt")) as there:
        assert there.note == here.note
        assert [there.answer(case) for case in read_cases(bundle) if case.stage == "aligned"] == [here.note]


def test_a_host_of_graphs_alone_has_its_embedding_stages_made_of_them(bundle: Bundle, scripted: Open) -> None:
    host = scripted("none")
    results = {case.stage: answer_case(host, case) for case in read_cases(bundle)}
    unheard = {stage for stage, result in results.items() if result.hint == "the host does not have this stage"}
    assert unheard == BEFORE_THE_GRAPHS - {"ids"}
    assert results["video_embedding"].hint == results["ranking"].hint == "the host does not run the graph video"
    assert results["text_embedding"].hint.startswith("the graph has no output text_embedding; export with")
    assert results["aligned"].status == "fail"  # zeros are no embedding
    assert results["ids"].where.startswith("ids: shape [2, 77], not")
    assert host.lacks("video") == "the host does not run the graph video"
    assert host.timed("text", FEED)[1] == 0.25


def test_the_bundles_folder_is_put_into_a_command(bundle: Bundle, tmp_path: Path) -> None:
    script = f"import sys, pathlib; pathlib.Path({str(tmp_path / 'seen')!r}).write_text(sys.argv[1])"
    with closing(open_command(bundle, f"{shlex.quote(sys.executable)} -c {shlex.quote(script)} {{bundle}}")):
        assert (tmp_path / "seen").read_text() == str(bundle.folder)


@pytest.mark.parametrize("command", ["", "no-such-program {bundle}", "node 'host.mjs"])
def test_a_command_that_is_none_is_wrong_use(bundle: Bundle, command: str) -> None:
    with pytest.raises(UsageError, match="--host"):
        open_command(bundle, command)


def test_a_backend_that_is_none_is_wrong_use(small_bundle: Path) -> None:
    done = CliRunner().invoke(main, ["run", str(small_bundle), "--backend", "onnx-gpu"])
    assert done.exit_code == 2
    assert "there is no backend 'onnx-gpu'; choose from: auto, onnx-cpu" in done.stderr


# What goes wrong


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("abort", HostCrashed, r"it died of SIGABRT; it said last: a line of the log; its log: .*scripted-zeros\.log"),
        ("kill", HostCrashed, "it died of SIGKILL"),
        ("exit", HostCrashed, "it ended with status 7 before it answered"),
        ("half", HostCrashed, "it ended with status 0 before it answered"),
        ("rubbish", HostProtocolError, "it wrote 'Loading the model...' to standard output"),
        ("list", HostProtocolError, r"it wrote '\[1, 2\]' to standard output"),
        ("flood", HostProtocolError, "its answer is longer than 1048576 bytes and begins with 'xxxx"),
        ("stray", HostProtocolError, "it answered request 1 with the id 99"),
        ("no seconds", HostProtocolError, "is wrong at 'seconds': Field required"),
        ("text seconds", HostProtocolError, "is wrong at 'seconds': Input should be a valid number"),
        ("negative seconds", HostProtocolError, "is wrong at 'seconds': Input should be greater than or equal to 0"),
    ],
)
def test_what_ends_a_process_fails_its_case_and_the_process_is_started_again(
    scripted: Open, tmp_path: Path, fault: str, kind: type[HostError], words: str
) -> None:
    host = scripted(fault)
    with pytest.raises(kind, match=words):
        host.answer(IDS)
    assert starts(tmp_path) == 1
    result = answer_case(host, IDS)
    assert starts(tmp_path) == 2
    assert (result.status, result.host, result.backend) == ("fail", "scripted", "zeros")
    # Twice in a row: nothing more is asked, and nothing is "not run" by it.
    last = answer_case(host, IDS)
    assert starts(tmp_path) == 2
    assert last.status == "fail"
    assert last.where.startswith("nothing more is asked of this host: ")


def test_one_crash_costs_one_case(scripted: Open, tmp_path: Path) -> None:
    host = scripted("once")
    with pytest.raises(HostCrashed, match="SIGABRT"):
        host.answer(IDS)
    for _ in range(3):
        assert host.answer(IDS) != {}
        host.run("text", FEED)
    assert starts(tmp_path) == 2


def test_a_hang_ends_with_all_that_it_started(scripted: Open, tmp_path: Path) -> None:
    with pytest.raises(HostTimeout, match="it did not answer within 1 s and was killed"):
        scripted("hang", seconds=1.0).answer(IDS)
    started = Path("/proc", (tmp_path / "started").read_text(), "stat")
    until = time.monotonic() + 5
    while alive(started) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(started)


def alive(stat: Path) -> bool:
    """A process that ended may wait for its parent to look."""
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_process_that_will_answer_no_more_is_not_waited_for(scripted: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "GRACE", 0.5)
    with pytest.raises(HostCrashed, match="it closed its standard output without an answer"):
        scripted("deaf").answer(IDS)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no file", r"it answered and did not write outputs\.safetensors"),
        ("no tensors", r"outputs\.safetensors that it wrote is not a safetensors file"),
        ("other name", "it gave no tensor ids; it gave: tokens"),
        ("other type", r"its tensor ids is float32 \[2, 77\], and int32 \[any, any\] was asked for"),
        ("other rank", r"its tensor ids is int32 \[154\], and int32 \[any, any\] was asked for"),
        ("says so", "^the disk is gone$"),
    ],
)
def test_a_bad_answer_fails_its_case_alone(scripted: Open, tmp_path: Path, fault: str, words: str) -> None:
    host = scripted(fault)
    for _ in range(3):
        with pytest.raises(HostError, match=words):
            host.answer(IDS)
    assert starts(tmp_path) == 1


def test_rows_that_nobody_asked_for_are_refused(scripted: Open) -> None:
    with pytest.raises(HostProtocolError, match=r"its tensor embedding is float32 \[3, 64\], and float32 \[2, 64\]"):
        scripted("other rows").run("text", FEED)


@pytest.mark.parametrize(
    ("fault", "kind", "words", "begun"),
    [
        ("dies at hello", HostCrashed, "it ended with status 1 before it answered; it said last: no licence found", 2),
        ("silent", HostTimeout, "it did not answer within 1 s and was killed", 2),
        ("version 2", HostProtocolError, "it speaks version 2 of the protocol and this suite version 1", 2),
        ("nameless", HostProtocolError, "is wrong at 'name': Field required", 2),
        ("fp8", HostProtocolError, "is wrong at 'precision': Input should be 'fp32'", 2),
        ("cannot start", HostError, "the host cannot start: the engine is not there", 1),
    ],
)
def test_a_host_that_says_no_hello_fails_every_case(
    scripted: Open, tmp_path: Path, fault: str, kind: type[HostError], words: str, begun: int
) -> None:
    host = scripted(fault, seconds=1.0 if fault == "silent" else 20.0)
    for _ in range(3):
        with pytest.raises(kind, match=words):
            host.answer(IDS)
        assert host.lacks("text") is None  # it fails, rather than not run
    with pytest.raises(kind, match=words):
        host.run("text", FEED)
    assert starts(tmp_path) == begun


def test_a_flood_of_log_stops_nobody_and_fills_no_disk(scripted: Open, tmp_path: Path) -> None:
    host = scripted("log flood")
    assert isinstance(host.answer(IDS), dict)
    host.close()
    assert starts(tmp_path) == 1
    assert not (tmp_path / "logs").exists()  # it did not fail


def test_a_log_is_bounded_and_keeps_its_end(bundle: Bundle, tmp_path: Path) -> None:
    script = "import sys; sys.stderr.write('x' * 99 + '\\n' + ('y' * 99 + '\\n') * 40000); sys.exit('the end')"
    options = ProcessOptions(20.0, tmp_path)
    with closing(ProcessHost([sys.executable, "-c", script], bundle, name="a/b", backend="c d", options=options)):
        text = (tmp_path / "a-b-c-d.log").read_text()
    assert LOG_BYTES < len(text) < 2 * LOG_BYTES
    assert text.startswith("xxx")
    assert text.endswith("the end\n")
    assert "bytes are left out here" in text


def test_later_requests_have_a_limit_by_what_they_took(scripted: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    host = scripted("none", seconds=20.0)
    assert host._limit("ids") == 20
    monkeypatch.setattr(host, "_options", ProcessOptions())
    assert host._limit("ids") == process_module.FIRST_SECONDS
    host.answer(IDS)
    assert host._limit("ids") == process_module.LATER_SECONDS
    host._longest["ids"] = 10.0
    assert host._limit("ids") == 10 * process_module.LATER_TIMES


# The whole suite


def test_a_crash_in_one_graph_leaves_the_rest_of_the_host_and_the_other_hosts(
    small_bundle: Path, tmp_path: Path
) -> None:
    crashing = f"{shlex.quote(sys.executable)} {shlex.quote(str(HERE / 'crashing_host.py'))}"
    arguments = ["run", str(small_bundle), "--host", crashing, "--backend", "onnx-cpu", "--batch", "1:1:2"]
    done = CliRunner().invoke(main, [*arguments, "--report", str(tmp_path)])
    assert done.exit_code == 3
    assert "first stage that moved: frame_embeddings (crashing, onnx-cpu)" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "conformance.jsonl").read_text().splitlines()]
    results, last = [line for line in lines if "stage" in line], lines[-1]
    by_host = {name: [row for row in results if row["host"] == name] for name in ("vtr-runtime", "crashing")}
    assert {row["stage"] for row in by_host["vtr-runtime"] if row["status"] != "pass"} == {"retrieval"}  # no --ckpt
    passed = {row["stage"] for row in by_host["crashing"] if row["status"] == "pass"}
    assert passed >= {"pixels", "ids", "text_embedding", "aligned"}
    failed = [row for row in by_host["crashing"] if row["status"] == "fail"]
    assert failed[0]["where"].startswith("it died of SIGABRT")
    assert [host["name"] for host in last["hosts"]] == ["vtr-runtime", "crashing"]


def test_a_host_that_never_answers_is_no_proof(small_bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "scripted_host.py"), "dies at hello", str(tmp_path / "starts")]
    report = run(small_bundle, commands=(shlex.join(command),), batches=(1, 2))
    assert not report.passed
    assert {result.status for result in report.results if result.stage != "retrieval"} == {"fail"}
