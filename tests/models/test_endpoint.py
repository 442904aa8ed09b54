"""Against a real HTTP server in a thread of this process."""

import email.utils
import http.server
import json
import threading
import time

import pytest

from metagdpo.errors import ConfigError, EndpointError, ModelError
from metagdpo.models.endpoint import Endpoint, _retry_after_s
from metagdpo.models.port import Message, Request, Sampling
from metagdpo.models.recorded import Recorded

SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_new_tokens=16)


def answer(text="4", reason="stop"):
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": reason}
    return 200, json.dumps({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}), {}


@pytest.fixture
def server():
    """Answers with `server.script[n]` to the n-th request, then with the last one for ever; keeps what it was sent."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                made.seen.append((self.path, dict(self.headers), body))
                status, text, headers = made.script[min(len(made.seen), len(made.script)) - 1]
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(text.encode()))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    lock = threading.Lock()
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.script, made.seen = [answer()], []
    made.url = f"http://127.0.0.1:{made.server_port}/v1"
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def asks(n):
    return [Request(messages=(Message(role="user", content=f"q{k}"),), seed=2**40 + k) for k in range(n)]


def endpoint(server, **settings):
    return Endpoint(server.url, "big", **{"concurrency": 2, "retries": 2, "first_wait_s": 0.01, **settings})


def test_every_question_is_answered_and_sent_as_the_protocol_says(server):
    model = endpoint(server)
    found = dict(model.complete(asks(5), SAMPLING))
    assert {k: (c.text, c.finish_reason, c.token_ids) for k, c in found.items()} == dict.fromkeys(
        range(5), ("4", "stop", ())
    )
    path, headers, body = server.seen[0]
    assert path == "/v1/chat/completions"
    assert "Authorization" not in headers
    assert {"model": "big", "temperature": 0.7, "top_p": 0.9, "max_tokens": 16}.items() <= body.items()
    assert 0 <= body["seed"] < 2**31
    assert (model.prompt_tokens, model.completion_tokens) == (15, 10)


@pytest.mark.parametrize(
    "bad",
    [
        (500, "oops", {}),
        (429, "slow down", {"retry-after": "0"}),
        (200, "<html>garbage", {}),
        (200, "[]", {}),
        (200, '{"choices": []}', {}),
        answer(text=None),
    ],
)
def test_a_passing_failure_is_tried_again(server, bad):
    server.script = [bad, answer("good")]
    found = dict(endpoint(server).complete(asks(1), SAMPLING))
    assert found[0].text == "good"
    assert len(server.seen) == 2


def test_garbage_for_ever_stops_after_the_retries_and_says_how_to_go_on(server):
    server.script = [(200, "<html>garbage", {})]
    with pytest.raises(
        EndpointError, match=r"in 3 tries; last: an answer that is not .*garbage.*rerun the same command"
    ):
        dict(endpoint(server).complete(asks(1), SAMPLING))
    assert len(server.seen) == 3


def test_a_refusal_is_not_tried_again(server):
    server.script = [(401, "bad key", {})]
    with pytest.raises(EndpointError, match="refuses the request for `big`: HTTP 401: 'bad key'"):
        dict(endpoint(server).complete(asks(1), SAMPLING))
    assert len(server.seen) == 1


def test_a_server_that_is_down_is_an_endpoint_error():
    down = Endpoint("http://127.0.0.1:9", "big", retries=1, first_wait_s=0.01)
    with pytest.raises(EndpointError, match="in 2 tries; last: ConnectError"):
        dict(down.complete(asks(3), SAMPLING))


def test_what_was_paid_for_before_the_server_went_down_is_kept(server, tmp_path):
    server.script = [answer(), answer(), answer(), (503, "gone", {})]
    with pytest.raises(EndpointError, match="HTTP 503"):
        dict(Recorded(tmp_path / "j", endpoint(server, concurrency=1)).complete(asks(6), SAMPLING))
    server.script, server.seen = [answer()], []
    resumed = Recorded(tmp_path / "j", endpoint(server))
    assert len(dict(resumed.complete(asks(6), SAMPLING))) == 6
    assert (resumed.hits, len(server.seen)) == (3, 3)


def test_the_first_failure_stops_the_questions_that_wait(server):
    server.script = [(400, "no", {})]
    with pytest.raises(EndpointError, match="HTTP 400"):
        dict(endpoint(server, concurrency=1).complete(asks(50), SAMPLING))
    assert len(server.seen) < 50


def test_the_key_comes_from_the_named_variable_alone(server, monkeypatch):
    monkeypatch.setenv("BIG_KEY", "secret")
    model = endpoint(server, api_key_env="BIG_KEY")
    dict(model.complete(asks(1), SAMPLING))
    assert server.seen[0][1]["Authorization"] == "Bearer secret"
    assert "secret" not in model.identity + str(vars(model))
    monkeypatch.delenv("BIG_KEY")
    with pytest.raises(ConfigError, match=r"BIG_KEY.*is not set"):
        dict(model.complete(asks(1), SAMPLING))


def test_a_withheld_or_cut_answer_is_not_an_ended_one(server):
    server.script = [answer("so f", "length"), answer(None, "content_filter")]
    found = dict(endpoint(server, concurrency=1).complete(asks(2), SAMPLING))
    assert [(found[k].text, found[k].finish_reason) for k in (0, 1)] == [("so f", "length"), ("", "length")]


def test_a_consumer_that_stops_early_leaves_no_thread_behind(server):
    before = threading.active_count()
    stream = endpoint(server, concurrency=2).complete(asks(40), SAMPLING)
    next(stream)
    stream.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_raw_start_tokens_are_refused(server):
    with pytest.raises(ModelError, match="needs a local model"):
        dict(endpoint(server).complete([Request(prefix_ids=(1,), seed=0)], SAMPLING))


@pytest.mark.parametrize(
    ("value", "seconds"), [(None, None), ("2", 2.0), ("-1", 0.0), ("99999", 300.0), ("soon", None)]
)
def test_retry_after_in_seconds(value, seconds):
    assert _retry_after_s(value) == seconds


def test_retry_after_as_a_date():
    assert 25 < _retry_after_s(email.utils.formatdate(time.time() + 30, usegmt=True)) <= 30
