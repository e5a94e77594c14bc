"""Turns the roles of docstrings, such as ``:class:``, into plain code on the reference page."""

import re

ROLE = re.compile(r":(?:class|meth|func|data|attr):<code>")


def on_page_content(html: str, **_: object) -> str:
    """Called by mkdocs with each page's HTML."""
    return ROLE.sub("<code>", html)
