"""The ready-made comparators: what agrees, what does not, and what cannot be told."""

import json
import math
import re
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_horde_sdk._internal.crossvalidation.comparators import byte_exact, ignoring, numeric
from compute_horde_sdk._internal.crossvalidation.comparison import Comparator, Comparison, Difference, ask, name_of
from compute_horde_sdk._internal.crossvalidation.npy import NotAnArray, read_array
from compute_horde_sdk._internal.crossvalidation.numeric import Tolerance
from compute_horde_sdk._internal.exceptions import ComputeHordeValidationError
from compute_horde_sdk._internal.models import ComputeHordeJobResult, HttpOutputVolumeResponse

A, B = "a" * 64, "b" * 64
PATHS = st.text("/ab.", min_size=1, max_size=6)
FILES = st.dictionaries(PATHS, st.binary(max_size=8), max_size=4)
FLOATS = st.floats(allow_nan=True, allow_infinity=True)


def result(**members: Any) -> ComputeHordeJobResult:
    return ComputeHordeJobResult(**members)


def compare(comparator: Comparator, own: ComputeHordeJobResult, trusted: ComputeHordeJobResult) -> Comparison:
    found = comparator(own, trusted)
    assert isinstance(found, Comparison)
    return found


def paths(found: Comparison) -> list[tuple[str, str]]:
    return [(difference.what, difference.path) for difference in found.differences]


def close(own: str | bytes, trusted: str | bytes, **tolerance: float) -> bool:
    sides = [side.encode() if isinstance(side, str) else side for side in (own, trusted)]
    found = compare(numeric(**tolerance), *(result(artifacts={"/a/x": side}) for side in sides))
    return found == Comparison()


def witness() -> tuple[list[ComputeHordeJobResult], Comparator]:
    """A comparator that agrees to everything, and what it was given."""
    seen: list[ComputeHordeJobResult] = []

    def remember(own: ComputeHordeJobResult, trusted: ComputeHordeJobResult) -> bool:
        seen.extend((own, trusted))
        return True

    return seen, remember


# byte_exact


@settings(deadline=None)
@given(FILES, FILES)
def test_artifacts_agree_when_each_file_is_the_same(own: dict[str, bytes], trusted: dict[str, bytes]) -> None:
    found = compare(byte_exact(), result(artifacts=own, stdout="-"), result(artifacts=trusted, stdout="-"))
    named = {difference.path for difference in found.differences}
    if own == trusted:
        assert found == Comparison()
    for path in own.keys() & trusted.keys():
        assert own[path] == trusted[path] or path in named
    assert not found.not_compared


@settings(deadline=None)
@given(FILES, FILES)
def test_which_side_is_which_changes_no_verdict(own: dict[str, bytes], trusted: dict[str, bytes]) -> None:
    one = compare(byte_exact(), result(artifacts=own), result(artifacts=trusted))
    other = compare(byte_exact(), result(artifacts=trusted), result(artifacts=own))
    assert bool(one.differences) == bool(other.differences)


def test_missing_and_changed_artifacts_are_named_with_their_hashes() -> None:
    own = result(artifacts={"/a/same": b"1", "/a/more": b"2", "/a/changed": b"3"})
    trusted = result(artifacts={"/a/same": b"1", "/a/less": b"4", "/a/changed": b"5"})
    found = compare(byte_exact(), own, trusted)
    assert paths(found) == [("artifact", "/a/changed"), ("artifact", "/a/less"), ("artifact", "/a/more")]
    changed, less, more = found.differences
    assert len({changed.own, changed.trusted, None}) == 3
    assert (less.own, more.trusted) == (None, None)


