"""Breaks the code on purpose, one way at a time, and sees that the tests notice.

    python -m tests.mutants [word ...]

Copies the tree, and for each variant of variants.py whose name has one of the words (all without any) replaces the
text and runs the tests that must fail. Ends with 1 if they pass, or if the text isn't there any more: then the variant
is to be written anew. Those that failed are run without any variant in the end, and must pass. Ends with 2, and runs
nothing, if no variant's name has one of the words. One more runs at a time than there are cores.
"""

from __future__ import annotations

import os
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


def pytest_runtest_logreport(report):
    import os
    from pathlib import Path

    if report.failed and "MUTANTS_FAILED" in os.environ:
        with Path(os.environ["MUTANTS_FAILED"]).open("a") as file:
            file.write(report.nodeid + "\\n")
"""
FAILED: Final = "MUTANTS_FAILED"  # the file that gets a line with the name of each test that fails
EXAMPLES: Final[tuple[tuple[str, ...], ...]] = (
    (),
    ("--hypothesis-profile=others", "--hypothesis-seed=1"),
    ("--hypothesis-profile=others", "--hypothesis-seed=2"),
)
TIMEOUT: Final = 150  # seconds; what hangs is noticed too, mostly by the test's own timeout
UNTOUCHED: Final = 1200  # for all tests that failed, together and without a variant
QUICK, SLOW = "not slow", "slow"
NONE_CHOSEN: Final = 5  # what pytest ends with if none of the tests is of the kind


def copy_tree(to: Path) -> Path:
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, to / name)
    with (to / "tests" / "conftest.py").open("a") as conftest:
        conftest.write(UNSHRUNK)
    return to


def run(
    tree: Path, tests: tuple[str, ...], *options: str, env: dict[str, str], timeout: int
) -> subprocess.CompletedProcess[bytes]:
    # What an assertion compared is nobody's question: without it pytest starts in half the time.
    plain = ("-q", "-p", "no:cacheprovider", "--assert=plain")
    command = [sys.executable, "-m", "pytest", *plain, *options, *tests]
    env = {**os.environ, "PYTHONPATH": str(tree), **env}
    return subprocess.run(command, cwd=tree, env=env, capture_output=True, timeout=timeout, check=False)


def failing(tree: Path, tests: tuple[str, ...], *options: str) -> tuple[str, ...]:
    """The first of these tests that fails, or all if it isn't known which or they aren't over in time. None: ()."""
    told = tree / "failed"
    told.unlink(missing_ok=True)
    # The bytecode of files that nobody touches is read; of a variant none is left that another could be taken for.
    env = {"PYTHONDONTWRITEBYTECODE": "1", FAILED: str(told)}
    try:
        done = run(tree, tests, "-x", "-p", "no:xdist", *options, env=env, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return tests
    if told.exists():
        return (_lines(told)[0],)  # whatever comes after it: threads of gRPC may crash the interpreter on its way out
    if done.returncode not in (0, 1, NONE_CHOSEN):
        raise RuntimeError(f"pytest ended with {done.returncode}: {done.stdout.decode()}{done.stderr.decode()}")
    return tests if done.returncode == 1 else ()


def noticed_by(tree: Path, variant: Variant) -> tuple[str, ...]:
    """The tests that fail with this variant. Raises RuntimeError, with what is wrong, if there are none."""
    path = tree / variant.file
    text, times = path.read_text(), path.stat()
    found = text.count(variant.old)
    if found != 1:
        raise RuntimeError(f"its text is there {found} times")
    path.write_text(text.replace(variant.old, variant.new))
    try:
        for examples in EXAMPLES:
            for which in (QUICK, SLOW):
                if failed := failing(tree, variant.tests, "-m", which, *examples):
                    return failed
        raise RuntimeError(f"survives {' '.join(variant.tests)}")
    finally:
        path.write_text(text)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # its bytecode is good again


def without_variant(tree: Path, tests: set[str]) -> str:
    """ "": these tests pass without any variant; else what pytest says. Whatever fails here has noticed nothing.

    What fails beside others is run once more, alone: that it can pass is all there is to know here.
    """
    listed, told = tree / "listed", tree / "failed"
    told.unlink(missing_ok=True)
    listed.write_text("".join(f"{test}\n" for test in sorted(tests)))
    beside = ("-n", str(AT_ONCE), "--dist", "worksteal", "-m", "")
    done = run(tree, (f"@{listed}",), *beside, env={FAILED: str(told)}, timeout=UNTOUCHED)
    if done.returncode == 1 and told.exists():
        alone = tuple(dict.fromkeys(_lines(told)))
        done = run(tree, alone, "-p", "no:xdist", "-m", "", env={}, timeout=UNTOUCHED)
    return "" if done.returncode == 0 else done.stdout.decode()


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines()


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
        trees.put(first)
        for number in range(1, AT_ONCE):
            trees.put(shutil.copytree(first, Path(folder) / str(number)))

        def one_try(variant: Variant) -> tuple[tuple[str, ...], str, float]:
            tree, at = trees.get(), time.monotonic()
            try:
                return noticed_by(tree, variant), "", time.monotonic() - at
            except RuntimeError as error:
                return (), str(error), time.monotonic() - at
            finally:
                trees.put(tree)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            tries = list(pool.map(one_try, chosen))
        noticing = {test for tests, _, _ in tries for test in tests}
        said = without_variant(first, noticing) if noticing else ""
    for variant, (_, what, seconds) in zip(chosen, tries, strict=True):
        print(f"{'ok  ' if not what else 'FAIL'} {seconds:3.0f} s  {variant.name}{': ' + what if what else ''}")
    count = sum(bool(what) for _, what, _ in tries)
    print(f"{len(chosen)} variants, {count} not noticed, {time.monotonic() - began:.0f} s")
    if said:
        print(f"these tests fail without any variant, so they told nothing:\n{said}")
    return 1 if count or said else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
