"""Things that tests share are made anew after one of them has failed, for its second try too."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.lab.lab import Lab
from tests.support.lab.mesh_bed import LAST_LINES, Bed

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).parents[1] / "conftest.py"

SHARED = """
import pytest

def tell(step):
    with open("steps", "a") as file:
        print(step, file=file)

@pytest.fixture(scope="session")
def everything():
    tell("RUN up")
    yield
    tell("RUN down")

@pytest.fixture(scope="module")
def cable(everything):
    tell("CABLE up")
    yield
    tell("CABLE down")

@pytest.fixture(scope="module")
def bed(cable):
    made = {"whole": True}
    tell("BED up")
    yield made
    tell("BED down")

@pytest.fixture
def whole(bed):
    assert bed["whole"]
    yield bed
    assert bed["whole"]
"""
LATER = """
def test_later(whole): pass
"""
UP, DOWN = ["CABLE up", "BED up"], ["BED down", "CABLE down"]
ONCE = ["RUN up", *UP, *DOWN, "RUN down"]
TWICE = ["RUN up", *UP, *DOWN, *UP, *DOWN, "RUN down"]


def run(pytester: pytest.Pytester, tests: str, *options: str) -> pytest.RunResult:
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makepyfile(SHARED + tests)
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", *options)


def steps(pytester: pytest.Pytester) -> list[str]:
    return (pytester.path / "steps").read_text().splitlines()


@pytest.mark.parametrize(
    "breaks",
    [
        "def test_breaks(whole): whole['whole'] = False; assert 0",
        "def test_breaks(whole): whole['whole'] = False",  # its teardown finds it
        "def test_breaks(bed): bed['whole'] = False; raise KeyError",
    ],
)
def test_a_failed_test_takes_nobody_with_it(pytester: pytest.Pytester, breaks: str) -> None:
    result = run(pytester, breaks + LATER)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.no_fnmatch_line("*test_later*")
    assert steps(pytester) == TWICE


def test_the_second_try_has_things_of_its_own(pytester: pytest.Pytester) -> None:
    flaky = """
TRIES = []
def test_flaky(whole):
    TRIES.append(1)
    whole["whole"] = len(TRIES) > 1
    assert whole["whole"]
"""
    result = run(pytester, flaky + LATER, "--reruns", "1")
    result.assert_outcomes(passed=2)
    assert steps(pytester) == TWICE


def test_what_could_not_be_made_is_tried_again(pytester: pytest.Pytester) -> None:
    unmade = """
TRIES = []
@pytest.fixture(scope="module")
def lab(bed):
    TRIES.append(1)
    assert len(TRIES) > 1
def test_first(lab): pass
def test_second(lab): pass
"""
    result = run(pytester, unmade)
    result.assert_outcomes(passed=1, errors=1)
    assert steps(pytester) == TWICE


def test_without_a_failure_all_share(pytester: pytest.Pytester) -> None:
    result = run(pytester, LATER + "def test_last(whole): pass")
    result.assert_outcomes(passed=2)
    assert steps(pytester) == ONCE


def test_a_failed_lab_leaves_its_last_words(tmp_path: Path) -> None:
    bed = Bed(Lab(tmp_path), ("a", "b"))
    assert bed.last_words() == "", "it is down"
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/mesh-client.log").touch()
    (tmp_path / "logs/agent-a.log").write_text("".join(f"line {n}\n" for n in range(100)))
    first, *rest = bed.last_words().splitlines()
    assert (first, len(rest), rest[-1]) == ("-- agent-a", LAST_LINES, "line 99")


def test_the_captured_output_of_a_first_try_is_shown(pytester: pytest.Pytester) -> None:
    flaky = """
TRIES = []
def test_flaky(whole):
    TRIES.append(1)
    print("first words")
    assert len(TRIES) > 1
"""
    result = run(pytester, flaky, "--reruns", "1")
    result.stdout.fnmatch_lines(["*FLAKY*test_flaky*", "*first words*"])


def test_what_complains_as_it_is_destroyed_does_not_end_the_run(pytester: pytest.Pytester) -> None:
    """As the transport of a child of a closed loop does, while pytest reads a failed test."""
    tests = """
        import ast

        class Left:
            def __init__(self):
                self.itself = self  # for the collector

            def __del__(self):
                raise RuntimeError(str(1))

        parse = ast.parse
        def parsed(source, *more, **named):
            if isinstance(source, str) and "def test_breaks" in source:
                Left()
                source += "x = [1, 2]\\n" * 1000
            return parse(source, *more, **named)
        ast.parse = parsed

        def test_breaks():
            assert 0

        def test_later(): pass
    """
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makepyfile(tests)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, failed=1)
