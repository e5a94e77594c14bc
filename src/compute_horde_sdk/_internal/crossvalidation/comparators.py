"""The ready-made comparators. They can be put into one another: ``ignoring("*.log", comparator=numeric())``."""

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from compute_horde_sdk._internal.crossvalidation.comparing import Walk, left_files, unequal_bytes
from compute_horde_sdk._internal.crossvalidation.comparison import Answer, Comparator, Comparison
from compute_horde_sdk._internal.crossvalidation.numeric import Tolerance
from compute_horde_sdk._internal.exceptions import ComputeHordeValidationError
from compute_horde_sdk._internal.models import ComputeHordeJobResult

V = TypeVar("V")


def byte_exact() -> Comparator:
    """All artifacts and all output files are the same to the byte, and no side has one more.

    With neither on either side, stdout is compared instead; stderr and exit codes never are. Output files are
    compared by the hashes that the two executors tell; where one tells none, the verdict is at best inconclusive.
    """
    return ByteExact()


def numeric(rtol: float = 1e-5, atol: float = 0.0) -> Comparator:
    """As :func:`byte_exact`, but numbers in files may differ: ``|own - trusted| <= atol + rtol * |trusted|``.

    Reads JSON, CSV, other text with numbers between blanks, quotes, brackets or ``, ; : = | < > %``, and ``.npy``
    arrays of integers and floats. Whatever is no number must be the same; how many blanks there are does not
    matter. NaN agrees with NaN, an infinity with itself. Any other file must be the same to the byte.

    Only hashes are known of output files, so one that is not the same to the byte cannot be judged: inconclusive.
    Have the job write its numbers to ``artifacts_dir``.

    :raises ComputeHordeValidationError: a tolerance that is negative or not finite.
    """
    return Numeric(rtol, atol)


def ignoring(*patterns: str, comparator: Comparator | None = None) -> Comparator:
    """Leave things out, and give the rest to ``comparator`` (:func:`byte_exact` when None).

    ``patterns`` are matched, upper and lower case apart, against whole paths of artifacts (``/artifacts/run.log``)
    and output files (``/output/run.log``), and against the words ``stdout`` and ``stderr``. ``*`` stands for any
    characters, slashes too; ``?`` for one; ``[ab]`` for one of these.

    :raises ComputeHordeValidationError: no pattern, or one that is no text.
    """
    if not patterns or not all(map(_is_pattern, patterns)):
        raise ComputeHordeValidationError("patterns must be one or more texts", field="patterns")
    if comparator is not None and not callable(comparator):
        raise ComputeHordeValidationError("comparator must be a function of two results", field="comparator")
    return Ignoring(patterns, comparator or ByteExact())


def _is_pattern(value: object) -> bool:
    return isinstance(value, str) and bool(value)


@dataclass(frozen=True)
class ByteExact:
    """See :func:`byte_exact`."""

    def __call__(self, own: ComputeHordeJobResult, trusted: ComputeHordeJobResult) -> Comparison:
        return Walk(own, trusted, unequal_bytes).compare()

    def __repr__(self) -> str:
        return "byte_exact()"


@dataclass(frozen=True)
class Numeric:
    """See :func:`numeric`."""

    rtol: float
    atol: float

    def __post_init__(self) -> None:
        Tolerance(self.rtol, self.atol)

    def __call__(self, own: ComputeHordeJobResult, trusted: ComputeHordeJobResult) -> Comparison:
        return Walk(own, trusted, Tolerance(self.rtol, self.atol).unequal, hashes_decide=False).compare()

    def __repr__(self) -> str:
        return f"numeric(rtol={self.rtol!r}, atol={self.atol!r})"


@dataclass(frozen=True)
class Ignoring:
    """See :func:`ignoring`."""

    patterns: tuple[str, ...]
    comparator: Comparator

    def __call__(self, own: ComputeHordeJobResult, trusted: ComputeHordeJobResult) -> Answer | Awaitable[Answer]:
        kept = self._kept(own), self._kept(trusted)
        ready_made = isinstance(self.comparator, ByteExact | Numeric | Ignoring)
        had_files = left_files(own) or left_files(trusted)
        if ready_made and had_files and not any(map(left_files, kept)):
            # stdout must not step in for files that the caller wants left alone
            return Comparison(not_compared=("all files that the job left are ignored",))
        return self.comparator(*kept)

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self.patterns))
        return f"ignoring({shown}, comparator={self.comparator!r})"

    def _kept(self, result: ComputeHordeJobResult) -> ComputeHordeJobResult:
        changes: dict[str, Any] = {word: "" for word in ("stdout", "stderr") if self._ignores(word)}
        hashes = result.output_hashes
        return replace(
            result,
            artifacts=self._without(result.artifacts),
            upload_results=self._without(result.upload_results),
            output_hashes=None if hashes is None else self._without(hashes),
            **changes,
        )

    def _without(self, by_path: Mapping[str, V]) -> dict[str, V]:
        return {path: value for path, value in by_path.items() if not self._ignores(path)}

    def _ignores(self, path: str) -> bool:
        return any(fnmatchcase(path, pattern) for pattern in self.patterns)
