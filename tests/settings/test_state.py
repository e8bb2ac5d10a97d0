"""Where budgets are kept, and which keys share one."""

from __future__ import annotations

from pathlib import Path

import pytest

from apiflux_grpc.core.units import MILLISECOND
from apiflux_grpc.settings import load
from apiflux_grpc.settings.types import StateSettings
from tests.settings.writing import GOOD, faults, loaded

SECOND_POOL = GOOD.replace("pools.default", "pools.second").replace('label = "a"', 'label = "b"')
SIMULATED = '[pools.default]\nlimits = []\nkeys = [{ secret = "s" }]\n'


def shared(text: str, name: str) -> str:
    return text.replace("secret =", f'budget = "{name}"\nsecret =', 1)


@pytest.mark.parametrize(
    ("environ", "directory"),
    [
        ({"HOME": "/home/me"}, "/home/me/.local/state/apiflux"),
        ({"HOME": "/home/me", "XDG_STATE_HOME": "/state"}, "/state/apiflux"),
        ({"HOME": "/home/me", "XDG_STATE_HOME": "state"}, "/home/me/.local/state/apiflux"),
        ({"HOME": "/home/me", "XDG_STATE_HOME": ""}, "/home/me/.local/state/apiflux"),
        ({"HOME": "me"}, None),
        ({}, None),
    ],
)
def test_budgets_of_a_real_api_are_kept_where_state_belongs(
    tmp_path: Path, environ: dict[str, str], directory: str | None
) -> None:
    """Though nobody asked for it; a user without a home has no such place."""
    state = loaded(tmp_path, GOOD, **environ).state
    assert state == StateSettings(None if directory is None else Path(directory))


def test_budgets_of_the_simulator_are_not_kept(tmp_path: Path) -> None:
    """Unless that is asked for, or a pool beside it calls a real API; of the environment's pool the same holds."""
    assert loaded(tmp_path, SIMULATED, HOME="/home/me").state.directory is None
    both = SIMULATED + SECOND_POOL
    assert loaded(tmp_path, both, HOME="/home/me").state.directory == Path("/home/me/.local/state/apiflux")
    asked = loaded(tmp_path, f'[server]\nstate_dir = "/x"\n{SIMULATED}').state
    assert (asked.directory, asked.asked_at.endswith("server.state_dir")) == (Path("/x"), True)
    real = {"UPSTREAM_URL": "http://127.0.0.1:1", "HOME": "/home/me"}
    assert load(None, environ=real).state.directory == Path("/home/me/.local/state/apiflux")
    assert load(None, environ={"HOME": "/home/me"}).state.directory is None


def test_a_state_dir_is_relative_to_its_file_and_can_be_switched_off(tmp_path: Path) -> None:
    """`""` means that nothing is kept."""
    assert loaded(tmp_path, f'[server]\nstate_dir = "s"\n{GOOD}', HOME="/h").state.directory == tmp_path / "s"
    assert loaded(tmp_path, f'[server]\nstate_dir = ""\n{GOOD}', HOME="/h").state == StateSettings()


def test_a_redis_is_where_budgets_are_kept(tmp_path: Path) -> None:
    """Nothing is kept in a directory then, and the URL's password is shown nowhere; it may come from a variable."""
    state = loaded(tmp_path, f'[budget]\nredis = "redis://:hunter2@h/1"\n{GOOD}', HOME="/h").state
    assert (state.directory, str(state.redis)) == (None, "redis://h:6379/1")
    assert state.asked_at.endswith("budget.redis")
    named = loaded(tmp_path, f'[budget]\nredis_env = "R"\n{GOOD}', HOME="/h", R="redis://:hunter2@h/1").state
    assert (named.redis, named.asked_at.endswith("budget.redis_env")) == (state.redis, True)
    assert "hunter2" not in repr(state)
    (fault,) = faults(tmp_path, f'[budget]\nredis_env = "R"\n{GOOD}', R="redis://:hunter2@h/x")
    assert "names a URL that must end with the number of the database" in fault
    assert "hunter2" not in fault


