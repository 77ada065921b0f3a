"""The frame of the pages that a user opens in a browser."""

from __future__ import annotations

import html

PAGE = "index.html"
"""Name of the page in a folder of figures."""

_STYLE = """body{font:15px/1.5 sans-serif;max-width:85em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.5em 0 1.5em}
td,th{padding:.25em .65em;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child,.label{text-align:left}
td{white-space:nowrap}
.wide{overflow-x:auto}
h2{font-size:1.15em}
h2~p{margin:.2em 0}
th.group{text-align:center;border-left:1.5em solid #fff}
img{max-width:100%;display:block;margin:.8em 0;border:1px solid #ddd}"""


def html_page(title: str, body: str) -> str:
    """Return a page.

    Args:
        title: plain text.
        body: HTML.
    """
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><body>{body}</body></html>\n"
    )
