"""GitHub: what is asked most of its REST API, and GraphQL.

Its answers: https://docs.github.com/en/rest. Its errors:
https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api. Nothing is remembered: an issue that
was made can't be found in a list.
"""

from collections.abc import Callable, Mapping
from typing import Final

from apiflux_grpc.judge.apis.api import Api, Asked, Route, Said, Trouble, Usage
from apiflux_grpc.judge.dialects import DIALECTS
from apiflux_grpc.judge.places import BEARER, X_COST

DOCS: Final = "https://docs.github.com/rest"
SITE: Final = "https://api.github.com"
LISTED: Final = 3  # entries of a list, if a page has room for so many
MADE: Final = "2024-01-01T00:00:00Z"
ERRORS: Final[Mapping[int, str]] = {
    400: "Problems parsing JSON",
    401: "Bad credentials",
    403: "Resource not accessible by personal access token",
    404: "Not Found",
    422: "Validation Failed",
    429: "You have exceeded a secondary rate limit.",
    500: "Server Error",
    503: "Service Unavailable",
}


def _error(trouble: Trouble) -> Said:
    status = str(trouble.status)
    message = ERRORS.get(trouble.status) or trouble.message or "Server Error"
    if trouble.status == 403 and trouble.message:
        return Said(403, trouble.message, "text/plain")
    body: dict[str, object] = {"message": message, "documentation_url": DOCS, "status": status}
    if trouble.code is not None:
        body["errors"] = [{"resource": "Request", "field": trouble.param, "code": trouble.code}]
    return Said(trouble.status, body, "application/json; charset=utf-8")


def _missing(name: str) -> Trouble:
    return Trouble(422, "", name, "missing_field")


# -- what there is -------------------------------------------------------------------------------

Thing = Callable[[Asked, int], dict[str, object]]


def _user(asked: Asked, number: int) -> dict[str, object]:
    login = asked.names.get("user") or asked.names.get("org") or f"user-{number}"
    return {"login": login, "id": number, "type": "User", "url": f"{SITE}/users/{login}", "site_admin": False}


def _repository(asked: Asked, number: int) -> dict[str, object]:
    owner = asked.names.get("owner") or asked.names.get("user") or asked.names.get("org") or "octocat"
    name = asked.names.get("repo") or f"repository-{number}"
    return {
        "id": number,
        "name": name,
        "full_name": f"{owner}/{name}",
        "private": False,
        "owner": {"login": owner, "id": 1, "type": "User"},
        "url": f"{SITE}/repos/{owner}/{name}",
        "stargazers_count": number % 1000,
        "open_issues_count": number % 100,
        "default_branch": "main",
        "created_at": MADE,
    }


def _issue(asked: Asked, number: int) -> dict[str, object]:
    given = asked.names.get("number", "")
    title = asked.text("title") or f"Issue {number}"
    return {
        "id": number,
        "number": int(given) if given.isdecimal() and len(given) < 10 else number % 10_000,
        "title": title,
        "state": asked.text("state") or "open",
        "body": asked.text("body") or None,
        "user": {"login": "octocat", "id": 1, "type": "User"},
        "labels": [],
        "comments": 0,
        "created_at": MADE,
        "updated_at": MADE,
    }


def _comment(asked: Asked, number: int) -> dict[str, object]:
    text = asked.text("body") or f"Comment {number}"
    return {"id": number, "body": text, "user": {"login": "octocat", "id": 1}, "created_at": MADE}


def _commit(asked: Asked, number: int) -> dict[str, object]:
    author = {"name": "Octocat", "email": "octocat@example.com", "date": MADE}
    return {"sha": f"{number:040x}", "commit": {"author": author, "message": f"Change {number}"}, "parents": []}


def _named(asked: Asked, number: int) -> dict[str, object]:
    name = asked.names.get("name") or f"name-{number}"
    return {"name": name, "commit": {"sha": f"{number:040x}"}}


def _release(asked: Asked, number: int) -> dict[str, object]:
    return {"id": number, "tag_name": f"v{number % 100}.0.0", "draft": False, "prerelease": False, "assets": []}


