"""Takes secrets out of what is logged: a last net, below the rule that nobody logs one."""

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

from compute_horde.protocol.miner_executor import EXECUTOR_PATH

HIDDEN = "***"
_MAX_DEPTH = 4

_SECRET_NAME = re.compile(
    r"(^|_)(token|secret|password|passwd|authorization|cookie|private_key|seed|mnemonic|api_key|credentials)s?$",
    re.IGNORECASE,
)
_IN_TEXT = (
    (re.compile(r"(\w://)[^/@\s]*@"), rf"\1{HIDDEN}@"),  # user and password of a URL
    (re.compile(rf"({re.escape(EXECUTOR_PATH)})[^\s/?'\"]+"), rf"\1{HIDDEN}"),
    (re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]+", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (
        re.compile(
            r"([?&](?:x-amz-signature|x-amz-credential|x-amz-security-token|x-goog-signature|signature|sig|token"
            r"|access_token|api_key|key|password|secret)=)[^&\s'\"]+",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
)
"""What is looked for in text, and what is left of it."""


def redact(_logger: object, _method: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: hide the values of secret names, and what looks like a secret inside any text."""
    record.update(_clean_mapping(record, _MAX_DEPTH))
    return record


def clean_text(text: str) -> str:
    """The text without what looks like a secret."""
    for pattern, left in _IN_TEXT:
        text = pattern.sub(left, text)
    return text


def _clean_mapping(values: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    named = ((str(name), value) for name, value in values.items())
    return {name: HIDDEN if value and _SECRET_NAME.search(name) else _clean(value, depth) for name, value in named}


def _clean(value: Any, depth: int) -> Any:
    """A copy that JSON can hold. ``depth``: how many levels further down are looked at; below, nothing is told."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (dict, list, tuple, set, frozenset)) and depth == 0:
        return HIDDEN
    if isinstance(value, dict):
        return _clean_mapping(value, depth - 1)
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_clean(inner, depth - 1) for inner in value]
    return clean_text(value if isinstance(value, str) else str(value))
