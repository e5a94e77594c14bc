"""The walk over two results that the ready-made comparators share.

Artifacts are paired by path. Two paths that differ only in doubled slashes are the same file, since executors
spell the path of an ``artifacts_dir`` with a slash at its end in two ways; any other spelling is another file. A
side that names a file twice in this way is held to each of them.

A file that one side lacks is a difference, unless that side itself says in its notices that things were left out.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256

from compute_horde_sdk._internal.crossvalidation.comparison import Comparison, Difference
from compute_horde_sdk._internal.models import ComputeHordeJobResult

Check = Callable[[bytes, bytes], tuple[str, str] | None]
"""What differs, in short, on the own and on the trusted side; None when the two contents agree."""

CUT_MARK = " ... "
CUT_CHARS = 100_000
"""A stream is cut in its middle when it has more characters than this, or ten times this on most machines."""


class Walk:
    """``check``: of contents. ``hashes_decide``: whether unequal hashes mean unequal contents."""

    def __init__(
        self,
        own: ComputeHordeJobResult,
        trusted: ComputeHordeJobResult,
        check: Check,
        *,
        hashes_decide: bool = True,
    ) -> None:
        self.own, self.trusted = own, trusted
        self.check, self.hashes_decide = check, hashes_decide
        self.differences: list[Difference] = []
        self.not_compared: list[str] = []

    def compare(self) -> Comparison:
        """Artifacts and output files; stdout where there is neither."""
        self._artifacts()
        self._outputs()
        if not left_files(self.own) and not left_files(self.trusted):
            self._stdout()
        return Comparison(tuple(self.differences), tuple(self.not_compared))

    def _artifacts(self) -> None:
        own, trusted = _by_file(self.own.artifacts), _by_file(self.trusted.artifacts)
        for file in sorted(own.keys() | trusted.keys()):
            if file not in own or file not in trusted:
                self._missing("artifact", file, own.get(file), trusted.get(file))
                continue
            for path, other in _pairs(own[file], trusted[file]):
                mine, theirs = own[file][path], trusted[file][other]
                if mine != theirs and (shown := self.check(mine, theirs)):
                    self.differences.append(Difference("artifact", path, *shown))

    def _missing(
        self, what: str, file: str, own: Mapping[str, bytes] | None, trusted: Mapping[str, bytes] | None
    ) -> None:
        shown = [None if side is None else sha(next(iter(side.values()))) for side in (own, trusted)]
        self._lacking(Difference(what, file, *shown))

    def _lacking(self, difference: Difference) -> None:
        side, result = ("own", self.own) if difference.own is None else ("trusted", self.trusted)
        if result.notices:
            said = result.notices[0][:200]
            self.not_compared.append(
                f"{difference.what} {difference.path!r} is missing on the {side} side, which says {said!r}"
            )
        else:
            self.differences.append(difference)

    def _outputs(self) -> None:
        own, trusted = self.own.output_hashes, self.trusted.output_hashes
        if own is None or trusted is None:
            if output_paths(self.own) or output_paths(self.trusted):
                side = "own" if own is None else "trusted"
                self.not_compared.append(f"the {side} side does not tell the hashes of its output files")
            return
        for path in sorted(own.keys() | trusted.keys()):
            mine, theirs = own.get(path), trusted.get(path)
            if mine is None or theirs is None:
                self._lacking(Difference("output", path, mine, theirs))
            elif mine.lower() != theirs.lower():
                self._unequal(Difference("output", path, mine, theirs))

    def _unequal(self, difference: Difference) -> None:
        if self.hashes_decide:
            self.differences.append(difference)
        else:
            self.not_compared.append(
                f"output {difference.path!r} is not the same to the byte, and its contents are not here to compare"
            )

    def _stdout(self) -> None:
        own, trusted = self.own.stdout, self.trusted.stdout
        if not own and not trusted:
            self.not_compared.append("the job left nothing to compare: no artifacts, no output files, no stdout")
        elif own != trusted and (shown := self.check(_bytes(own), _bytes(trusted))):
            if min(len(own), len(trusted)) >= CUT_CHARS and (CUT_MARK in own or CUT_MARK in trusted):
                self.not_compared.append("stdout was so long that it was cut")
            else:
                self.differences.append(Difference("stdout", "", *shown))


def left_files(result: ComputeHordeJobResult) -> bool:
    """Whether there is any artifact or output file."""
    return bool(result.artifacts or output_paths(result))


def output_paths(result: ComputeHordeJobResult) -> set[str]:
    """All output files that the result tells of."""
    return {*(result.output_hashes or {}), *result.upload_results}


def sha(content: bytes) -> str:
    """SHA-256 in hex."""
    return sha256(content).hexdigest()


def unequal_bytes(own: bytes, trusted: bytes) -> tuple[str, str] | None:
    """The check of contents that have to be the same to the byte."""
    return None if own == trusted else (sha(own), sha(trusted))


def _by_file(artifacts: Mapping[str, bytes]) -> dict[str, dict[str, bytes]]:
    files: dict[str, dict[str, bytes]] = {}
    for path, content in artifacts.items():
        files.setdefault(re.sub("/{2,}", "/", path), {})[path] = content
    return files


def _pairs(own: Iterable[str], trusted: Iterable[str]) -> list[tuple[str, str]]:
    """Spellings of one file to compare: the same ones with each other, any other one with all."""
    same = set(own) & set(trusted)
    return [(mine, theirs) for mine in own for theirs in trusted if mine == theirs or not {mine, theirs} <= same]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
