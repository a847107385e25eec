"""The command line: parse, run a command, turn errors into one line and an exit status."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from rmtntk._version import __version__
from rmtntk.commands import analysis, completion, compress, models, rerun, theory
from rmtntk.commands._parser import Parser
from rmtntk.errors import ConvergenceError, InfeasibleError

__all__ = ["main"]

_EXAMPLES = {
    "compress": compress.EXAMPLES[:2],
    "predict": models.PREDICT_EXAMPLES[:1],
    "match": theory.MATCH_EXAMPLES[:1],
    "kernel": analysis.KERNEL_EXAMPLES[:1],
    "equivalent": analysis.EQUIVALENT_EXAMPLES[:1],
    "spectrum": analysis.SPECTRUM_EXAMPLES[:1],
    "verify": theory.VERIFY_EXAMPLES[:1],
    "rerun": rerun.EXAMPLES[:1],
    "info": models.INFO_EXAMPLES[:1],
}
_STATUSES = """\
exit status:
  0    done (also where the reader of the output, such as head, had seen enough)
  1    a check failed, nothing feasible was found, or an iteration did not converge
  2    bad input: options, configuration, data or files; a missing extra; too little memory
  70   an error of rmtntk itself, with a traceback: please report it
  130  interrupted"""


def _parser() -> Parser:
    lines = [f"  rmtntk {name} {text}".rstrip() for name, examples in _EXAMPLES.items() for text in examples]
    parser = Parser(
        prog="rmtntk",
        description="Kernels of wide networks, and ternary networks with the same kernels.",
        epilog="\n".join(["examples:", *lines, "", _STATUSES]),
    )
    parser.add_argument("--version", action="version", version=f"rmtntk {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (compress, analysis, theory, models, rerun, completion):
        module.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what could come next
        try:
            completion.complete(parser)
        except ImportError as error:
            return _fail("completion", error, 2)
    args = argparse.Namespace(command="")
    try:
        args = parser.parse_args(argv)
        run: Callable[[argparse.Namespace], int] = args.run
        return run(args)
    except (InfeasibleError, ConvergenceError) as error:
        return _fail(args.command, error, 1)
    except BrokenPipeError:  # the reader of our output has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError, OSError, ImportError) as error:
        return _fail(args.command, error, 2)
    except MemoryError as error:
        return _fail(args.command, MemoryError(f"not enough memory: {error}; take smaller widths or fewer samples"), 2)
    except KeyboardInterrupt:
        print(f"rmtntk {args.command}: interrupted", file=sys.stderr)
        return 130
    except Exception:  # noqa: BLE001 - its traceback is printed: 1, Python's own status, means a check that failed
        traceback.print_exc()
        return 70


def _fail(command: str, error: Exception, status: int) -> int:
    print(f"rmtntk {command}: error: {' '.join(str(error).split())}", file=sys.stderr)
    return status
