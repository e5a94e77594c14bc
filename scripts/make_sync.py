"""Write the synchronous client from the source of the asynchronous one.

``python scripts/make_sync.py`` writes, ``--check`` fails where what is there is stale.

Every public method, property and attribute of the two classes gets a twin with the same parameters that delegates
to it. Types change on the way: an async iterator becomes an iterator, a callback no longer returns an awaitable.
Where the source does something that this cannot carry over, it says what.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

from sync_types import (
    CLIENT,
    JOB,
    SDK,
    SOURCE,
    TWINS,
    VALUES,
    CannotCarryOverError,
    Function,
    Imports,
    Module,
    SyncTypes,
    inward,
    module,
    outward,
)

DOOR = f"{SDK}.v1"
DECORATORS = {"overload", "shown_as_last_overload"}
"""Those that the twin has, too."""
BY_HAND = {"aclose", "close"}
"""What ``_internal/sync/base.py`` defines."""
DISPLAY = re.compile(r"__repr__|__str__|_repr_\w+_")
"""Not public by name, but called by whoever shows an object."""
UNTYPED = {"facilitator_url": "str"}
"""Attributes whose type their assignment does not spell."""
CALLBACK_NOTE = "Callbacks run in the client's own thread, and must not call this client."
"""Ends the docstring of every method that takes one."""
WORDING = {
    "async with": "with",
    "async for": "for",
    "await ": "",
    ":meth:`aclose`": ":meth:`close`",
    "async iterator": "iterator",
    "; may be a coroutine function": "",
    ", and may be asynchronous": "",
}


def value_twin(name: str, imports: Imports) -> str:
    """The text of a dataclass in which the job is the twin."""
    where = module(VALUES[name])
    node = deepcopy(where.classes[name])
    for mark in node.decorator_list:
        for one in (one for one in ast.walk(mark) if isinstance(one, ast.Name)):
            imports.need(one.id, where, at_run_time=True)
    for method in (one for one in node.body if isinstance(one, Function)):
        method.returns = method.returns and SyncTypes(where, imports).of(method.returns)
    for part in (one for one in ast.walk(node) if isinstance(one, ast.AnnAssign)):
        part.annotation = SyncTypes(where, imports).of(part.annotation)
    return ast.unparse(node)


class Twin:
    """The text of one class. ``target``: where it keeps the object that it delegates to."""

    def __init__(self, name: str, target: str, imports: Imports) -> None:
        self.module = module(TWINS[name])
        self.name, self.target, self.imports = name, target, imports
        self.node = self.module.classes[name]

    def text(self) -> str:
        members = [*self.attributes(), *map(self._method, self.functions())]
        title = f"class {self.name}(Sync{self.name.removeprefix('ComputeHorde')}):"
        head = [f"    _job_class = {JOB}"] if self.name == CLIENT else []
        return "\n".join([title, _indented(_quoted(_doc(self.node))), *head, *members])

    def functions(self) -> Iterator[Function]:
        for node in self.node.body:
            if isinstance(node, Function) and node.name not in BY_HAND:
                shown = not node.name.startswith("_") or DISPLAY.fullmatch(node.name)
                if shown or (node.name == "__init__" and self.name == CLIENT):
                    yield node

    def attributes(self) -> Iterator[str]:
        """A property for every public attribute that a method sets on ``self``."""
        kinds: dict[str, ast.expr | None] = {}
        for method in (node for node in self.node.body if isinstance(node, Function)):
            for node in ast.walk(method):
                for name in _set_by(node):
                    kinds[name] = kinds.get(name) or self._kind(name, node, method)
        for name, kind in kinds.items():
            if kind is None:
                raise CannotCarryOverError(f"annotate {self.name}.{name}, or name its type in UNTYPED")
            yield self._property(name, kind)

    def _kind(self, name: str, node: ast.AST, method: Function) -> ast.expr | None:
        """The attribute's type, where this statement spells it, or the value's origin does."""
        given = {one.arg: one.annotation for one in ast.walk(method.args) if isinstance(one, ast.arg)}
        match node:
            case ast.AnnAssign(annotation=kind):
                return self._twin_type(kind)
            case ast.Assign(value=ast.Name(id=origin)) if spelled := given.get(origin):
                return self._twin_type(spelled)
            case ast.Assign(value=ast.Attribute(value=ast.Name(id=origin), attr=field)) if origin in given:
                return self._field_type(given[origin], field)
        return ast.parse(UNTYPED[name], mode="eval").body if name in UNTYPED else None

    def _field_type(self, kind: ast.expr | None, field: str) -> ast.expr | None:
        home = self.module.home(ast.unparse(kind)) if kind else None
        for node in home[0].classes[home[1]].body if home else ():
            if home and isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == field:
                return self._twin_type(node.annotation, home[0])
        return None

    def _twin_type(self, annotation: ast.expr, where: Module | None = None) -> ast.expr:
        return SyncTypes(where or self.module, self.imports).of(annotation)

    def _property(self, name: str, kind: ast.expr, doc: str = "") -> str:
        value = outward(f"self.{self.target}.{name}", kind)
        return _function("@property\n", f"def {name}(self) -> {ast.unparse(kind)}:", doc, f"return {value}")

    def _method(self, node: Function) -> str:
        """One method, or one overload of it."""
        marks = [ast.unparse(mark) for mark in node.decorator_list]
        name = {"__aenter__": "__enter__"}.get(node.name, node.name)
        kind = self._twin_type(node.returns) if node.returns else ast.Constant(None)
        doc = _doc(node)
        if marks in (["property"], ["cached_property"]):
            return self._property(name, kind, doc)
        if not DECORATORS.issuperset(marks):
            raise CannotCarryOverError(f"{self.name}.{name} is decorated with {marks}")
        arguments = self._arguments(node.args)
        head = f"def {name}({ast.unparse(arguments)}) -> {ast.unparse(kind)}:"
        for mark in marks:
            self.imports.need(mark, self.module, at_run_time=True)
        if "Callable" in head:
            doc = f"{doc.rstrip()}\n\n{CALLBACK_NOTE}\n"
        body = "..." if "overload" in marks else self._body(node, arguments, kind)
        return _function("".join(f"@{mark}\n" for mark in marks), head, doc, body)

    def _arguments(self, given: ast.arguments) -> ast.arguments:
        made = deepcopy(given)
        for rest in filter(None, (made.vararg, made.kwarg)):  # those of an overloaded method: passed on unchecked
            rest.annotation = ast.Name("Any")
            self.imports.lines.add("from typing import Any")
        for one in (node for node in ast.walk(made) if isinstance(node, ast.arg)):
            one.annotation = one.annotation and self._twin_type(one.annotation)
        for default in (*made.defaults, *filter(None, made.kw_defaults)):
            for name in (node.id for node in ast.walk(default) if isinstance(node, ast.Name)):
                self.imports.need(name, self.module, at_run_time=True)
        return made

    def _body(self, node: Function, arguments: ast.arguments, kind: ast.expr) -> str:
        passed = ", ".join(_passed(arguments))
        if node.name == "__init__":
            return f"self._adopt(AsyncClient({passed}))"
        call = f"self.{self.target}.{node.name}({passed})"
        match kind:
            case ast.Subscript(value=ast.Name(id="Iterator"), slice=item):
                return f"return self._iterate({call}, {_conversion(item)})"
        if isinstance(node, ast.AsyncFunctionDef):
            call = f"self._portal.call({call})"
        return call if ast.unparse(kind) == "None" else f"return {outward(call, kind)}"


def _conversion(kind: ast.expr) -> str:
    return "self._wrap" if ast.unparse(kind) == JOB else f"lambda one: {outward('one', kind)}"


def _set_by(node: ast.AST) -> Iterator[str]:
    """The public attributes of ``self`` that a statement sets."""
    targets = (
        node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    )
    for target in (one for given in targets for one in (given.elts if isinstance(given, ast.Tuple) else [given])):
        match target:
            case ast.Attribute(value=ast.Name(id="self"), attr=name) if not name.startswith("_"):
                yield name


def _passed(arguments: ast.arguments) -> Iterator[str]:
    for one in [*arguments.posonlyargs, *arguments.args][1:]:
        yield inward(one.arg, one.annotation)
    if arguments.vararg:
        yield f"*{arguments.vararg.arg}"
    for one in arguments.kwonlyargs:
        yield f"{one.arg}={inward(one.arg, one.annotation)}"
    if arguments.kwarg:
        yield f"**{arguments.kwarg.arg}"


def _doc(node: Function | ast.ClassDef) -> str:
    text = ast.get_docstring(node) or ""
    for theirs, ours in WORDING.items():
        text = text.replace(theirs, ours)
    return text


def _function(mark: str, head: str, doc: str, body: str) -> str:
    return _indented(f"{mark}{head}\n{_indented(_quoted(doc) + body)}\n")


def _quoted(doc: str) -> str:
    return f'"""{doc}{chr(10) if chr(10) in doc else ""}"""\n' if doc else ""


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else line for line in text.splitlines()) + "\n"


def generated() -> str:
    """The module with the two classes."""
    imports = Imports()
    values = [value_twin(name, imports) for name in VALUES]
    classes = [Twin(JOB, "_job", imports).text(), *values, Twin(CLIENT, "_client", imports).text()]
    if imports.type_lines:
        imports.lines.add("from typing import TYPE_CHECKING")
    lines = [
        '"""Made by scripts/make_sync.py from client.py and job.py; change those, and run it."""',
        "",
        "from __future__ import annotations",
        *sorted(imports.lines),
        f"from {TWINS[CLIENT]} import {CLIENT} as AsyncClient",
        f"from {SDK}._internal.sync.base import SyncClient, SyncJob",
        *(
            ["if TYPE_CHECKING:", *(f"    {line}" for line in sorted(imports.type_lines))]
            if imports.type_lines
            else []
        ),
        *classes,
    ]
    return "\n".join(lines)


def door() -> str:
    """``v1/sync.py``: the names of ``v1``, with the two twins in their places."""
    names = ast.literal_eval(module(DOOR).values["__all__"])
    ours = [name for name in names if name in {*TWINS, *VALUES}]
    same = [name for name in names if name not in ours]
    lines = [
        '"""The client library for programs that do not await: the same names as in ``compute_horde_sdk.v1``.',
        "",
        "Made by scripts/make_sync.py.",
        '"""',
        f"from {SDK}._internal.sync.generated import {', '.join(ours)}",
        f"from {DOOR} import {', '.join(same)}",
        f"__all__ = {names!r}",
    ]
    return "\n".join(lines)


def formatted(text: str, path: Path) -> str:
    for chore in (["check", "--select", "I", "--fix", "--quiet"], ["format", "--quiet"]):
        command = ["ruff", *chore, "--stdin-filename", str(path), "-"]
        done = subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603 - ruff
        text = done.stdout
    return text


def main(arguments: list[str]) -> int:
    package = SOURCE / SDK
    made = {package / "_internal" / "sync" / "generated.py": generated(), package / "v1" / "sync.py": door()}
    stale = False
    for path, text in made.items():
        wanted = formatted(text, path)
        if path.exists() and path.read_text() == wanted:
            continue
        stale = True
        if "--check" not in arguments:
            path.write_text(wanted)
        sys.stderr.write(
            f"{path.relative_to(SOURCE.parent)} {'is stale' if '--check' in arguments else 'written'}\n"
        )
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
