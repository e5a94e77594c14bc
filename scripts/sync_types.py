"""What make_sync.py knows of the source: where names come from, and how types and values become their twins."""

import ast
import re
from collections.abc import Iterator
from copy import deepcopy
from functools import cache, reduce
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src"
SDK = "compute_horde_sdk"
JOB, CLIENT = "ComputeHordeJob", "ComputeHordeClient"
TWINS = {JOB: f"{SDK}._internal.job", CLIENT: f"{SDK}._internal.client"}
VALUES = {"MappedJob": f"{SDK}._internal.mapping"}
"""Dataclasses with a job in them: copied."""

SAME_BUT = {"AsyncIterator": "Iterator", "AsyncIterable": "Iterable"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


class CannotCarryOverError(Exception):
    """The source uses something that has to be taught here first."""


class Module:
    """The names at the top of one source file."""

    def __init__(self, name: str) -> None:
        path = SOURCE.joinpath(*name.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        self.name = name
        self.imported: dict[str, tuple[str, str]] = {}  # by local name: module and name there
        self.for_types: set[str] = set()
        self.classes: dict[str, ast.ClassDef] = {}
        self.values: dict[str, ast.expr] = {}
        self._read(ast.parse(file.read_text()).body, for_types=False)

    def _read(self, body: list[ast.stmt], *, for_types: bool) -> None:
        for node in body:
            match node:
                case ast.ImportFrom(module=str(source)):
                    for alias in node.names:
                        self.imported[alias.asname or alias.name] = (source, alias.name)
                        if for_types:
                            self.for_types.add(alias.asname or alias.name)
                case ast.Import():
                    for alias in node.names:
                        self.imported[alias.asname or alias.name] = (alias.name, "")
                        if for_types:
                            self.for_types.add(alias.asname or alias.name)
                case ast.ClassDef():
                    self.classes[node.name] = node
                case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)) if (
                    node.value
                ):
                    self.values[name] = node.value
                case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                    self._read(node.body, for_types=True)

    def home(self, name: str) -> "tuple[Module, str] | None":
        """The module of ours that defines a name used here."""
        if name in self.classes or name in self.values:
            return self, name
        source, there = self.imported.get(name, ("", ""))
        return module(source).home(there) if source.startswith(f"{SDK}.") and there else None


@cache
def module(name: str) -> Module:
    return Module(name)


class Imports:
    """What the written module has to import."""

    def __init__(self) -> None:
        self.lines: set[str] = set()
        self.type_lines: set[str] = set()

    def need(self, name: str, used_in: Module, *, at_run_time: bool) -> None:
        """``name`` means here what it means in ``used_in``."""
        known = name in used_in.imported or used_in.home(name)
        if name in TWINS or name in VALUES or not known:  # written here, built in, or added by the script
            return
        home = used_in.home(name)
        if home and home[1] == name:
            line = f"from {home[0].name} import {name}"
        elif name in used_in.imported:
            source, there = used_in.imported[name]
            line = f"from {source} import {there} as {name}" if there else f"import {source} as {name}"
        else:
            line = f"from {used_in.name} import {name}"
        type_only = name in used_in.for_types and not at_run_time
        (self.type_lines if type_only else self.lines).add(line.replace(f" {name} as {name}", f" {name}"))


