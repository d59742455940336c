"""Pydocs: a real data set that every Python carries, so that the first run needs no download.

The first paragraphs of the standard library's docstrings are the texts, the modules they come from the classes. The
source is parsed, never imported or run. Which texts there are depends on the Python version, so the fingerprint does.
"""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

MODULES = 20
"""The modules with the most texts are the classes."""
CHARACTERS = range(20, 401)
"""Shorter first paragraphs say too little, longer ones are tables and grammars."""
PER_MODULE = 250
NOT_EVERYWHERE = {"distutils", "ensurepip", "idlelib", "lib2to3", "test", "tkinter", "turtledemo"}
"""Left out: packages that some versions and installations of Python 3.11 to 3.14 do not have."""


@cache
def records() -> tuple[dict[str, str], ...]:
    """The texts with their modules: `{"text": ..., "label": "asyncio"}`, ordered by module and place in its source.

    About 2,800 with Python 3.11. Texts that occur in several modules are left out, repetitions within one too.
    """
    homes: dict[str, set[str]] = defaultdict(set)
    found: dict[str, list[str]] = defaultdict(list)
    for module, text in _paragraphs(Path(sysconfig.get_path("stdlib"))):
        if module not in homes[text]:
            homes[text].add(module)
            found[module].append(text)
    largest = sorted(found, key=lambda module: (-len(found[module]), module))[:MODULES]
    return tuple(
        {"text": text, "label": module}
        for module in sorted(largest)
        for text in [text for text in found[module] if len(homes[text]) == 1][:PER_MODULE]
    )


def _paragraphs(library: Path) -> Iterator[tuple[str, str]]:
    """(module, first paragraph) of every docstring of fitting length in the public modules of `library`."""
    for top in sorted(library.iterdir()):
        if _is_public(top.name.removesuffix(".py")):
            for file in sorted(top.rglob("*.py")) if top.is_dir() else [top]:
                if file.suffix == ".py" and not {"test", "tests"} & set(file.relative_to(library).parts[:-1]):
                    for node in _documented(_parsed(file)):
                        text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
                        if len(text) in CHARACTERS:
                            yield top.name.removesuffix(".py"), text


def _documented(node: ast.AST) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """The module, classes and functions, in the order of the source."""
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        yield node
    for block in ("body", "handlers", "orelse", "finalbody"):
        for child in getattr(node, block, ()):
            if hasattr(child, "body"):
                yield from _documented(child)


def _is_public(module: str) -> bool:
    return module.isidentifier() and not module.startswith("_") and module not in NOT_EVERYWHERE


def _parsed(file: Path) -> ast.Module:
    """The syntax tree of a file; an empty one where the file is a template that is no Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old escapes in other people's strings
        try:
            return ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):
            return ast.Module(body=[], type_ignores=[])
