"""
The reference page of what programs import: read from the sources, so that nothing has to be installed for it.

A name is followed to where it is defined by the imports that type checkers see.
"""

from __future__ import annotations

import ast
import functools

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from .docstrings import markdown
from .links import Links
from .render import Output, marked


__all__ = ["MODULES", "Found", "build", "find", "names_of", "parsed"]


_ROOT: Final = Path(__file__).parents[1]
_WIDE: Final = 100
"""
Characters from which a signature is written with an argument a line.
"""

MODULES: Final[dict[str, str]] = {
    "celery_obs": "celery_obs",
    "celery_obs.metrics": "celery_obs.metrics",
    "celery_obs.beat": "celery_obs.beat",
    "celery_obs.circuit_breaker": "celery_obs.areas.channels.breakers.api",
    "celery_obs.rate_limiter": "celery_obs.areas.channels.rate_limits.api",
    "celery_obs.tokens": "celery_obs.areas.channels.tokens.api",
    **{f"celery_obs.sync.{path.stem}": f"celery_obs.sync.{path.stem}" for path in sorted((_ROOT / "sync").glob("[!_]*.py"))},
    "celery_obs.testing": "celery_obs.testing",
    "celery_obs.testing_plugin": "celery_obs.testing_plugin",
    "celery_obs.exceptions": "celery_obs.exceptions",
}
"""
What programs may import from, as they write it, and the module that it is.
"""

_HEAD: Final = """\
# API

What programs may import; names that are not on this page may change without notice.

Unless something else is said, importing a module does nothing: no thread, no file, no connection.
What is called inside tasks works in forked children and from any thread, and raises the errors that are listed, and no others of ours.

The events are on [a page of their own](events.md), the settings [too](settings.md).
"""

Definition: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


class Found(NamedTuple):
    """
    Where a name is defined.

    Attributes:
        module: The module.

        node: What defines it; None for a module.

        text: Its docstring, or the one below it; empty where there is none.
    """

    module: str
    node: Definition | None
    text: str


def build(links: Links) -> Iterator[Output]:
    """
    Write the page.
    """
    yield Output(
        "docs/reference/api.md",
        marked("celery_obs/, its signatures and docstrings", "\n".join(_page()).rstrip("\n") + "\n", comment="<!--", end=" -->"),
    )


@functools.cache
def parsed(module: str) -> ast.Module:
    """
    Read a module of this package without importing it.

    Raises:
        LookupError: if it is not there, as where an area was taken out.
    """
    if not _file(module).exists():
        message = f"There is no module {module}."
        raise LookupError(message)
    return ast.parse(_file(module).read_text(encoding="utf-8"))


def names_of(module: str) -> tuple[str, ...]:
    """
    Return the module's ``__all__``.
    """
    for node in parsed(module).body:
        if isinstance(node, ast.Assign) and "__all__" in _targets(node):
            names: list[str] = ast.literal_eval(node.value)
            return tuple(names)
    return ()


def find(module: str, name: str) -> Found:
    """
    Follow *name* to where it is defined.

    Raises:
        LookupError: if *module* neither defines nor imports it, or imports it from one that is not there.
    """
    body = parsed(module).body
    for at, node in reversed(list(enumerate(body))):  # The last of overloads is the one that works.
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name:
            return Found(module, node, ast.get_docstring(node) or "")
        if isinstance(node, ast.Assign | ast.AnnAssign) and name in _targets(node):
            return Found(module, node, _text(body[at + 1]) if at + 1 < len(body) else "")
    for line in ast.walk(parsed(module)):
        if isinstance(line, ast.ImportFrom):
            for alias in line.names:
                if name == (alias.asname or alias.name):
                    return _follow(_absolute(module, line), alias.name)
    message = f"{module} has no {name!r}, which its __all__ names."
    raise LookupError(message)


def _follow(module: str, name: str) -> Found:
    inner = f"{module}.{name}"
    if _file(inner).exists():
        return Found(inner, None, ast.get_docstring(parsed(inner)) or "")
    return find(module, name)


def _file(module: str) -> Path:
    place = _ROOT.joinpath(*module.split(".")[1:])
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def _absolute(module: str, line: ast.ImportFrom) -> str:
    if not line.level:
        return line.module or ""
    package = module.split(".") if _file(module).name == "__init__.py" else module.split(".")[:-1]
    above = package[: len(package) - line.level + 1]
    return ".".join([*above, *([line.module] if line.module else [])])