def test_doubled_slashes_name_the_same_file_and_a_second_spelling_hides_nothing() -> None:
    trusted = result(artifacts={"/a/x": b"good"})
    assert compare(byte_exact(), result(artifacts={"/a//x": b"good"}), trusted) == Comparison()
    hidden = compare(byte_exact(), result(artifacts={"/a/x": b"bad", "/a//x": b"good"}), trusted)
    assert paths(hidden) == [("artifact", "/a/x")]
    hidden = compare(byte_exact(), result(artifacts={"/a/x": b"good", "/a//x": b"bad"}), trusted)
    assert paths(hidden) == [("artifact", "/a//x")]
    assert len(compare(byte_exact(), result(artifacts={"/a/./x": b"good"}), trusted).differences) == 2
    twice = result(artifacts={"/a/x": b"1", "/a//x": b"2"})
    assert compare(byte_exact(), twice, twice) == Comparison()


def test_a_side_that_says_it_left_things_out_is_not_held_to_them() -> None:
    own = result(artifacts={"/a/x": b"1"}, notices=["The artifact 'y' was left behind: too large."])
    found = compare(byte_exact(), own, result(artifacts={"/a/x": b"1", "/a/y": b"2"}))
    assert not found.differences
    assert "missing on the own side" in found.not_compared[0]
    assert "too large" in found.not_compared[0]
    found = compare(byte_exact(), result(artifacts={"/a/x": b"1", "/a/y": b"2"}), own)
    assert "missing on the trusted side" in found.not_compared[0]
    changed = compare(byte_exact(), own, result(artifacts={"/a/x": b"2"}))
    assert paths(changed) == [("artifact", "/a/x")]


def test_output_files_are_compared_by_their_hashes() -> None:
    own = result(output_hashes={"/output/a": A, "/output/b": A, "/output/own": A})
    trusted = result(output_hashes={"/output/a": A.upper(), "/output/b": B, "/output/theirs": B})
    found = compare(byte_exact(), own, trusted)
    assert paths(found) == [("output", "/output/b"), ("output", "/output/own"), ("output", "/output/theirs")]


@pytest.mark.parametrize("side", ["own", "trusted"])
def test_hashes_that_a_side_does_not_tell_are_said_so(side: str) -> None:
    told, silent = result(output_hashes={"/output/a": A}, artifacts={"/a": b"1"}), result(artifacts={"/a": b"1"})
    sides = (silent, told) if side == "own" else (told, silent)
    found = compare(byte_exact(), *sides)
    assert not found.differences
    assert found.not_compared == (f"the {side} side does not tell the hashes of its output files",)


def test_uploads_without_hashes_are_outputs_too() -> None:
    both = result(artifacts={"/a": b"1"}, upload_results={"/output/a": HttpOutputVolumeResponse()})
    assert compare(byte_exact(), both, both).not_compared
    without = result(artifacts={"/a": b"1"})
    assert compare(byte_exact(), without, without) == Comparison()


def test_stdout_counts_only_where_there_is_nothing_else() -> None:
    one, other = result(stdout="1", stderr="x"), result(stdout="2", stderr="y")
    assert paths(compare(byte_exact(), one, other)) == [("stdout", "")]
    assert compare(byte_exact(), one, result(stdout="1", stderr="y")) == Comparison()
    assert compare(byte_exact(), result(stdout="\ud800"), result(stdout="\ud800")) == Comparison()
    with_file = [result(stdout=text, artifacts={"/a": b""}) for text in "12"]
    assert compare(byte_exact(), with_file[0], with_file[1]) == Comparison()


def test_nothing_at_all_is_nothing_to_compare() -> None:
    found = compare(byte_exact(), result(), result())
    assert not found.differences
    assert "nothing to compare" in found.not_compared[0]


def test_a_stdout_that_was_cut_accuses_nobody() -> None:
    long = "x" * 500_000 + " ... " + "y" * 500_000
    shorter = "x" * 50_000 + " ... " + "y" * 50_000
    assert compare(byte_exact(), result(stdout=long), result(stdout=shorter)).not_compared
    assert compare(byte_exact(), result(stdout=long), result(stdout="short")).differences
    assert compare(byte_exact(), result(stdout="x" * 200_000), result(stdout="y" * 200_000)).differences


