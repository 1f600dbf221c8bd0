"""nmt-serve: translation over HTTP, on a loopback port."""

import dataclasses
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from nmt import serve
from nmt.decoding import DecodingOptions
from nmt.model_directory import ModelDirectory, load_model
from nmt.serving.batching import Batcher, Full
from nmt.serving.service import Limits, Request, Service
from nmt.translation import words
from nmt.translation.models import Models
from nmt.translation.translator import Translator
from tests.nmt.untrained import untrained

LINES = ["das haus", "", "ein baum steht da", "zu " * 30, "ab"]
SEARCH = DecodingOptions(beam=3, n_best=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("served") / "model", "transformer")


@pytest.fixture(scope="module")
def batches():
    """The lines of each batch that the server translated."""
    return []


@pytest.fixture(scope="module")
def address(model, batches):
    """Of a server in a thread; it stops at the end."""
    connection = serve.listening("127.0.0.1", 0)
    options = serve.Options(
        max_bytes=4000, max_lines=8, max_characters=200, max_beam=4, batch_timeout=200.0
    )
    chosen = Models.of({"model": [str(model)], "max_source": "20"})
    running: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        translate = Service.translate

        def recorded(self, options, lines):
            batches.append(list(lines))
            return translate(self, options, lines)

        patch.setattr(Service, "translate", recorded)
        arguments = (options, SEARCH, chosen, connection, running.append)
        thread = threading.Thread(target=serve.serve, args=arguments)
        thread.start()
        yield f"http://127.0.0.1:{connection.getsockname()[1]}"
        running[0].should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def translations(model):
    """What the translator finds by itself."""
    loaded, contents = load_model(model)
    options = dataclasses.replace(SEARCH, attention=True)
    return Translator([loaded], contents.source, contents.target, options, max_source=20)(LINES)


def ask(address, content=None, method=None):
    """Status and JSON of the answer."""
    if content is not None and not isinstance(content, bytes):
        content = json.dumps(content).encode()
    request = urllib.request.Request(address, content, method=method)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_requests_at_once_are_one_batch_and_answered_as_by_the_translator(
    address, translations, batches
):
    requests = [{"text": line} for line in LINES] + [{"text": LINES}]
    ask(f"{address}/health")  # it is up
    batches.clear()
    with ThreadPoolExecutor(len(requests)) as pool:
        answers = list(pool.map(lambda request: ask(f"{address}/translate", request), requests))
    assert [len(lines) for lines in batches] == [2 * len(LINES)]
    expected = [
        {
            "source": line,
            "cut": found.cut,
            "translations": [
                {
                    "text": hypothesis.text,
                    "score": pytest.approx(hypothesis.score, abs=1e-3),
                    "log_probability": pytest.approx(hypothesis.log_probability, abs=1e-3),
                }
                for hypothesis in found.hypotheses
            ],
        }
        for line, found in zip(LINES, translations, strict=True)
    ]
    assert [len(one["translations"]) for one in expected] == [2, 0, 2, 2, 2]
    assert expected[3]["cut"] == 70
    assert answers[-1] == (200, {"results": expected})
    assert answers[:-1] == [(200, {"results": [one]}) for one in expected]


def test_alignments(address, model, translations):
    status, content = ask(f"{address}/translate", {"text": LINES, "alignments": True})
    assert status == 200
    contents = ModelDirectory(model).read()
    for result, translation in zip(content["results"], translations, strict=True):
        for given, hypothesis in zip(result["translations"], translation.hypotheses, strict=True):
            source = words.words(contents.source, translation.source_ids)
            target = words.words(contents.target, hypothesis.ids)
            assert given["alignment"]["source"] == [word.text for word in source]
            if not result["cut"]:
                assert given["alignment"]["source"] == result["source"].split()
            assert given["alignment"]["target"] == hypothesis.text.split()
            expected = words.attention(source, target, hypothesis.attention)
            shown = np.reshape(given["alignment"]["attention"], expected.shape)
            np.testing.assert_allclose(shown, expected, atol=1e-3)
    assert ask(f"{address}/translate", {"text": []}) == (200, {"results": []})


def test_options_of_a_request():
    default = DecodingOptions(beam=5, n_best=3, length_penalty=0.5)
    for given, beam, n_best in (
        ({}, 5, 3),
        ({"beam": 1}, 1, 1),
        ({"beam": 4}, 4, 3),
        ({"beam": 4, "n_best": 4}, 4, 4),
        ({"n_best": 5}, 5, 5),
    ):
        request = Request.of({"text": "a b", **given}, default, Limits())
        assert request.options == dataclasses.replace(default, beam=beam, n_best=n_best)
        assert (request.lines, request.alignments) == (("a b",), False)


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"{", 400, "the request is no JSON"),
        (b"\xff", 400, "the request is no JSON"),
        (b"[" * 3000, 400, "the request is no JSON"),
        ([], 400, "expected a JSON object such as"),
        ({}, 400, "text: missing"),
        ({"text": 3}, 400, "text: expected a line or a list of lines"),
        ({"text": ["a", None]}, 400, "text[1]: expected text, got NoneType"),
        ({"text": "a\nb"}, 400, "text: control character U+000A at character 2; give a list of"),
        ({"text": ["a", "\ud800"]}, 400, "text[1]: lone surrogate U+D800 at character 1"),
        ({"text": "a", "alignment": True}, 400, "unknown key alignment (did you mean alignments?)"),
        ({"text": "a", "alignments": 1}, 400, "alignments: expected true or false, got 1"),
        ({"text": "a", "beam": "4"}, 400, "beam: expected a whole number from 1, got '4'"),
        ({"text": "a", "beam": True}, 400, "beam: expected a whole number from 1, got True"),
        ({"text": "a", "beam": 2, "n_best": 3}, 400, "n_best: 3 hypotheses cannot come from"),
        ({"text": "a", "beam": 5}, 413, "beam: 5 is more than 4 allowed"),
        ({"text": ["a"] * 9}, 413, "text: 9 lines are more than 8 allowed"),
        ({"text": ["a", "b" * 201]}, 413, "text[1]: 201 characters are more than 200 allowed"),
        (b" " * 100_000, 413, "the request has more than 4,000 bytes"),
    ],
)
def test_wrong_requests(address, content, status, message):
    found, answer = ask(f"{address}/translate", content)
    assert (found, list(answer)) == (status, ["error"])
    assert message in answer["error"]