def test_what_is_taken_for_true_and_how_long_leases_live_can_be_said(tmp_path: Path) -> None:
    """The defaults: nothing was spent, and as follows from the limits."""
    state = loaded(tmp_path, f'[server]\ncold_start = "wait"\n[budget]\nlease = "200ms"\n{GOOD}').state
    assert (state.trust, state.life) == (False, 200 * MILLISECOND)


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (GOOD, SECOND_POOL, "has the secret of a in pool default"),
        (shared(GOOD, "x"), SECOND_POOL, "has the secret of a in pool default"),
        (shared(GOOD, "x"), shared(SECOND_POOL, "x"), ""),
        (shared(GOOD, "x"), shared(SECOND_POOL, "y"), ""),
        (GOOD.replace("{ max = 10", "{ max = 9"), SECOND_POOL, "has the secret of a in pool default"),
        (GOOD.replace('[{ max = 10, per = "1s" }]', "[]"), SECOND_POOL, "has the secret of a in pool default"),
        (*[text.replace('[{ max = 10, per = "1s" }]', "[]") for text in (GOOD, SECOND_POOL)], ""),
    ],
)
def test_a_secret_in_two_pools_says_how_it_is_counted(tmp_path: Path, first: str, second: str, says: str) -> None:
    """Together or apart: each pool would use it up to its own limits otherwise; without limits nothing is counted."""
    if not says:
        loaded(tmp_path, first + second)
        return
    (fault,) = faults(tmp_path, first + second)
    assert fault.startswith("pools.second.keys[0]: ")
    assert says in fault


def test_a_secret_of_the_environment_that_is_in_the_file_too_belongs_there(tmp_path: Path) -> None:
    """The environment has no way to say how it is counted."""
    environ = {"UPSTREAM_URL": "http://127.0.0.1:1", "API_KEYS": "canary-7f3a"}
    (fault,) = faults(tmp_path, SECOND_POOL, **environ)
    assert "has the secret of key-1 in API_KEYS; put that pool into this file too" in fault


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (GOOD, SECOND_POOL.replace("{ max = 10", "{ max = 9"), "which has other limits; make them the same"),
        (
            GOOD,
            SECOND_POOL.replace("limits", 'arrival_jitter = "1ms"\nlimits', 1),
            "arrival_jitter is 250ms and not 1ms",
        ),
        (GOOD, SECOND_POOL.replace('[{ max = 10, per = "1s" }]', "[]"), "which has other limits; make them the same"),
        (GOOD, SECOND_POOL.replace("{ max = 10", "{ max = 0"), ""),
    ],
)
def test_keys_that_share_a_budget_fit_together(tmp_path: Path, first: str, second: str, says: str) -> None:
    """The same limits, on the same terms; and of limits that are at fault themselves nothing more is said."""
    found = faults(tmp_path, shared(first, "x") + shared(second, "x"))
    assert len(found) == 1
    assert (found[0].startswith("pools.second.keys[0].budget: ") and says in found[0]) or not says


def test_keys_of_one_pool_share_by_a_group(tmp_path: Path) -> None:
    """A budget's name is for keys of different pools."""
    text = shared(GOOD, "x") + '[[pools.default.keys]]\nbudget = "x"\nsecret = "other"\n'
    (fault,) = faults(tmp_path, text)
    assert fault.startswith("pools.default.keys[1].budget: is the budget of keys[0] too")
    assert "use a group" in fault


@pytest.mark.parametrize(
    ("store", "lease", "is_warned"),
    [
        ('[server]\nstate_dir = "state"\n', "500ms", False),
        ('[server]\nstate_dir = "state"\n', "600ms", True),
        ('[server]\nstate_dir = ""\n', "600ms", False),
    ],
)
def test_a_lease_longer_than_half_of_a_window_is_warned_of(
    tmp_path: Path, store: str, lease: str, is_warned: bool
) -> None:
    """It works, but what a killed process held counts as spent for longer; without a store nothing is lent."""
    warnings = loaded(tmp_path, f'{store}[budget]\nlease = "{lease}"\n{GOOD}').warnings
    found = [one for one in warnings if "more than half of the shortest `per`" in one]
    assert bool(found) == is_warned
    assert all("budget.lease: 600 ms is more than half of the shortest `per`, 1 s" in one for one in found)
