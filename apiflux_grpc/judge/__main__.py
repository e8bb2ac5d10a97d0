"""The judge of a `JudgeProcess`: one line of JSON options on stdin, then it runs until the parent is gone."""

import os
import sys

from apiflux_grpc.judge.process import from_line
from apiflux_grpc.judge.server import run_judge


def main() -> int:
    """Returns the exit code."""
    options, cpu = from_line(sys.stdin.readline())
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    return run_judge(options, until_eof=sys.stdin)


if __name__ == "__main__":
    sys.exit(main())