def test_health_page_and_addresses_that_are_none(address):
    status, health = ask(f"{address}/health")
    assert (status, health["status"], health["waiting"]) == (200, "ok", 0)
    assert health["limits"] == {"bytes": 4000, "lines": 8, "characters": 200, "beam": 4}
    assert (health["beam"], health["n_best"], health["model"]) == (3, 2, "model")
    with urllib.request.urlopen(address) as response:
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        page = response.read().decode()
    assert not re.search(r"(?:src|href|url\()\s*=?\s*[\"']?(?:https?:)?//", page)  # self-contained
    assert ask(f"{address}/nowhere")[0] == 404
    assert ask(f"{address}/translate")[0] == 405  # GET
    assert "POST /translate" in ask(f"{address}/health", {}, "POST")[1]["error"]


def test_a_batcher_groups_by_key_and_bounds_batches():
    calls, started, may_end = [], threading.Event(), threading.Event()

    def work(key, lines):
        calls.append((key, list(lines)))
        started.set()
        may_end.wait()
        if "wrong" in lines:
            raise ValueError("a line is wrong")
        return [f"{key}{line}" for line in lines]

    batcher = Batcher(work, most=3, timeout=0, most_waiting=7)
    first = batcher.submit("a", ["0"])
    started.wait()  # all that follows waits meanwhile
    jobs = [("a", "12"), ("b", "3"), ("a", "4"), ("a", "5"), ("b", ["wrong"])]
    futures = [batcher.submit(key, list(lines)) for key, lines in jobs]
    dropped = batcher.submit("a", ["6"])
    assert batcher.waiting == 7
    with pytest.raises(Full, match="more than 7 lines are waiting"):
        batcher.submit("a", ["7"])
    assert dropped.cancel()
    may_end.set()
    batcher.close()
    assert first.result() == ["a0"]
    assert [future.result() for future in (futures[0], *futures[2:4])] == [
        ["a1", "a2"],
        ["a4"],
        ["a5"],
    ]
    for future in (futures[1], futures[4]):
        with pytest.raises(ValueError, match="a line is wrong"):
            future.result()
    assert calls == [("a", ["0"]), ("a", ["1", "2", "4"]), ("b", ["3", "wrong"]), ("a", ["5"])]
    with pytest.raises(Full, match="shutting down"):
        batcher.submit("a", ["8"])


def test_the_command_ends_when_told_to(model, capfd):
    """Ctrl-C and SIGTERM, both while a request is under way, which is answered."""
    command = [sys.executable, "-m", "nmt.serve", "--model", str(model), "--port", "0"]
    command += ["--batch-timeout", "300", "--log"]
    processes = [
        subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            # What a shell starts in the background ignores Ctrl-C, and so do its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        for _ in range(2)
    ]
    for process, number, code in zip(
        processes, (signal.SIGINT, signal.SIGTERM), (130, 0), strict=True
    ):
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.fullmatch(r"ready: (http://127\.0\.0\.1:(\d+)/)\n", line)
        assert found, line + process.stderr.read()
        taken = ["--model", str(model), "--port", found[2]]
        assert serve.main(taken) == 2
        error = capfd.readouterr().err
        assert error.startswith(
            f"error: --port {found[2]}: cannot be listened on at 127.0.0.1 (Add"
        )
        assert error.count("\n") == 1
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(ask, f"{found[1]}translate", {"text": "das haus"})
            time.sleep(0.1)
            process.send_signal(number)
            assert asked.result()[0] == 200
        assert process.wait() == code
        rest = process.stderr.read()
        assert re.fullmatch(r"127\.0\.0\.1 200 lines=1 ms=\d+\n", rest), rest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--model: missing"),
        (["--model", "absent"], "absent: no model directory"),
        (["--port", "70000"], "--port: expected a port from 0 to 65535, not 70000"),
        (["--beam", "20"], "--beam: 20 is more than --max-beam 10"),
        (["--model", "{m}", "--host", "256.1.2.3"], "--host 256.1.2.3: no such address"),
        (["--sample"], "nmt-serve: unknown option --sample"),
    ],
)
def test_wrong_options(arguments, message, model, capfd):
    given = [argument.replace("{m}", str(model)) for argument in arguments]
    assert serve.main(given) == 2
    error = capfd.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1


def test_a_port_is_taken_as_soon_as_it_is_bound():
    with serve.listening("127.0.0.1", 0) as connection, socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(connection.getsockname())
