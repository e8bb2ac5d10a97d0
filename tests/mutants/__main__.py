"""Breaks the code on purpose, one way at a time, and sees that the tests notice.

    python -m tests.mutants [word ...]

Copies the tree, and for each variant of variants.py whose name has one of the words (all without any) replaces the
text and runs the tests that must fail. Ends with 1 if they pass, or if the text isn't there any more: then the variant
is to be written anew. Ends with 2, and runs nothing, if no variant's name has one of the words. One more runs at a time
than there are cores.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from tests.mutants.variant import Variant
from tests.mutants.variants import VARIANTS

ROOT: Final = Path(__file__).parents[2]
COPIED: Final = ("apiflux_grpc", "tests", "pyproject.toml")
AT_ONCE: Final = (os.cpu_count() or 1) + 1  # some wait for processes
# A failing example needn't be made small: that it fails is all there is to know. Examples are the same in every run, so
# that no variant is noticed by chance; but they are others on another Python, so what survives is tried on more.
UNSHRUNK: Final = """
from hypothesis import Phase, settings

phases = [Phase.explicit, Phase.generate]
settings.register_profile("mutants", phases=phases, database=None, deadline=None, derandomize=True)
settings.register_profile("others", phases=phases, database=None, deadline=None, derandomize=False)
settings.load_profile("mutants")
"""
EXAMPLES: Final[tuple[tuple[str, ...], ...]] = (
    (),
    ("--hypothesis-profile=others", "--hypothesis-seed=1"),
    ("--hypothesis-profile=others", "--hypothesis-seed=2"),
)
TIMEOUT: Final = 300  # seconds; what hangs is noticed too, mostly by the test's own timeout
UNTOUCHED: Final = 1200  # for all quick tests together, without a variant; of the slow ones `make test-slow` tells
QUICK, SLOW = "not slow", "slow"
INTERNAL, NONE_CHOSEN = 3, 5  # what pytest ends with if it fails itself, and if none of the tests is of the kind
# What pytest -q shows of tests that passed, and of the first that didn't.
FAILED_FIRST: Final = re.compile(rb"[.s\s]*F")


def copy_tree(to: Path) -> Path:
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, to / name)
    with (to / "tests" / "conftest.py").open("a") as conftest:
        conftest.write(UNSHRUNK)
    return to


def fails(
    tree: Path,
    tests: tuple[str, ...],
    timeout: int = TIMEOUT,
    *,
    which: str = QUICK,
    examples: tuple[str, ...] = (),
    untouched: bool = False,
) -> bool:
    """Whether any of these tests fails, or they aren't over after so many seconds."""
    # What an assertion compared is nobody's question: without it pytest starts in half the time.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "--assert=plain",
        "-m",
        which,
        *examples,
        *tests,
    ]
    env = {**os.environ, "PYTHONPATH": str(tree)}
    if untouched:
        command += ["-n", str(AT_ONCE), "--dist", "worksteal"]
        env.pop("PYTHONDONTWRITEBYTECODE", None)
    else:
        command += ["-p", "no:xdist"]
        # The bytecode of files that nobody touches is read; of a variant none is left that another could be taken for.
        env["PYTHONDONTWRITEBYTECODE"] = "1"
    try:
        done = subprocess.run(command, cwd=tree, env=env, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return True
    if done.returncode < 0 and FAILED_FIRST.match(done.stdout):
        return True  # a test failed; then the interpreter crashed on its way out, in gRPC's threads that it left behind
    if done.returncode == INTERNAL and b" in repr_failure\n" in done.stdout:
        return True  # a test failed, and pytest at showing where: CPython 3.11 has lines without a number
    if done.returncode not in (0, 1, NONE_CHOSEN):
        raise RuntimeError(f"pytest ended with {done.returncode}: {done.stdout.decode()}{done.stderr.decode()}")
    return done.returncode == 1


def tried(tree: Path, variant: Variant) -> str:
    """ "": it was noticed; else what is wrong."""
    path = tree / variant.file
    text, times = path.read_text(), path.stat()
    found = text.count(variant.old)
    if found != 1:
        return f"its text is there {found} times"
    path.write_text(text.replace(variant.old, variant.new))
    try:
        for examples in EXAMPLES:
            if any(fails(tree, variant.tests, which=which, examples=examples) for which in (QUICK, SLOW)):
                return ""
        return f"survives {' '.join(variant.tests)}"
    finally:
        path.write_text(text)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # its bytecode is good again


def main(words: list[str]) -> int:
    unknown = [word for word in words if not any(word in one.name for one in VARIANTS)]
    if unknown:
        print(f"no variant has {', '.join(map(repr, unknown))} in its name", file=sys.stderr)
        return 2
    chosen = [one for one in VARIANTS if not words or any(word in one.name for word in words)]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        first = copy_tree(Path(folder) / "0")
        tests = tuple(dict.fromkeys(test for one in chosen for test in one.tests))
        if fails(first, tests, UNTOUCHED, untouched=True):
            print("the tests fail without any variant: nothing can be told")
            return 1
        trees.put(first)
        for number in range(1, AT_ONCE):
            trees.put(shutil.copytree(first, Path(folder) / str(number)))

        def one_try(variant: Variant) -> tuple[str, float]:
            tree, at = trees.get(), time.monotonic()
            try:
                what = tried(tree, variant)
            except RuntimeError as error:
                what = str(error)
            finally:
                trees.put(tree)
            return what, time.monotonic() - at

        with ThreadPoolExecutor(AT_ONCE) as pool:
            tries = list(pool.map(one_try, chosen))
    for variant, (what, seconds) in zip(chosen, tries, strict=True):
        print(f"{'ok  ' if not what else 'FAIL'} {seconds:3.0f} s  {variant.name}{': ' + what if what else ''}")
    count = sum(bool(what) for what, _ in tries)
    print(f"{len(chosen)} variants, {count} not noticed, {time.monotonic() - began:.0f} s")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
