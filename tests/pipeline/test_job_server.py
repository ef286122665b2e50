"""What a Ray cluster's dashboard answers, and what is said where it does not."""

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from pipeline.job_server import job_server, jobs, status

TOKEN = "0123456789abcdef"
JOBS = [{"submission_id": "a", "status": "RUNNING", "metadata": {}}, {"submission_id": "b", "status": "FAILED"}]
AUTH = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_JOB_HEADERS")


class Dashboard(BaseHTTPRequestHandler):
    """The job server of a cluster with a token, as ray 2.60 answers."""

    moved: str | None = None  # where it says that it went
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.moved and not self.path.startswith("/elsewhere"):
            self.send_response(302)
            self.send_header("Location", self.moved)
            self.end_headers()
            return
        sent = self.headers.get("Authorization")
        code = 401 if sent is None else 403 if sent != f"Bearer {TOKEN}" else 200
        job = self.path.removeprefix("/api/jobs/")
        found = JOBS if not job else next((known for known in JOBS if known["submission_id"] == job), None)
        self.send_response(code if code != 200 or found else 404)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode() if code == 200 else b"Unauthorized")

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    for name in AUTH:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Dashboard) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(params=["variable", "path", "home", "header"])
def token(url: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The token where Ray looks for it."""
    del url
    file = tmp_path / (".ray/auth_token" if request.param == "home" else "token")
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"{TOKEN}\n")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    if request.param == "variable":
        monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    elif request.param == "path":
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    elif request.param == "header":
        monkeypatch.setenv("RAY_JOB_HEADERS", json.dumps({"Authorization": f"Bearer {TOKEN}"}))


@pytest.mark.usefixtures("token")
def test_jobs_and_their_status(url: str) -> None:
    assert jobs(url) == JOBS
    assert status(url, "b") == "FAILED"
    with pytest.raises(ValueError, match="answered 404"):
        status(url, "c")


def test_without_a_token_the_variables_are_named(url: str) -> None:
    with pytest.raises(ValueError, match=r"without a token.*RAY_AUTH_MODE=token.*cluster\.md#token"):
        jobs(url)


def test_a_token_is_sent_only_where_the_mode_says_so(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    with pytest.raises(ValueError, match="without a token"):
        jobs(url)


def test_a_wrong_token_is_not_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong-and-secret")
    with pytest.raises(ValueError, match="refused the token") as error:
        jobs(url)
    assert "wrong-and-secret" not in str(error.value)


@pytest.mark.usefixtures("url")
def test_nobody_answers() -> None:
    with pytest.raises(ValueError, match=r"no Ray cluster answers at http://127.0.0.1:1 .*refused.*ssh -L"):
        jobs("http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("address", "url"),
    [("head:8265", "http://head:8265"), ("http://head:8265/", "http://head:8265"), ("https://x/ray", "https://x/ray")],
)
def test_addresses(address: str, url: str) -> None:
    assert job_server(address) == url


@pytest.mark.parametrize("address", [None, "", "ray://head:10001", "file:///etc/passwd"])
def test_what_is_no_address(address: str | None) -> None:
    with pytest.raises(ValueError, match="http://head:8265"):
        job_server(address)


@pytest.mark.usefixtures("token")
def test_no_token_follows_a_redirection(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dashboard, "moved", f"{url}/elsewhere")
    monkeypatch.setattr(Dashboard, "asked", [])
    with pytest.raises(ValueError, match=r"points to http.*/elsewhere: set TO"):
        jobs(url)
    assert Dashboard.asked == ["/api/jobs/"]


class Gibberish(socketserver.BaseRequestHandler):
    """A port of Ray's that speaks something else, as 6379 does."""

    def handle(self) -> None:
        self.request.recv(1 << 16)
        self.request.sendall(b"\x00\x00\x12\x04\x00 no HTTP\r\n\r\n")


@pytest.mark.usefixtures("url")
def test_another_port_of_the_cluster() -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Gibberish) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with pytest.raises(ValueError, match="not as the dashboard of a Ray cluster"):
            jobs(f"http://127.0.0.1:{server.server_address[1]}")
        server.shutdown()


@pytest.mark.parametrize("headers", ["x", "3]", "[1]", "3", '{"Authorization"'])
def test_malformed_headers_are_named(url: str, headers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_HEADERS", headers)
    with pytest.raises(ValueError, match="RAY_JOB_HEADERS is not a JSON object"):
        jobs(url)
