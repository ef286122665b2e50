"""The job server of a Ray cluster, which its dashboard is part of: does it answer, what runs there.

Jobs are sent and followed by Ray's own `ray job`; it takes seconds to start and its messages for what is wrong are
tracebacks, so this asks first.
"""

import json
import os
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

SECONDS = 20
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
TOKEN_PAGE = "docs/cluster.md#token"


class _Stay(HTTPRedirectHandler):
    """Follows no redirection: the token would be sent along, to whatever host it names."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        del req, fp, code, msg, headers, newurl


def job_server(address: str | None) -> str:
    """The address as a URL; ValueError where there is none or it is that of something else."""
    if not address:
        raise ValueError("where to? make submit TO=http://head:8265, or set RAY_API_SERVER_ADDRESS")
    url = (address if "://" in address else f"http://{address}").rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"TO={address}: the address of a cluster's dashboard is wanted, http://head:8265")
    return url


def jobs(url: str) -> list[dict[str, Any]]:
    """The jobs that the cluster was sent. ValueError says why it does not tell."""
    return _get(url, "")


def status(url: str, job: str) -> str:
    """PENDING, RUNNING, or one of ENDED."""
    return _get(url, job)["status"]


def _get(url: str, job: str) -> Any:
    headers = _headers()
    try:
        with build_opener(_Stay).open(Request(f"{url}/api/jobs/{job}", headers=headers), timeout=SECONDS) as answer:
            return json.load(answer)
    except HTTPError as error:
        error.close()
        if error.code in (401, 403):
            raise ValueError(_refused(url, error.code)) from None
        if elsewhere := error.headers.get("Location"):
            raise ValueError(f"{url} points to {elsewhere}: set TO to the address of the dashboard itself") from None
        raise ValueError(f"{url} answered {error.code}: is it the dashboard of a Ray cluster?") from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise ValueError(f"no Ray cluster answers at {url} ({reason}). {_reach()}") from None
    except (HTTPException, ValueError):
        raise ValueError(f"{url} answered, but not as the dashboard of a Ray cluster does") from None


def _reach() -> str:
    return "A dashboard that listens on its own machine alone is reached by ssh -L 8265:localhost:8265 HEAD"


def _headers() -> dict[str, str]:
    """What `ray job` would send: RAY_JOB_HEADERS, and the token where RAY_AUTH_MODE says so."""
    try:
        headers = dict(json.loads(os.environ.get("RAY_JOB_HEADERS") or "{}"))
    except (TypeError, ValueError):
        raise ValueError('RAY_JOB_HEADERS is not a JSON object, as {"Name": "value"} is') from None
    if os.environ.get("RAY_AUTH_MODE") == "token" and (token := _token()):
        headers.setdefault("Authorization", f"Bearer {token}")
    return headers


def _token() -> str | None:
    """Ray's token, looked for in Ray's order."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray/auth_token")
    return path.read_text().strip() if path.is_file() else None


def _refused(url: str, code: int) -> str:
    wrong = "the token that was sent" if code == 403 else "a request without a token"
    return (
        f"the Ray cluster at {url} refused {wrong}: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH "
        f"here as there, see {TOKEN_PAGE}"
    )
