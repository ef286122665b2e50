"""A page in a real browser without a screen: a script acts in it, and says what it saw.

The page stands in a frame as wide as a phone or a desk, in light or dark, as from disk or locked up as MLflow shows it.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)
HELPERS = (Path(__file__).parent / "browser_helpers.js").read_text(encoding="utf-8")
VIRTUAL_S, WALL_S = 90, 300  # of the page's clock, which runs ahead where nothing happens; of ours
QUIET = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--disable-features=IsolateSandboxedIframes",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--hide-scrollbars",
)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the script gave, what the console says of the page, and the addresses that it asked for beside its own."""

    result: Any
    console: tuple[str, ...]
    requests: tuple[str, ...]


def look(
    page: Path,
    script: str,
    folder: Path,
    *,
    width: int = 1280,
    dark: bool = False,
    sandbox: str | None = None,
) -> Seen:
    """Open a page, run the body of an async function in it, and give what it returns; `folder` is for the browser.

    The script may use what browser_helpers.js defines. `sandbox` is that attribute of the frame, None for none.
    """
    assert BROWSER
    folder.mkdir(parents=True, exist_ok=True)
    copy = page.with_name("driven.html")
    copy.write_text(_driven(page.read_text(encoding="utf-8"), script), encoding="utf-8")
    harness = page.with_name("harness.html")
    harness.write_text(_harness(copy.name, width, dark, sandbox), encoding="utf-8")
    command = [
        BROWSER,
        *QUIET,
        f"--user-data-dir={folder / 'profile'}",
        f"--log-net-log={folder / 'net.json'}",
        "--enable-logging=stderr",
        f"--window-size={max(width, 600)},900",
        f"--virtual-time-budget={1000 * VIRTUAL_S}",
        "--dump-dom",
        harness.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WALL_S, check=False)
    copy.unlink()
    harness.unlink()
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, f"the script gave nothing back:\n{done.stderr[-3000:]}"
    answer: Mapping[str, Any] = json.loads(unescape(found[1]))
    assert "error" not in answer, answer["error"]
    lines = re.findall(r"CONSOLE[:(]\d+\)?\] (.*)", done.stderr)
    return Seen(result=answer["result"], console=tuple(lines), requests=_requests(folder / "net.json"))


def _driven(text: str, script: str) -> str:
    """The page with a script at its end, after the page's own."""
    assert text.count("</body>") == 1
    body = f"""
<script>
{HELPERS}
addEventListener("load", async () => {{
  const run = async () => {{
{script}
  }};
  let answer;
  try {{ answer = {{ result: (await run()) ?? null }}; }} catch (error) {{ answer = {{ error: String(error.stack) }}; }}
  parent.postMessage(JSON.stringify(answer), "*");
}});
</script>
</body>"""
    return text.replace("</body>", body)


def _harness(address: str, width: int, dark: bool, sandbox: str | None) -> str:
    scheme = "dark" if dark else "light"
    lock = "" if sandbox is None else f' sandbox="{sandbox}"'
    return f"""<!doctype html><meta charset="utf-8">
<style>body {{ margin: 0 }} iframe {{ border: 0; width: {width}px; height: 860px; color-scheme: {scheme} }}</style>
<script>addEventListener("message", (event) => {{
  const seen = document.createElement("pre");
  seen.id = "seen";
  seen.textContent = event.data;
  document.body.append(seen);
}});</script>
<body><iframe src="{address}"{lock}></iframe></body>"""


def _requests(log: Path) -> tuple[str, ...]:
    """The addresses that pages asked for; what the browser asks for by itself has no origin."""
    found = set()
    for event in log.read_text(encoding="utf-8", errors="replace").splitlines():
        initiator, url = (re.search(rf'"{key}":"([^"]*)"', event) for key in ("initiator", "url"))
        if initiator and url and initiator[1] != "not an origin":
            found.add(url[1])
    return tuple(sorted(found))
