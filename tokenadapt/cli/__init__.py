"""The command line: parse, call one library function, show. The only room that prints.

`COMMANDS` is the whole list; a command's module is imported when its name or its help is asked for, and imports
nothing heavy at its top.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from types import FrameType
from typing import Final, NoReturn

import click

from tokenadapt import __version__
from tokenadapt.errors import Terminated, TokenAdaptError

# name -> module:function
COMMANDS: Final[dict[str, str]] = {
    "transplant": "tokenadapt.cli.transplant:transplant",
    "apply-plan": "tokenadapt.cli.apply_plan:apply_plan",
    "calibrate": "tokenadapt.cli.calibrate:calibrate",
    "probe": "tokenadapt.cli.probe:probe",
    "explain": "tokenadapt.cli.explain:explain",
    "train-tokenizer": "tokenadapt.cli.train_tokenizer:train_tokenizer",
    "count": "tokenadapt.cli.count:count",
    "compare-tokenizers": "tokenadapt.cli.compare_tokenizers:compare_tokenizers",
    "eval-ppl": "tokenadapt.cli.eval_ppl:eval_ppl",
    "methods": "tokenadapt.cli.methods:methods",
    "verify": "tokenadapt.cli.verify:verify",
    "cache": "tokenadapt.cli.cache:cache",
}


class LazyGroup(click.Group):
    """A group that imports a command only when it is wanted."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, function = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), function)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="tokenadapt")
@click.option("-v", "--verbose", is_flag=True, help="Say more.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but results and errors.")
@click.option("--log-file", type=click.Path(dir_okay=False), help="Write the log to this file as well.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, verbose: bool, quiet: bool, log_file: str | None, debug: bool) -> None:
    """Make a language model's tokenizer replaceable."""
    from tokenadapt.cli.session import Session

    ctx.obj = Session(verbose=verbose, quiet=quiet, log_file=log_file, debug=debug)
    ctx.obj.start()


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def main() -> NoReturn:
    """Run a command; 0 done, 1 failed, 2 wrong request, 130 Ctrl-C, 143 SIGTERM."""
    signal.signal(signal.SIGTERM, _terminate)
    debug = "--debug" in sys.argv
    try:
        code = cli.main(prog_name="tokenadapt", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except TokenAdaptError as error:
        logging.getLogger("tokenadapt").debug("failed", exc_info=True)
        if debug:
            raise
        _say(f"Error: {error.message}", f"Hint: {error.hint}" if error.hint else "")
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2 if isinstance(error, click.UsageError) else error.exit_code)
    except (KeyboardInterrupt, click.Abort) as error:
        terminated = isinstance(error, Terminated) or isinstance(error.__cause__, Terminated)  # click makes it an Abort
        _say(f"{'Stopped by SIGTERM' if terminated else 'Interrupted'}; nothing half written was left behind.")
        sys.exit(143 if terminated else 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if debug:
            raise
        _say(f"Error: {error}", os_hint(error))
        sys.exit(1)


def os_hint(error: OSError) -> str:
    """What to do about an error of the operating system."""
    import errno

    hints = {
        errno.ENOSPC: "Free some space, or name an output on another disk.",
        errno.EDQUOT: "Your disk quota is used up: free some space, or name an output elsewhere.",
        errno.EACCES: "Check the permissions of that path.",
        errno.EROFS: "That file system is read-only: name another place.",
    }
    hint = hints.get(error.errno or 0, "Run again with --debug for the traceback.")
    return f"Hint: {hint}"


def _say(*lines: str) -> None:
    for line in lines:
        if line:
            click.echo(line, err=True)