class SyncTypes(ast.NodeTransformer):
    """An annotation as the twin has it. Our aliases of types with jobs or awaitables are written out."""

    def __init__(self, where: Module, imports: Imports) -> None:
        self.where, self.imports = where, imports

    def of(self, annotation: ast.expr) -> ast.expr:
        """The twin of ``annotation``, which is left as it is."""
        kind: ast.expr = self.visit(deepcopy(annotation))
        return kind

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        return self.of(ast.parse(node.value, mode="eval").body) if isinstance(node.value, str) else node

    def visit_Name(self, node: ast.Name) -> ast.expr:
        home = self.where.home(node.id)
        if home and home[1] in home[0].values and _turns(alias := home[0].values[home[1]]):
            return SyncTypes(home[0], self.imports).of(alias)
        if (
            home
            and home[1] not in {*TWINS, *VALUES}
            and home[1] in home[0].classes
            and _turns(home[0].classes[home[1]])
        ):
            raise CannotCarryOverError(f"{node.id} has jobs in it: it needs a twin of its own")
        name = SAME_BUT.get(node.id, node.id)
        if name != node.id:
            self.imports.lines.add(f"from collections.abc import {name}")
        else:
            self.imports.need(name, self.where, at_run_time=False)
        return ast.Name(name)

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        match node:
            case ast.Subscript(value=ast.Name(id="Literal")):
                self.imports.need("Literal", self.where, at_run_time=False)
                return node
            case ast.Subscript(value=ast.Name(id="Awaitable"), slice=result):
                return self.of(result)
            case ast.Subscript(value=ast.Name(id="Coroutine"), slice=ast.Tuple(elts=[_, _, result])):
                return self.of(result)
        self.generic_visit(node)
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        parts = {ast.unparse(part): part for side in (node.left, node.right) for part in union(self.visit(side))}
        return reduce(lambda left, right: ast.BinOp(left, ast.BitOr(), right), parts.values())


def union(node: ast.expr) -> Iterator[ast.expr]:
    """The alternatives of a type."""
    if isinstance(node, ast.BinOp):
        yield from union(node.left)
        yield from union(node.right)
    else:
        yield node


def _turns(node: ast.AST) -> bool:
    """Whether the twin of this has to be another."""
    text = ast.unparse(node)
    return bool(re.search(rf"\b({JOB}|{CLIENT}|Awaitable|Coroutine|Async\w+)\b", text))


def has_job(node: ast.AST) -> bool:
    return bool(re.search(rf"\b({'|'.join([JOB, *VALUES])})\b", ast.unparse(node)))


def outward(value: str, kind: ast.expr) -> str:
    """The expression that makes the twin of ``value``, whose type's twin is ``kind``."""
    if not has_job(kind):
        return value
    match kind:
        case ast.Name(id=name) if name in VALUES:
            fields = ((f"{value}.{field}", kind) for field, kind in fields_of(module(VALUES[name]).classes[name]))
            return f"{name}({', '.join(outward(*field) for field in fields)})"
        case ast.Name() | ast.Constant(value=str()):
            return f"self._wrap({value})"
        case ast.BinOp(left=some, right=ast.Constant(value=None)):
            return f"None if {value} is None else {outward(value, some)}"
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            return f"[{outward('one', item)} for one in {value}]"
    raise CannotCarryOverError(f"cannot hand out a {ast.unparse(kind)}")


def inward(name: str, kind: ast.expr | None) -> str:
    """The expression that makes the asynchronous library's argument of the twin's."""
    if kind is None or not has_job(kind):
        return name
    match list(union(kind)):
        case [ast.Name()]:
            return f"{name}._job"
        case [
            ast.Subscript(value=ast.Name(id="Callable"), slice=ast.Tuple(elts=[ast.List(elts=given), _])),
            *others,
        ]:
            names = [f"given_{number}" for number in range(len(given))]
            passed = ", ".join(outward(*pair) for pair in zip(names, given, strict=True))
            made = f"lambda {', '.join(names)}: {name}({passed})"
            if not others:
                return made
            if [ast.unparse(other) for other in others] == ["None"]:
                return f"None if {name} is None else {made}"
    raise CannotCarryOverError(f"cannot take a {ast.unparse(kind)}")


def fields_of(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    """The fields of a dataclass. Quotes around a type are taken off."""
    for one in node.body:
        if isinstance(one, ast.AnnAssign):
            quoted = isinstance(one.annotation, ast.Constant) and isinstance(one.annotation.value, str)
            kind = ast.parse(ast.literal_eval(one.annotation), mode="eval").body if quoted else one.annotation
            yield ast.unparse(one.target), kind
