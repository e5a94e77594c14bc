"""The fenced examples of README.md and docs/, and what makes them run on a horde of this machine.

The rules, for whoever writes a page:

* ``python``: the blocks of one page are one program, in their order. If it awaits, an open ``client`` is there.
  A block that reads ``horde.json`` is a program of its own.
* ``sh``, and the lines of ``console`` that begin with ``$``: one script for each block. A command has to exit
  with 0, or with N where its comment says ``exit code N``.
* ``text`` right behind one of them: what it prints, as a part of its output.
* ``<!-- not run: REASON -->`` on the line above a block: it is compiled and type-checked, and not run.
* Other blocks (``toml``, ``http``, ``text``) are no examples.
"""

import ast
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: (.+) -->\n\Z")
EXIT_CODE = re.compile(r"#.*\bexit code (\d+)\b")

CLIENT = """\
import asyncio as _asyncio
import json as _json

from bittensor_wallet import Wallet as _Wallet

from compute_horde_sdk.v1 import ComputeHordeClient as _Client


async def page(client: _Client) -> None:
{page}


async def _main() -> None:
    with open("horde.json") as file:
        told = _json.load(file)
    hotkey = _Wallet(told["wallet_name"], told["wallet_hotkey"], told["wallet_path"]).hotkey
    async with _Client(hotkey, told["validator_hotkey"], facilitator_url=told["facilitator_url"]) as client:
        await page(client)


_asyncio.run(_main())
"""


@dataclass(frozen=True)
class Block:
    """``line``: of its fence, from 1. ``not_run``: the reason, if any. ``prints``: as the page says."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None = None
    prints: str | None = None

    @property
    def name(self) -> str:
        return f"{self.page.stem}-{self.line}"

    @property
    def is_whole(self) -> bool:
        return "horde.json" in self.text


@dataclass
class Program:
    """Python blocks that belong together."""

    name: str
    blocks: list[Block] = field(default_factory=list)

    def source(self, *, every_block: bool = False) -> str:
        """What Python runs. :param every_block: also of those that are not run."""
        parts = [block.text for block in self.blocks if every_block or block.not_run is None]
        text = "\n".join(parts)
        return CLIENT.format(page=textwrap.indent(text or "pass", "    ")) if awaits(text) else text

    @property
    def prints(self) -> list[str]:
        return [block.prints for block in self.blocks if block.prints]


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text()
    found = list(FENCE.finditer(text))
    for index, one in enumerate(found):
        reason = NOT_RUN.search(text, 0, one.start())
        following = found[index + 1] if index + 1 < len(found) else None
        prints = None
        if following and following[1] == "text" and not text[one.end() : following.start()].strip():
            prints = following[2]
        line = text.count("\n", 0, one.start()) + 1
        yield Block(page, line, one[1], one[2], reason[1] if reason else None, prints)


def programs_of(page: Path) -> list[Program]:
    """The page's own, and each block that is one by itself."""
    blocks = [block for block in blocks_of(page) if block.language == "python"]
    joined = Program(page.stem, [block for block in blocks if not block.is_whole])
    whole = [Program(block.name, [block]) for block in blocks if block.is_whole]
    return ([joined] if joined.blocks else []) + whole


def scripts_of(page: Path) -> list[Block]:
    return [block for block in blocks_of(page) if block.language in ("sh", "console")]


def commands_of(block: Block) -> list[str]:
    """The lines that a reader types."""
    lines = block.text.splitlines()
    if block.language == "console":
        return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [line for line in lines if line.strip() and not line.startswith("#")]


def script_of(block: Block) -> str:
    """A shell script that stops at the first command that exits otherwise than the page says."""
    parts = []
    for command in commands_of(block):
        told = EXIT_CODE.search(command)
        expected = told[1] if told else "0"
        parts.append(f'{command}\ncode=$?; [ $code = {expected} ] || {{ echo "exit code $code" >&2; exit 99; }}')
    return "\n".join(parts) + "\n"


def awaits(text: str) -> bool:
    """Whether it has to be inside an ``async`` function."""
    try:
        compile(text, "example", "exec")
    except SyntaxError:
        compile(text, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        return True
    return False


def replaced(text: str, replacements: Mapping[str, str]) -> str:
    for theirs, ours in replacements.items():
        text = re.sub(theirs, lambda _, ours=ours: ours, text)  # type: ignore[misc] # mypy takes no default here
    return text
