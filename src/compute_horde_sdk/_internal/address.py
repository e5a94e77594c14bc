"""The facilitator's address, however the user writes it."""

import re
from urllib.parse import urlsplit

from compute_horde_sdk._internal.exceptions import ComputeHordeValidationError

DEFAULT_FACILITATOR_URL = "https://facilitator.computehorde.io/api/v1/"
API_PREFIX = "/api/v1"


def check_http_url(url: object, field: str) -> str:
    """``url`` unchanged, when it is an absolute http(s) URL.

    :raises ComputeHordeValidationError: otherwise.
    """
    if not isinstance(url, str) or not url.isprintable() or " " in url:
        raise ComputeHordeValidationError(f"{field} must be an http or https URL, without blanks", field=field)
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        shown = re.sub(r"//[^/]*@", "//", re.split(r"[?#]", url)[0])  # the rest may be secret
        raise ComputeHordeValidationError(f"{field} {shown[:200]!r} must be an http or https URL", field=field)
    return url


def facilitator_root(url: object) -> str:
    """The facilitator's root without a trailing slash; ``/api/v1`` at the end is accepted and taken off.

    :raises ComputeHordeValidationError: not an http(s) URL, or one with a query, a fragment or a password.
    """
    parts = urlsplit(check_http_url(url, "facilitator_url"))
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ComputeHordeValidationError(
            "facilitator_url must not have a query, a fragment or a password", field="facilitator_url"
        )
    path = parts.path.rstrip("/")
    if path.endswith(API_PREFIX):
        path = path.removesuffix(API_PREFIX).rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def shown_url(url: str) -> str:
    """``url`` without what may be a secret: a user, a query, a fragment."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" + ("?..." if parts.query else "")
