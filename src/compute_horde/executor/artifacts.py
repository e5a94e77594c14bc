"""What a job left in its artifacts folder (section 4.4). It is hostile: nothing is followed or waited for."""

import base64
import itertools
import json
import os
from pathlib import Path

from compute_horde.executor import confined

MAX_ARTIFACT_BYTES = 1_000_000
"""An artifact is smaller than this."""

MAX_TOTAL_BYTES = 24 * 1024 * 1024
"""Of all together, their paths as JSON included: the message that holds them has to fit into a frame."""

MAX_ENTRIES = 10_000


def collect(folder: Path, artifacts_dir: str) -> tuple[dict[str, str], list[str]]:
    """Base64 by path in the container; and one line for each thing that was left behind."""
    found: dict[str, str] = {}
    notices: list[str] = []
    room = MAX_TOTAL_BYTES
    with confined.folder(folder) as descriptor:
        with os.scandir(descriptor) as entries:
            names = sorted(entry.name for entry in itertools.islice(entries, MAX_ENTRIES))
        for name in names:
            path = f"{artifacts_dir.rstrip('/')}/{name}"
            data = _read(descriptor, name, room - _json_bytes(path))
            if isinstance(data, str):
                shown = name.encode("utf-8", "replace").decode()
                notices.append(f"The artifact {shown!r} was left behind: {data}.")
                continue
            room -= len(data) + _json_bytes(path)
            found[path] = base64.b64encode(data).decode()
    return found, notices


def _json_bytes(text: str) -> int:
    return len(json.dumps(text))


def _read(parent: int, name: str, room: int) -> bytes | str:
    """The contents, or why they are not taken."""
    try:
        name.encode()
        descriptor = confined.read_at(parent, name)
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    except OSError:
        return "only regular files are taken"
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(MAX_ARTIFACT_BYTES)
    if len(data) >= MAX_ARTIFACT_BYTES:
        return f"it is not smaller than {MAX_ARTIFACT_BYTES} bytes"
    if len(data) > room:
        return f"all together are larger than {MAX_TOTAL_BYTES} bytes"
    return data
