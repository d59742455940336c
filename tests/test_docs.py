"""What the docs say is so: commands parse, code runs, links lead somewhere, generated pages are fresh."""

from __future__ import annotations

import csv
import doctest
import importlib
import re
import runpy
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from graftwork import __version__
from graftwork.cli import app

ROOT = Path(__file__).parents[1]
READMES = ("README.md", "README.zh-CN.md")
PAGES = sorted(str(page.relative_to(ROOT)) for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
SOURCES = ROOT / "src" / "graftwork"


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """Every `graft ...` of the README, without its remark."""
    lines = [line for block in blocks("README.md", "sh") for line in block.splitlines()]
    return [line.split("  #")[0].strip() for line in lines if line.startswith("graft ")]


@pytest.mark.parametrize("command", commands())
def test_a_command_is_understood(command: str) -> None:
    group: Any = typer.main.get_command(app)
    context = group.make_context("graft", [])
    _, verb, rest = group.resolve_command(context, shlex.split(command)[1:])
    verb.make_context(verb.name, rest, parent=context)


def test_there_are_commands_of_every_stage_of_the_road() -> None:
    said = {command.split()[1] for command in commands()}
    assert said >= {"check", "methods", "fit", "evaluate", "predict", "resume", "runs"}


def test_ci_runs_the_second_command_of_the_readme() -> None:
    install, test = (block.strip() for block in blocks("README.md", "sh")[:2])
    assert install.endswith("graft demo")
    assert f"\n{test}\n" in (ROOT / ".ci" / "run").read_text()


def test_both_readmes_have_the_same_code() -> None:
    found = {language: [blocks(page, language) for page in READMES] for language in ("sh", "python", "yaml", "text")}
    assert all(english == chinese for english, chinese in found.values())
    assert all(english for english, _ in found.values())


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import graftwork.methods  # noqa: F401  those of the shelf stand on the shelf that is put back
    from graftwork.method import Method

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Method, "_shelf", dict(Method._shelf))
    things = ("food", "room", "view", "staff", "lift", "bed", "pool", "desk", "lobby", "garden")
    tastes = {"good": ("lovely", "great", "perfect"), "bad": ("awful", "broken", "dirty")}
    with open("reviews.csv", "w", newline="") as file:
        rows = [
            (f"The {thing} was {word}.", name) for name, words in tastes.items() for word in words for thing in things
        ]
        csv.writer(file).writerows([("text", "label"), *rows])
    first, *others = blocks("README.md", "python")
    assert len(first.strip().splitlines()) <= 6
    for number, block in enumerate([first, *others]):
        Path(f"{number}.py").write_text(block)
        runpy.run_path(f"{number}.py")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / page).read_text(encoding="utf-8"))
    missing = [
        link for link in links if not link.startswith("http") and not (ROOT / page).parent.joinpath(link).exists()
    ]
    assert missing == []


def test_generated_pages_are_fresh() -> None:
    pages = runpy.run_path(str(ROOT / "docs" / "generate.py"))["pages"]()
    stale = [
        path.name for path, text in pages.items() if path.parent.name == "docs" and path.read_text("utf-8") != text
    ]
    assert stale == [], "run: python docs/generate.py"


@pytest.mark.parametrize("page", READMES)
def test_the_readme_holds_the_run_file_and_no_number_without_a_result(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    fresh = runpy.run_path(str(ROOT / "docs" / "generate.py"))["readme"](text, "zh" if "zh" in page else "en")
    assert blocks(page, "yaml") == [(ROOT / "examples" / "run.yaml").read_text(encoding="utf-8")]
    stated = re.search(r"<!-- benchmarks -->(.*)<!-- /benchmarks -->", text, flags=re.DOTALL)
    assert stated
    assert [line for line in stated[1].splitlines() if line not in fresh.splitlines()] == []


def test_the_keys_of_json_are_those_that_help_names() -> None:
    page = (ROOT / "docs" / "run-folder.md").read_text(encoding="utf-8")
    said = [str(verb.epilog).removeprefix("With --json: ").removesuffix(".") for verb in app.registered_commands]
    assert [keys for keys in said if keys not in page] == []


def test_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_dependency_is_pinned_by_the_constraints() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {
        re.split(r"[<>=\[]", line)[0] for line in project["dependencies"] + project["optional-dependencies"]["test"]
    }
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    assert all("==" in line for line in lines)
    assert {name.lower() for name in asked} - pinned == set()


def test_every_module_stands_in_the_architecture() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    modules = [path.name for path in SOURCES.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    assert [name for name in modules if name not in page] == []


@pytest.mark.parametrize(
    "module", sorted(path.stem for path in SOURCES.glob("*.py") if ">>> " in path.read_text(encoding="utf-8"))
)
def test_the_examples_in_docstrings_are_true(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"graftwork.{module}"))
    assert found.attempted
    assert found.failed == 0
