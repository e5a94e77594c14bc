"""Relative paths inside ``/volume`` and ``/output``: rejected when unsafe, never normalised (section 4.3)."""

MAX_COMPONENT_BYTES = 255
MAX_PATH_BYTES = 4096


def path_problem(path: str, *, allow_trailing_slash: bool = False) -> str | None:
    """Why ``path`` is not a safe relative path, as the end of a sentence, or None when it is.

    ``allow_trailing_slash``: for inputs that unpack into a folder.
    """
    if not path:
        return "must not be empty"
    if len(path.encode("utf-8", "surrogatepass")) > MAX_PATH_BYTES:
        return f"must not be longer than {MAX_PATH_BYTES} bytes"
    if path.startswith("/"):
        return "must be relative, without a leading '/'"
    if "\\" in path:
        return "must not contain a backslash"
    if "\0" in path:
        return "must not contain a NUL character"
    trimmed = path.removesuffix("/") if allow_trailing_slash else path
    return next((why for part in trimmed.split("/") if (why := _component_problem(part))), None)


def _component_problem(part: str) -> str | None:
    if part == "":
        return "must not have an empty component ('//' or a trailing '/')"
    if part in (".", ".."):
        return f"must not contain {part!r}"
    try:
        size = len(part.encode("utf-8"))
    except UnicodeEncodeError:
        return "must be valid Unicode"
    if size > MAX_COMPONENT_BYTES:
        return f"must not have a component longer than {MAX_COMPONENT_BYTES} bytes"
    return None


def safe_relative_path(path: str) -> str:
    """Pydantic validator for output paths.

    :raises ValueError: with the reason.
    """
    if why := path_problem(path):
        raise ValueError(f"path {path[:100]!r} {why}")
    return path


def safe_input_path(path: str | None) -> str | None:
    """Pydantic validator for input paths: None and empty mean the root of the volume.

    :raises ValueError: with the reason.
    """
    if path and (why := path_problem(path, allow_trailing_slash=True)):
        raise ValueError(f"path {path[:100]!r} {why}")
    return path


ARTIFACTS_RESERVED = ("/volume", "/output", "/specs", "/proc", "/sys", "/dev")


def artifacts_dir_problem(path: str) -> str | None:
    """Why ``path`` cannot be mounted as the artifacts folder, or None when it can (section 4.4)."""
    if not path.startswith("/"):
        return "must be an absolute path, such as '/artifacts'"
    inner = path.strip("/")
    if not inner:
        return "must not be the root folder"
    if why := path_problem(inner):
        return why
    if ":" in path:
        return "must not contain ':'"
    clean = "/" + inner
    for reserved in ARTIFACTS_RESERVED:
        if clean == reserved or clean.startswith(reserved + "/"):
            return f"must not be inside {reserved!r}, which the horde itself uses"
    return None
