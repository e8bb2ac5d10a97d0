"""The judge answers as GitHub does: what is listed, found and made, errors with a page of documentation."""

import pytest

from apiflux_grpc.judge.limits import Limit
from tests.judge.apis.asking import ask, speaks
from tests.judge.wires import MINUTE, SECOND

AGENT = "User-Agent: tests"


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/user", {"type": "User"}),
        ("/users/octocat", {"login": "octocat"}),
        ("/orgs/github", {"login": "github"}),
        ("/repos/octocat/hello", {"full_name": "octocat/hello", "default_branch": "main"}),
        ("/repos/octocat/hello/issues/17", {"number": 17, "state": "open"}),
        ("/repos/octocat/hello/branches/main", {"name": "main"}),
        ("/repos/octocat/hello/contents/docs/a.md", {"path": "docs/a.md", "name": "a.md"}),
        ("/search/issues?q=is:open", {"incomplete_results": False, "total_count": 3}),
    ],
)
def test_a_thing_is_found(target: str, shown: dict[str, object]) -> None:
    """What the path names is in the answer."""
    answer = ask(speaks("github"), target, None, AGENT)
    assert answer.status == 200
    assert shown.items() <= answer.body.items()
    assert answer.headers["x-github-request-id"]


@pytest.mark.parametrize("name", ["issues", "pulls", "commits", "branches", "releases", "contributors"])
def test_lists_are_lists(name: str) -> None:
    """A list has several entries, and no more than a page has room for."""
    wire = speaks("github")
    assert len(ask(wire, f"/repos/octocat/hello/{name}", None, AGENT).body) == 3
    assert len(ask(wire, f"/repos/octocat/hello/{name}?per_page=2", None, AGENT).body) == 2


def test_what_is_made_is_answered_with_201() -> None:
    """An issue and a comment are created with what was said; without a title there is none."""
    wire = speaks("github")
    made = ask(wire, "/repos/octocat/hello/issues", {"title": "Broken"}, AGENT)
    assert (made.status, made.body["title"]) == (201, "Broken")
    assert ask(wire, "/repos/octocat/hello/issues/1/comments", {"body": "So?"}, AGENT).body["body"] == "So?"
    refused = ask(wire, "/repos/octocat/hello/issues", {"body": "So?"}, AGENT)
    assert (refused.status, refused.body["message"]) == (422, "Validation Failed")
    assert refused.body["errors"] == [{"resource": "Request", "field": "title", "code": "missing_field"}]


def test_graphql_is_answered_with_data() -> None:
    """A query gets data, a body that is no JSON a 400."""
    wire = speaks("github")
    assert "data" in ask(wire, "/graphql", {"query": "{ viewer { login } }"}, AGENT).body
    assert ask(wire, "/graphql", b"{", AGENT).body["message"] == "Problems parsing JSON"


def test_errors_are_those_of_the_api() -> None:
    """A wrong key, a path that isn't there, and a request that doesn't say who sends it."""
    wire = speaks("github")
    refused = ask(wire, "/user", None, AGENT, key="wrong")
    assert (refused.status, refused.body["message"], refused.body["status"]) == (401, "Bad credentials", "401")
    assert ask(wire, "/nothing", None, AGENT).body["message"] == "Not Found"
    nobody = ask(wire, "/user")
    assert (nobody.status, nobody.headers["content-type"]) == (403, "text/plain")
    assert "User-Agent" in nobody.body


def test_limits_are_told_as_github_does() -> None:
    """The primary limit is told and refused with 403; a secondary one is refused with a page about such limits."""
    wire = speaks("github", Limit(1, SECOND), Limit(2, MINUTE))
    assert ask(wire, "/user", None, AGENT).headers["x-ratelimit-remaining"] == "1"
    secondary = ask(wire, "/user", None, AGENT)
    assert (secondary.status, secondary.headers["retry-after"]) == (429, "1")
    assert secondary.body["documentation_url"].endswith("#about-secondary-rate-limits")
    wire.now += SECOND
    ask(wire, "/user", None, AGENT)
    wire.now += SECOND
    primary = ask(wire, "/user", None, AGENT)
    assert (primary.status, primary.headers["x-ratelimit-remaining"]) == (403, "0")
    assert "retry-after" not in primary.headers