def _targets(node: ast.Assign | ast.AnnAssign) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _text(node: ast.stmt) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return node.value.value
    return ""


# -- the page -----------------------------------------------------------------------------------------------------------


def _page() -> Iterator[str]:
    yield _HEAD
    told: dict[tuple[str, str], str] = {}
    for shown, module in MODULES.items():
        if not _file(module).exists():  # As below: its area was taken out.
            continue
        yield f"## `{shown}`\n"
        yield from markdown(ast.get_docstring(parsed(module)) or "")
        elsewhere: dict[str, list[str]] = {}
        for name in names_of(module):
            try:
                found = find(module, name)
            except LookupError:
                continue
            where = told.setdefault((found.module, name), shown)
            if found.node is None:
                yield f"### `{name}`\n\nA module: see [`{shown}.{name}`](#{_anchor(f'{shown}.{name}')}).\n"
            elif where != shown:
                elsewhere.setdefault(where, []).append(name)
            else:
                yield from _entry(name, found.node, found.text)
        for where, names in elsewhere.items():
            yield f"Also here, and the same as in [`{where}`](#{_anchor(where)}): {', '.join(f'`{name}`' for name in names)}.\n"


def _anchor(heading: str) -> str:
    return heading.replace(".", "")


def _entry(name: str, node: Definition, text: str) -> Iterator[str]:
    yield f"### `{name}`\n"
    yield from _code(_written(node))
    yield from markdown(text)
    if isinstance(node, ast.ClassDef):
        for method in _methods(node):
            yield f"#### `{name}.{method.name}`\n"
            yield from _code(_signature(method, within=True))
            yield from markdown(ast.get_docstring(method) or "")


def _code(text: str) -> Iterator[str]:
    yield f"```python\n{text}\n```\n"


def _methods(node: ast.ClassDef) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for each in node.body:
        if not isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) or not ast.get_docstring(each):
            continue
        if not each.name.startswith("_") or each.name == "__call__":
            yield each


def _written(node: Definition) -> str:
    if isinstance(node, ast.Assign | ast.AnnAssign):
        return ast.unparse(node) if len(ast.unparse(node)) <= _WIDE else f"{ast.unparse(node)[:_WIDE].rpartition(' ')[0]} ..."
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(map(ast.unparse, node.bases))
        made = next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None)
        line = f"class {node.name}({bases})" if bases else f"class {node.name}"
        return line if made is None else f"{line}\n\n{_signature(made, name=node.name, within=True)}"
    return _signature(node)


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef, *, name: str = "", within: bool = False) -> str:
    """
    Write a function as it is called; *within* a class without what stands for the object.
    """
    arguments = list(_arguments(node.args))
    decorators = [
        f"@{ast.unparse(each)}" for each in node.decorator_list if ast.unparse(each) in {"property", "classmethod", "contextmanager"}
    ]
    if within and "@staticmethod" not in decorators and arguments[:1] in (["self"], ["cls"]):
        arguments = arguments[1:]
    if arguments[:1] == ["/"]:
        arguments = arguments[1:]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None and not name else ""
    start = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    line = f"{start}{name or node.name}({', '.join(arguments)}){returns}"
    if len(line) > _WIDE:
        line = f"{start}{name or node.name}(\n" + "".join(f"    {argument},\n" for argument in arguments) + f"){returns}"
    return "\n".join([*decorators, line])


def _arguments(given: ast.arguments) -> Iterator[str]:
    by_place = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(by_place) - len(given.defaults)) + list(given.defaults)
    for at, (argument, default) in enumerate(zip(by_place, defaults, strict=True), start=1):
        yield _argument(argument, default)
        if at == len(given.posonlyargs):
            yield "/"
    if given.vararg is not None:
        yield f"*{ast.unparse(given.vararg)}"
    elif given.kwonlyargs:
        yield "*"
    for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        yield _argument(argument, default)
    if given.kwarg is not None:
        yield f"**{ast.unparse(given.kwarg)}"


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    written = ast.unparse(argument)
    if default is None:
        return written
    return f"{written}{' = ' if argument.annotation else '='}{ast.unparse(default).replace('lambda :', 'lambda:')}"  # As Python 3.11 writes it.