def _content(asked: Asked, number: int) -> dict[str, object]:
    path = asked.names["path"]
    return {
        "type": "file",
        "name": path.rpartition("/")[2],
        "path": path,
        "sha": f"{number:040x}",
        "size": 6,
        "encoding": "base64",
        "content": "SnVkZ2VkCg==",
    }


# -- how it is answered --------------------------------------------------------------------------


def _one(thing: Thing) -> Callable[[Asked, Usage], object]:
    return lambda asked, _: thing(asked, asked.seed % 10**9)


def _many(thing: Thing) -> Callable[[Asked, Usage], list[object]]:
    return lambda asked, _: [thing(asked, asked.seed % 10**9 + at) for at in range(_page(asked))]


def _found(asked: Asked, usage: Usage) -> object:
    items = _many(SEARCHED.get(asked.names["what"], _named))(asked, usage)
    return {"total_count": len(items), "incomplete_results": False, "items": items}


def _page(asked: Asked) -> int:
    wanted = asked.query.get("per_page", "")
    return min(LISTED, int(wanted)) if wanted.isdecimal() and len(wanted) < 4 else LISTED


def _graphql(asked: Asked, usage: Usage) -> object:
    return {"data": {"viewer": {"login": "octocat"}}}


SEARCHED: Final[Mapping[str, Thing]] = {
    "issues": _issue,
    "repositories": _repository,
    "users": _user,
    "commits": _commit,
}
IN_REPOSITORY: Final[Mapping[str, Thing]] = {
    "issues": _issue,
    "pulls": _issue,
    "commits": _commit,
    "branches": _named,
    "tags": _named,
    "labels": _named,
    "releases": _release,
    "contributors": _user,
    "collaborators": _user,
    "stargazers": _user,
    "forks": _repository,
}
REPOSITORY: Final = "/repos/{owner}/{repo}"

GITHUB: Final = Api(
    key_in=BEARER,
    dialect=DIALECTS["github"],
    error=_error,
    missing=_missing,
    routes=(
        Route("GET", "/user", _one(_user)),
        Route("GET", "/user/repos", _many(_repository)),
        Route("GET", "/users/{user}", _one(_user)),
        Route("GET", "/users/{user}/repos", _many(_repository)),
        Route("GET", "/orgs/{org}", _one(_user)),
        Route("GET", "/orgs/{org}/repos", _many(_repository)),
        Route("GET", "/orgs/{org}/members", _many(_user)),
        Route("GET", REPOSITORY, _one(_repository)),
        *(Route("GET", f"{REPOSITORY}/{name}", _many(thing)) for name, thing in IN_REPOSITORY.items()),
        Route("GET", f"{REPOSITORY}/commits/{{ref}}", _one(_commit)),
        Route("GET", f"{REPOSITORY}/branches/{{name}}", _one(_named)),
        Route("GET", f"{REPOSITORY}/releases/latest", _one(_release)),
        Route("GET", f"{REPOSITORY}/contents/{{path+}}", _one(_content)),
        *(Route("GET", f"{REPOSITORY}/{name}/{{number}}", _one(_issue)) for name in ("issues", "pulls")),
        Route("GET", f"{REPOSITORY}/issues/{{number}}/comments", _many(_comment)),
        Route("POST", f"{REPOSITORY}/issues", _one(_issue), ("title",), status=201),
        Route("PATCH", f"{REPOSITORY}/issues/{{number}}", _one(_issue)),
        Route("POST", f"{REPOSITORY}/issues/{{number}}/comments", _one(_comment), ("body",), status=201),
        Route("GET", "/search/{what}", _found, ("q",)),
        Route("POST", "/graphql", _graphql, ("query",)),
    ),
    cost_in=X_COST,
    # https://docs.github.com/en/rest/using-the-rest-api/getting-started-with-the-rest-api#user-agent
    headers={"user-agent": Trouble(403, "Request forbidden by administrative rules: it needs a User-Agent header.")},
    fields=("x-github-request-id: {id}", "x-github-api-version-selected: 2022-11-28"),
    request_id="{:08X}:JUDGE",
)