# numeric


@pytest.mark.parametrize(
    ("own", "trusted"),
    [
        ("1.000001", "1.0"),
        ('{"loss": 0.1234567, "name": "a"}', '{"loss":0.1234568,\n"name":"a"}'),
        ("a,b\r\n1,2.0000001\r\n", "a,b\n1,2\n"),
        ("  1.0  2e3\n", "1 2000.001\n"),
        ("loss=0.5000001;acc=99.9%", "loss=0.5;acc=99.9%"),
        ("NaN inf -Infinity", "nan Infinity -inf"),
        ("[1, -0.0]", "[1.0, 0]"),
        (b"", b""),
        ("", " \n"),
        ("9" * 400, "9" * 400 + " "),
    ],
)
def test_numbers_within_the_tolerance_agree(own: str | bytes, trusted: str | bytes) -> None:
    assert close(own, trusted)


@pytest.mark.parametrize(
    ("own", "trusted"),
    [
        ("1.001", "1.0"),
        ("1 2", "1 2 3"),
        ("1 2 3", "1 2"),
        ("a 1", "b 1"),
        ("[1]", "(1)"),
        ("nan", "1"),
        ("inf", "1e308"),
        ("inf", "-inf"),
        ("1e999", "2e999"),
        ("1e999", "inf"),
        ("9" * 400, "8" * 400),
        ("1_0", "10"),
        ("0x10", "16"),
        ("v1.0.0", "v1.0.1"),
        ("\u0661", "1"),
        ("1 \0", "1.0 \0"),
        (b"\xff1.0", b"\xff1"),
        ("true", "1"),
    ],
)
def test_everything_else_has_to_be_the_same(own: str | bytes, trusted: str | bytes) -> None:
    assert not close(own, trusted)
    assert close(own, own)


@settings(deadline=None)
@given(st.lists(FLOATS), st.lists(FLOATS), st.floats(0, 1), st.floats(0, 10))
def test_text_and_arrays_are_judged_like_their_numbers(
    own: list[float], trusted: list[float], rtol: float, atol: float
) -> None:
    tolerance = Tolerance(rtol, atol)
    same = len(own) == len(trusted) and all(map(tolerance.close, own, trusted))
    for written in (json.dumps, array, lambda values: "\n".join(map(repr, values))):
        assert close(written(own), written(trusted), rtol=rtol, atol=atol) is same


@settings(deadline=None)
@given(FLOATS, FLOATS, st.floats(0, 1), st.floats(0, 10))
def test_closeness_is_that_of_the_formula(own: float, trusted: float, rtol: float, atol: float) -> None:
    tolerance = Tolerance(rtol, atol)
    if math.isfinite(own) and math.isfinite(trusted):
        assert tolerance.close(own, trusted) is (abs(own - trusted) <= atol + rtol * abs(trusted))
    else:
        assert tolerance.close(own, trusted) is (own == trusted or (math.isnan(own) and math.isnan(trusted)))
    assert tolerance.close(own, own)


def test_equal_contents_are_not_read() -> None:
    assert Tolerance(0, 0).unequal(b"\xff", b"\xff") is None


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_file_agrees_with_itself_and_is_read_without_an_error(content: bytes) -> None:
    assert close(content, content)
    Tolerance(1e-5, 0).unequal(content, content + b" 1")
    for kind in (b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00"):
        Tolerance(1e-5, 0).unequal(kind + content, kind + content + b"0")


WORDS = st.text("xy ,[\n", max_size=8)


@settings(deadline=None)
@given(WORDS, WORDS)
def test_words_and_marks_have_to_be_the_same_and_blanks_between_them_do_not(own: str, trusted: str) -> None:
    same = re.findall(r"[xy]+|[,\[]", own) == re.findall(r"[xy]+|[,\[]", trusted)
    assert close(own, trusted) is same


def test_hostile_text_takes_no_quadratic_time() -> None:
    for text in ("9" * 300_000 + "x", "1" + "e+" * 100_000, ("." * 300_000), "-" * 300_000):
        assert not close(text, text + "y")


def array(values: list[float], kind: str = "<f8", shape: str | None = None, version: int = 1) -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape or f'{len(values)},'}), }}".encode()
    codes = {"<f8": "<d", ">f4": ">f", "|u1": "B", "<i2": "<h", "|b1": "B", "<f2": "<e"}
    size = struct.pack("<H" if version == 1 else "<I", len(header) + 1)
    data = b"".join(struct.pack(codes[kind], value) for value in values)
    return b"\x93NUMPY" + bytes([version, 0]) + size + header + b"\n" + data


