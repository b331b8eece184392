"""Writes the comparison under the pull request: one comment, which later runs bring up to date.

Where it may not (a pull request from a fork has a token that only reads), it says so as a warning: a gate does not
fail for want of a comment. Standard library only; GITHUB_* are what every runner sets.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

LONGEST = 65_536
"""Characters of a comment."""
PER_PAGE = 100
TIMEOUT = 30.0


def body(told: str, name: str, run: str) -> str:
    """The comment: a mark by which it is found again, the Markdown, and where the raw data is.

    Of what is too long the folded part is left out, and then whole lines.
    """
    end = f"\n[The run and its raw data]({run})\n"
    room = LONGEST - len(mark(name)) - len(end) - 1
    if len(told) > room:
        told = told.partition("<details>")[0]
    while len(told) > room:
        told = told.rstrip("\n").rpartition("\n")[0] + "\n"
    return f"{mark(name)}\n{told}{end}"


def mark(name: str) -> str:
    return f"<!-- weighbridge: {name.replace('--', '')} -->"


def call(method: str, path: str, content: Any = None) -> Any:
    """One request to GitHub's REST API. Raises urllib.error.URLError, and what json.load raises."""
    request = urllib.request.Request(
        f"{os.environ['GITHUB_API_URL']}/repos/{os.environ['GITHUB_REPOSITORY']}/{path}",
        method=method,
        data=None if content is None else json.dumps(content).encode(),
        headers={
            "Authorization": f"Bearer {os.environ['GITHUB_TOKEN']}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        },
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        return json.load(answer)


def earlier(pull_request: int, name: str) -> int | None:
    """The id of the comment that an earlier run wrote."""
    page = 1
    while comments := call("GET", f"issues/{pull_request}/comments?per_page={PER_PAGE}&page={page}"):
        for comment in comments:
            if (comment["body"] or "").startswith(mark(name)):
                return int(comment["id"])
        if len(comments) < PER_PAGE:
            return None
        page += 1
    return None


def main(file: str, name: str) -> None:
    event = json.loads(Path(os.environ["GITHUB_EVENT_PATH"]).read_text(encoding="utf-8"))
    number = event["pull_request"]["number"]
    run = "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/{GITHUB_RUN_ID}".format_map(os.environ)
    content = {"body": body(Path(file).read_text(encoding="utf-8"), name, run)}
    try:
        known = earlier(number, name)
        if known is None:
            call("POST", f"issues/{number}/comments", content)
        else:
            call("PATCH", f"issues/comments/{known}", content)
    except (urllib.error.URLError, TimeoutError, ValueError, RecursionError) as error:  # the last two: no usable JSON
        print(f"::warning title=weighbridge::no comment could be written: {error}; it takes pull-requests: write")


if __name__ == "__main__":
    main(*sys.argv[1:])
