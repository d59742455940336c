"""The command line: one function a verb, each thin. The verbs do the work; here it is only asked for and told.

What is for people goes to stdout, progress and errors to stderr; with `--json` stdout holds exactly one JSON object and
people read stderr. Exit codes: 0 done, 1 the run failed, 2 the input was wrong, 130 interrupted.

Nothing heavy is imported before a verb runs, so that `graft --help` answers at once.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from graftwork.cli.screen import Screen
    from graftwork.run import Run

DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130
app = typer.Typer(
    name="graft",
    help="Take a pretrained Transformer to your task, and see why the result is good. To begin: graft demo",
    epilog="Exit codes: 0 done, 1 the run failed, 2 the input was wrong, 130 interrupted.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The entry point of `graft`."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = app(spelled_out(sys.argv[1:]), prog_name="graft", standalone_mode=False)
    except typer.Abort:
        code = INTERRUPTED
    except typer.TyperException as error:
        said = getattr(error, "format_message", error.__str__)()
        code = _refuse(screen_of("--json" in sys.argv), f"{' '.join(said.split())} See: graft --help")
    sys.exit(code)


def spelled_out(words: list[str]) -> list[str]:
    """What was typed, with the value that `--quantized` has by itself: typer knows no option that may go without.

    Example:
        >>> spelled_out(["export", "RUN", "--quantized", "--json"])
        ['export', 'RUN', '--quantized=dynamic', '--json']
    """
    following = [*words, "-"][1:]
    alone = [
        w == "--quantized" and (f.startswith("-") or Path(f).is_dir()) for w, f in zip(words, following, strict=True)
    ]
    return [f"{w}=dynamic" if bare else w for w, bare in zip(words, alone, strict=True)]


def verb(*, json: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Puts a function on the command line; whatever leaves it becomes a sentence and an exit code.

    Args:
        json: the keys of the object it answers with, for its help.
    """

    def put(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def guarded(**asked: Any) -> None:
            _quiet()
            try:
                function(**asked)
                sys.stdout.flush()
            except (typer.Exit, typer.TyperException):
                raise
            except BrokenPipeError:
                # The reader has seen enough; the interpreter's last flush must not complain either.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            except BaseException as error:
                raise typer.Exit(_explain(screen_of(asked["as_json"]), error)) from None

        return app.command(epilog=f"With --json: {json}.")(guarded)

    return put


@app.callback(invoke_without_command=True)
def graft(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Without a verb: what there is."""
    if version:
        from graftwork import __version__

        print(__version__)  # noqa: T201
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def screen_of(as_json: bool) -> Screen:
    """Where a verb's words go."""
    from graftwork.cli.screen import Screen

    return Screen(json=as_json)


def _quiet() -> None:
    """Warnings of ours only: the bars and the advice of the libraries below speak to programmers."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for name, value in {"TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}.items():
        os.environ.setdefault(name, value)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


# What went wrong, in a sentence and an exit code


def _explain(screen: Screen, error: BaseException) -> int:
    from graftwork.choice import InputError

    if isinstance(error, InputError):
        return _refuse(screen, str(error), [finding.as_dict() for finding in getattr(error, "findings", ())])
    run = getattr(error, "run", None)
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Interrupted":
        return _interrupted(screen, run)
    return _failed(screen, error, run)


def _refuse(screen: Screen, said: str, findings: list[dict[str, Any]] | None = None) -> int:
    screen.complain(said)
    screen.answer(error=said, exit=WRONG_INPUT, **({"findings": findings} if findings else {}))
    return WRONG_INPUT


def _interrupted(screen: Screen, run: Run | None) -> int:
    said = f"Interrupted. Go on with: graft resume {run.path}" if run else "Interrupted."
    screen.complain(said)
    screen.answer(error=said, exit=INTERRUPTED, run=run and run.path)
    return INTERRUPTED


def _failed(screen: Screen, error: BaseException, run: Run | None) -> int:
    from graftwork.run import plain_cause

    said = (run and run.cause) or plain_cause(error)
    log = run.path / "log.txt" if run and (run.path / "log.txt").exists() else None
    if log is None:
        with tempfile.NamedTemporaryFile("w", prefix="graft-", suffix=".log", delete=False) as file:
            file.write("".join(traceback.format_exception(error)))
        log = Path(file.name)
    screen.complain(f"{said} The details are in {log}")
    screen.answer(error=said, exit=FAILED, log=log, run=run and run.path)
    return FAILED
