"""Where a worker process begins: `python -I __main__.py dealer`, or `party RANK`. It speaks over its own pipes.

The environment of SPU and JAX has no Headrace in it, and must not see the packages beside Headrace, whose numpy is
another one: the name `headrace` is all that is lent to it.
"""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path


def lend_headrace() -> None:
    package = types.ModuleType("headrace")
    package.__path__ = [str(Path(__file__).resolve().parents[3])]
    sys.modules["headrace"] = package


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries print to stdout, which carries messages here
    lend_headrace()
    if sys.argv[1] == "party":
        from headrace.privacy.mpc.worker.party import serve as serve_party

        serve_party(int(sys.argv[2]), sys.stdin.buffer, answers)
        return
    from headrace.privacy.mpc.worker.dealer import serve as serve_dealer

    serve_dealer(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
