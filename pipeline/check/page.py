"""Texts and pictures of a check -> one HTML page beside the pictures."""

from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import quote

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;color:#1f2933;max-width:1100px;margin:2rem auto;padding:0 1rem}"
    "pre{font:13px/1.45 ui-monospace,monospace;background:#f5f7fa;padding:1rem;overflow-x:auto}"
    "img{max-width:100%;display:block;margin:1rem 0}"
)


def check_page(title: str, texts: Mapping[str, str], pictures: Mapping[str, Sequence[str]]) -> str:
    """Map headings with their text and the files of their pictures to a page."""
    sections = [
        f"<h2>{escape(heading)}</h2>\n<pre>{escape(text)}</pre>\n"
        + "".join(f'<img src="{quote(file)}" alt="{escape(file)}">\n' for file in pictures.get(heading, ()))
        for heading, text in texts.items()
    ]
    head = f'<meta charset="utf-8">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>'
    return f"<!doctype html>\n<html lang=en>\n{head}\n<h1>{escape(title)}</h1>\n{''.join(sections)}</html>\n"