def test_arrays_are_read_whatever_their_kind() -> None:
    assert list(read_array(array([1, 2], ">f4")).values()) == [1, 2]
    assert list(read_array(array([1, 255], "|u1", "2, 1", 2)).values()) == [1, 255]
    assert list(read_array(array([1], "|b1", "1,")).values()) == [1]
    assert close(array([1.0, 2.0000001]), array([1.0, 2.0]))
    assert not close(array([1.0, 2.1]), array([1.0, 2.0]))
    assert not close(array([1, 2], "<i2"), array([1, 2], "|u1"))
    assert not close(array([1.0, 2.0], shape="2,"), array([1.0, 2.0], shape="1, 2"))
    found = compare(numeric(), *(result(artifacts={"/a": array([1.0, end])}) for end in (3.0, 2.0)))
    assert (found.differences[0].own, found.differences[0].trusted) == ("[1] = 3.0", "[1] = 2.0")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        array([1.0])[:-1],
        array([1.0], shape="2,"),
        array([1.0], shape="9" * 30),
        array([1.0]).replace(b"<f8", b"<c8"),
        array([1.0]).replace(b"<f8", b"<f3"),
        array([1.0]).replace(b"False", b"f(x) "),
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
    ],
)
def test_what_is_no_plain_array_is_compared_to_the_byte(content: bytes) -> None:
    with pytest.raises(NotAnArray):
        read_array(content)
    assert not close(content, content + b"\xff")


def test_output_files_that_are_not_the_same_cannot_be_judged_by_numbers() -> None:
    own, trusted = result(output_hashes={"/output/a": A}), result(output_hashes={"/output/a": B})
    found = compare(numeric(), own, trusted)
    assert not found.differences
    assert "not the same to the byte" in found.not_compared[0]
    assert compare(numeric(), own, own) == Comparison()
    assert paths(compare(numeric(), own, result(output_hashes={}))) == [("output", "/output/a")]


@pytest.mark.parametrize("field", ["rtol", "atol"])
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, True, "1"])
def test_tolerances_are_checked(field: str, value: Any) -> None:
    with pytest.raises(ComputeHordeValidationError) as caught:
        numeric(**{field: value})
    assert caught.value.field == field


# ignoring


def test_ignored_files_do_not_count_and_the_rest_does() -> None:
    own = result(artifacts={"/a/run.log": b"1", "/a/x": b"1"}, output_hashes={"/output/t.log": A})
    trusted = result(artifacts={"/a/run.log": b"2", "/a/x": b"1"}, output_hashes={"/output/t.log": B})
    assert compare(ignoring("*.log"), own, trusted) == Comparison()
    assert paths(compare(ignoring("/a/*"), own, trusted)) == [("output", "/output/t.log")]
    assert paths(compare(ignoring("*.LOG"), own, trusted)) == [
        ("artifact", "/a/run.log"),
        ("output", "/output/t.log"),
    ]


def test_ignored_uploads_need_no_hashes() -> None:
    both = result(artifacts={"/a": b"1"}, upload_results={"/output/t.log": HttpOutputVolumeResponse()})
    assert compare(ignoring("/output/*"), both, both) == Comparison()


