"""The pages are whole: every code is explained, every link leads somewhere, every example can be read."""

import re
from pathlib import Path

import pytest
from tests.acceptance.examples import PAGES, ROOT, awaits, blocks_of, programs_of, scripts_of

from compute_horde.lifecycle.failures import KINDS
from compute_horde_sdk import v1

DOCS = ROOT / "docs"
SDK = ROOT / "src" / "compute_horde_sdk" / "_internal"
CODE = re.compile(r'\b(?:code|default_code) = "([a-z0-9_]+)"|\bcode="([a-z0-9_]+)"|_Default\(\s*"([a-z0-9_]+)"')
LINK = re.compile(r"\]\(([^)#\s]+)?(#[^)\s]+)?\)")
NOT_RUN = {
    ("data", "needs the Hugging Face hub"): 1,
    ("data", "needs an S3 bucket"): 1,
    ("quickstart", "changes the reader's environment"): 1,
    ("migrating", "changes the reader's environment"): 1,
}
"""How many examples of a page are not run, and why. Everything else is."""


def codes_of_the_library() -> set[str]:
    texts = (path.read_text() for path in SDK.rglob("*.py"))
    return {code for text in texts for found in CODE.findall(text) for code in found if code}


def test_the_page_on_errors_names_every_code_and_every_class() -> None:
    page = (DOCS / "errors.md").read_text()
    named = set(re.findall(r"`([a-z0-9_]+)`", page))
    codes = codes_of_the_library()
    assert {"client_closed", "creation_unknown", "not_cross_validated", "wait_timeout", "busy"} <= codes
    assert (codes | set(KINDS)) - named == set()
    classes = {name for name in v1.__all__ if issubclass_of_error(getattr(v1, name))}
    assert classes - set(re.findall(r"\w+", page)) == set()


def test_the_page_on_errors_tells_whose_fault_it_is_and_whether_to_try_again() -> None:
    rows = re.findall(r"^\| (`[^|]*) \| (\w+) \| (yes|no) \|", (DOCS / "errors.md").read_text(), re.MULTILINE)
    told = {code: (fault, again) for codes, fault, again in rows for code in re.findall(r"`(\w+)`", codes)}
    actual = {code: (kind.fault.value, "yes" if kind.retryable else "no") for code, kind in KINDS.items()}
    assert {code: told.get(code) for code in actual} == actual


def test_the_reference_has_everything_at_the_door() -> None:
    listed = re.findall(r"^::: compute_horde_sdk\.v1\.(\w+)$", (DOCS / "reference.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(v1.__all__)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text()):
        if target.startswith(("http:", "https:")):
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor:
            assert anchor[1:] in {
                slug(title) for title in re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_can_be_read(page: Path) -> None:
    for program in programs_of(page):
        awaits(program.source(every_block=True))
    assert not [block.name for block in blocks_of(page) if not block.language]


def test_few_examples_are_not_run_and_each_says_why() -> None:
    found: dict[tuple[str, str], int] = {}
    for page in PAGES:
        blocks = [block for program in programs_of(page) for block in program.blocks] + scripts_of(page)
        for block in blocks:
            if block.not_run:
                key = (page.stem, block.not_run)
                found[key] = found.get(key, 0) + 1
        marks = page.read_text().count("<!-- not run")
        assert marks == sum(block.not_run is not None for block in blocks), f"{page}: a mark without its example"
    assert found == NOT_RUN


def issubclass_of_error(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, v1.ComputeHordeError)


def slug(title: str) -> str:
    """As the documentation's generator makes an anchor."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower())
