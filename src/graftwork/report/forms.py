"""The forms that all our pages share: the page itself, tables, facts, findings, and the machine they came from."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graftwork.report.markup import Markup, element, join

SEVERITIES = {"error": "✖ error", "warning": "▲ warning", "note": "● note"}


def document(title: str, body: Sequence[Markup | None], *, styles: Sequence[str], script: str | None = None) -> str:
    """One whole HTML file that fetches nothing.

    Args:
        title: of the browser's tab.
        body: the sections; None is left out.
        styles: file names beside this one.
        script: a file name beside this one; without it the page runs nothing.
    """
    code = _beside(script) if script else None
    allowed = "default-src 'none'; " + (_only(code) if code else "") + "style-src 'unsafe-inline'"
    head = element(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        # Should a text ever get past the escaping, the browser still runs no script of its own and fetches nothing.
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{allowed}">'),
        element("title", title),
        element("style", [_beside(style) for style in styles]),
    )
    ends = element("script", code) if code else None
    return f'<!doctype html>\n<html lang="en">{join(head, element("body", element("main", body), ends))}</html>\n'


def _beside(name: str) -> Markup:
    return Markup(Path(__file__).with_name(name).read_text(encoding="utf-8"))


def _only(code: str) -> str:
    """A policy that lets this one inline script run; browsers that know hashes ignore 'unsafe-inline' beside one."""
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return f"script-src 'unsafe-inline' 'sha256-{digest}'; "


def table(header: Sequence[str], rows: list[Markup], class_: str | None = None) -> Markup:
    """A table; a # at the end of a column's name sets it to the right, as numbers are."""
    names = [element("th", name.rstrip("#"), class_="number" if name.endswith("#") else None) for name in header]
    return element("table", element("thead", element("tr", names)), element("tbody", rows), class_=class_)


def facts(*pairs: tuple[str, Any]) -> Markup:
    """Names and values, one a line; what has no value is left out."""
    known = [
        element("tr", element("th", name), element("td", value)) for name, value in pairs if value not in (None, "")
    ]
    return element("table", known, class_="facts")


def finding(said: Mapping[str, Any]) -> Markup:
    """A finding: how grave, what, where, and what to do about it."""
    severity = said.get("severity", "note")
    where = element("div", said["where"], class_="quiet") if said.get("where") else None
    fix = element("div", f"→ {said['fix']}") if said.get("fix") else None
    return element(
        "div",
        element("div", SEVERITIES[severity], class_=f"severity {severity}"),
        element("div", said.get("message"), " ", element("code", said.get("code"), class_="quiet"), where, fix),
        class_="finding",
    )


def surroundings(environment: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Facts about the machine and the versions, from what `run.environment` saw."""
    git, memory = environment.get("git") or {}, environment.get("memory_mb")
    processor = [environment.get("cpu"), f"{environment['cores']} cores" if environment.get("cores") else None]
    return [
        ("Python", environment.get("python")),
        ("Packages", ", ".join(f"{name} {version}" for name, version in (environment.get("packages") or {}).items())),
        ("System", environment.get("platform")),
        ("Processor", ", ".join(part for part in processor if part)),
        ("Memory", f"{memory / 1024:.1f} GiB" if memory else None),
        (
            "Code of the working folder",
            f"{git['commit'][:12]}{' with changes' if git.get('dirty') else ''}" if git.get("commit") else None,
        ),
    ]