def test_comparators_go_into_one_another() -> None:
    own = result(artifacts={"/a/x": b"1.0", "/a/y": b"1", "/a/z": b"1"})
    trusted = result(artifacts={"/a/x": b"1.000001", "/a/y": b"2", "/a/z": b"3"})
    inside = ignoring("*/y", comparator=numeric())
    assert paths(compare(inside, own, trusted)) == [("artifact", "/a/z")]
    assert compare(ignoring("*/z", comparator=inside), own, trusted) == Comparison()
    assert name_of(inside) == "ignoring('*/y', comparator=numeric(rtol=1e-05, atol=0.0))"
    assert name_of(byte_exact()) == "byte_exact()"


def test_stdout_does_not_step_in_for_ignored_files() -> None:
    own, trusted = (result(stdout=text, artifacts={"/a/x": text.encode()}) for text in "12")
    found = compare(ignoring("*"), own, trusted)
    assert not found.differences
    assert "ignored" in found.not_compared[0]
    seen, remember = witness()
    assert ignoring("/a/*", comparator=remember)(own, trusted) is True
    assert [(side.stdout, side.artifacts) for side in seen] == [("1", {}), ("2", {})]


def test_ignored_streams_are_empty() -> None:
    one, other = result(stdout="1", stderr="1"), result(stdout="2", stderr="2")
    assert "nothing to compare" in compare(ignoring("stdout"), one, other).not_compared[0]
    seen, remember = witness()
    ignoring("std*", comparator=remember)(one, other)
    assert {(side.stdout, side.stderr) for side in seen} == {("", "")}
    assert one.stdout == "1"


@pytest.mark.parametrize("patterns", [(), ("",), (1,)])
def test_patterns_are_checked(patterns: tuple[Any, ...]) -> None:
    with pytest.raises(ComputeHordeValidationError) as caught:
        ignoring(*patterns)
    assert caught.value.field == "patterns"


def test_the_inner_comparator_is_checked() -> None:
    with pytest.raises(ComputeHordeValidationError) as caught:
        ignoring("x", comparator="y")  # type: ignore[arg-type]  # the mistake
    assert caught.value.field == "comparator"


@settings(deadline=None)
@given(FILES, FILES)
def test_ignoring_never_adds_a_difference(own: dict[str, bytes], trusted: dict[str, bytes]) -> None:
    plain = compare(byte_exact(), result(artifacts=own), result(artifacts=trusted))
    less = compare(ignoring("*a*"), result(artifacts=own), result(artifacts=trusted))
    assert set(less.differences) <= set(plain.differences)


# any comparator


class NumpyBool:
    """Stands for what comparing arrays gives."""

    def __init__(self, value: bool) -> None:
        self.value = value

    def __bool__(self) -> bool:
        return self.value


NumpyBool.__module__, NumpyBool.__name__ = "numpy", "bool_"


async def later(own: ComputeHordeJobResult, trusted: ComputeHordeJobResult) -> bool:
    return own == trusted


@pytest.mark.parametrize(
    ("comparator", "answer"),
    [
        (lambda own, trusted: True, True),
        (lambda own, trusted: NumpyBool(False), False),
        (lambda own, trusted: [], []),
        (lambda own, trusted: Difference("x"), [Difference("x")]),
        (lambda own, trusted: (Difference("x"),), (Difference("x"),)),
        (later, True),
        (ignoring("x", comparator=later), True),
    ],
)
async def test_answers_of_a_comparator(comparator: Comparator, answer: object) -> None:
    assert await ask(comparator, result(), result()) == answer


@pytest.mark.parametrize("answer", [None, "yes", 1, [1], {}])
async def test_what_is_no_answer_is_refused(answer: object) -> None:
    comparator: Callable[..., Any] = lambda own, trusted: answer  # noqa: E731 - shorter than a function
    with pytest.raises(ComputeHordeValidationError) as caught:
        await ask(comparator, result(), result())
    assert caught.value.field == "comparator"


async def test_a_comparator_that_runs_out_of_items_does_not_hang() -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await ask(lambda own, trusted: next(iter([])), result(), result())
