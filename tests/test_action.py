"""action.yml and the workflows are what GitHub takes, and the action does what it says: its steps run here as a job's.

What is not GitHub's is real: the steps' own text in bash, the program, recorded campaigns, and a server that keeps
comments as GitHub's does.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from ruamel.yaml import YAML

from action import comment
from harness import plan
from harness.model import Plan
from tests.ground import REPOSITORY, TIMEOUT, Ground, ground

pytestmark = pytest.mark.long

ACTION: Any = YAML(typ="safe").load(REPOSITORY / "action.yml")
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}
CI = REPOSITORY / "docs/CI.md"
RECORDED = REPOSITORY / "results/comparison.jsonl.gz"
SAMPLE = REPOSITORY / "results/sample.jsonl"
SNIPPETS = re.findall(r"^```yaml\n(# (\S+)\n.*?)^```$", CI.read_text(), re.DOTALL | re.MULTILINE)
FIRST = "Regressed: "


@dataclass
class Job:
    """A job of which only the steps of this action run, in a workspace of its own."""

    workspace: Path
    environment: dict[str, str]
    event: str = "push"
    outputs: dict[str, str] = field(default_factory=dict)
    log: str = ""

    def run(self, **inputs: str) -> int:
        """All steps but the set-up and the upload, up to the first that fails; its exit code.

        KVM is not enabled unless `kvm` is given: that would change this machine.
        """
        given = {"kvm": "false"} | {name.replace("_", "-"): value for name, value in inputs.items()}
        declared = {name: str((of or {}).get("default", "")) for name, of in ACTION["inputs"].items()}
        assert given.keys() <= declared.keys()
        known = {f"inputs.{name}": value for name, value in {**declared, **given}.items()}
        known["github.event_name"] = self.event
        for step in STEPS.values():
            holds = all(_holds(each, known) for each in step.get("if", "").split("&&") if each)
            if "run" not in step or step["name"] == "Set up Weighbridge" or not holds:
                continue
            if code := self._step(step, known):
                return code
            told = (line.partition("=") for line in Path(self.environment["GITHUB_OUTPUT"]).read_text().splitlines())
            self.outputs = {name: value for name, _, value in told}
            known |= {f"steps.gate.outputs.{name}": value for name, value in self.outputs.items()}
        return 0

    def _step(self, step: Mapping[str, Any], known: Mapping[str, str]) -> int:
        told = {name: _filled(str(value), known) for name, value in step.get("env", {}).items()}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=self.workspace,
            env={**os.environ, **self.environment, **told},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        self.log += done.stdout + done.stderr
        return done.returncode

    @property
    def summary(self) -> str:
        return Path(self.environment["GITHUB_STEP_SUMMARY"]).read_text()


def _filled(text: str, known: Mapping[str, str]) -> str:
    return re.sub(r"\$\{\{ ([\w.-]+) \}\}", lambda found: known.get(found[1], ""), text)


def _holds(condition: str, known: Mapping[str, str]) -> bool:
    found = re.fullmatch(r"([\w.-]+) (==|!=) '([^']*)'", condition.strip())
    assert found, condition
    return (known[found[1]] == found[3]) is (found[2] == "==")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    files = {name: tmp_path / name.lower() for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_EVENT_PATH")}
    for file in files.values():
        file.touch()
    files["GITHUB_EVENT_PATH"].write_text(json.dumps({"pull_request": {"number": 7}}))
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    told = {name: str(file) for name, file in files.items()} | {
        "GITHUB_ACTION_PATH": str(REPOSITORY),
        "GITHUB_REPOSITORY": "you/yours",
        "GITHUB_RUN_ID": "11",
        "GITHUB_SERVER_URL": "https://github.example",
        "WEIGHBRIDGE_STATE": str(tmp_path / "state"),
        "WEIGHBRIDGE_CACHE": str(tmp_path / "cache"),
    }
    return Job(workspace, told)


# What GitHub and GitLab take.


def invalid(schema: str, file: Path) -> str:
    """What is wrong with it by the schema of SchemaStore or GitLab that check-jsonschema brings; empty if nothing."""
    argv = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_the_action_is_one() -> None:
    assert not invalid("github-actions", REPOSITORY / "action.yml")


@pytest.mark.parametrize("workflow", sorted((REPOSITORY / ".github/workflows").iterdir()), ids=lambda path: path.name)
def test_a_workflow_is_one(workflow: Path) -> None:
    assert not invalid("github-workflows", workflow)
    uses_the_action_as_declared(YAML(typ="safe").load(workflow))


@pytest.mark.parametrize(("snippet", "name"), SNIPPETS, ids=[name for _, name in SNIPPETS])
def test_what_the_documentation_has_platforms_run_is_valid(snippet: str, name: str, tmp_path: Path) -> None:
    file = tmp_path / "snippet.yml"
    file.write_text(snippet)
    assert not invalid("gitlab-ci" if name == ".gitlab-ci.yml" else "github-workflows", file)
    if name != ".gitlab-ci.yml":
        uses_the_action_as_declared(YAML(typ="safe").load(snippet))


def test_the_documentation_shows_both_platforms() -> None:
    assert {".gitlab-ci.yml", ".github/workflows/weighbridge.yml"} <= {name for _, name in SNIPPETS}


def uses_the_action_as_declared(workflow: Any) -> None:
    steps = [step for each in workflow["jobs"].values() for step in each["steps"]]
    ours = [step for step in steps if step.get("uses", "") == "./" or "weighbridge@" in step.get("uses", "")]
    for step in ours:
        assert step["with"].keys() <= ACTION["inputs"].keys()
    for step in steps:
        assert "${{" not in step.get("run", ""), "an expression in `run` is read by the shell"


def test_no_input_is_ever_read_by_a_shell() -> None:
    for step in STEPS.values():
        assert "${{" not in step.get("run", "")
    used = set(re.findall(r"inputs\.([\w-]+)", json.dumps(ACTION["runs"])))
    assert used == set(ACTION["inputs"])


def test_what_is_measured_can_be_said_as_in_a_plan() -> None:
    measured = {name for name in ACTION["inputs"] if name in plan.KEYS}
    assert {"targets", "workloads", "rounds", "precision", "budget", "cpus", "memory"} <= measured
    assert Plan().rounds == 7  # which action.yml and docs/CI.md tell
    assert plan.COMPARED_ROUNDS == 30


# What it does, with campaigns that were recorded.


def test_a_regression_fails_the_job_and_its_summary_begins_with_it(job: Job) -> None:
    assert job.run(result=str(RECORDED)) == 1
    first = job.summary.splitlines()[0]
    assert first.startswith(f"**{FIRST}")
    assert "startup.total of host with worker +85.5 %" in first
    assert job.outputs["verdict"] == first.strip("*")
    assert (job.outputs["code"], job.outputs["result"]) == ("1", str(RECORDED))
    written = sorted(path.name for path in (job.workspace / "weighbridge").iterdir())
    assert written == ["comparison.json", "comparison.md", "comparison.xml"]
    assert f"::error title=weighbridge::{FIRST}" in job.log


def test_thresholds_decide(job: Job) -> None:
    assert job.run(result=str(RECORDED), fail="memory.pss:900%") == 0
    assert job.summary.startswith("**Nothing regressed: ")


def test_a_plan_has_thresholds_too(job: Job) -> None:
    (job.workspace / "plan.toml").write_text(
        "[gate]\n" + "".join(f'"{name}" = "900%"\n' for name in ("startup.total", "memory.pss"))
    )
    assert job.run(result=str(RECORDED), plan="plan.toml") == 0


@pytest.mark.parametrize("hostile", ["'; $(touch pwned) `touch pwned`\ntouch pwned", "--help"])
@pytest.mark.parametrize("name", ["targets", "fail", "base", "plan", "mode", "gate"])
def test_what_an_input_says_is_never_run(job: Job, name: str, hostile: str) -> None:
    assert job.run(**{name: hostile}) == 2
    assert [path.name for path in job.workspace.rglob("*") if path.name == "pwned"] == []
    assert job.summary.startswith("**")


def campaign(path: Path, number: int, memory: float = 1.0) -> Path:
    """The sample under another name, a little different as separate campaigns are; memory: times so much."""
    records = [json.loads(line) for line in SAMPLE.read_text().splitlines()]
    for record in records:
        record["campaign"] = f"2026-{number}" if record["kind"] == "header" else None
        for sample in record.get("samples", ()):
            if sample["metric"] == "memory.pss" and sample["value"]:
                sample["value"] *= memory * (1 + number * 1e-3)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_a_baseline_is_kept_and_decides_from_five_campaigns_on(job: Job, tmp_path: Path) -> None:
    for number in range(1, 6):
        assert job.run(mode="keep", result=str(campaign(tmp_path / f"{number}.jsonl", number))) == 0
        assert f"in the baseline: {number};" in job.outputs["verdict"]
    same = campaign(tmp_path / "same.jsonl", 3 * 2)
    assert job.run(mode="baseline", fail="memory.pss:5%", result=str(same)) == 0
    assert "Nothing regressed: 12 unchanged" in job.outputs["verdict"]
    larger = campaign(tmp_path / "larger.jsonl", 7, memory=1.5)
    assert job.run(mode="baseline", fail="memory.pss:5%", result=str(larger)) == 1
    assert job.outputs["verdict"].startswith(f"{FIRST}memory.pss of")


def test_one_campaign_against_one_decides_nothing_and_strict_says_so(job: Job, tmp_path: Path) -> None:
    assert job.run(mode="keep", result=str(campaign(tmp_path / "1.jsonl", 1))) == 0
    larger = {"mode": "baseline", "result": str(campaign(tmp_path / "2.jsonl", 2, memory=1.5))}
    assert job.run(**larger) == 0
    assert job.run(**larger, gate="strict") == 3
    assert "undecided" in job.outputs["verdict"]


def test_a_baseline_that_is_not_there_is_bad_input(job: Job) -> None:
    assert job.run(mode="baseline", result=str(SAMPLE)) == 2
    assert "cannot read results/baseline" in job.summary.splitlines()[0]


@pytest.mark.parametrize(("inputs", "enabled"), [({"kvm": "true"}, True), ({"kvm": "false"}, False)])
def test_kvm_is_enabled_before_anything_is_measured(
    job: Job, tmp_path: Path, inputs: dict[str, str], enabled: bool
) -> None:
    """Run a copy of the action whose script only leaves a trace, because the real one would change this machine."""
    copy = tmp_path / "action-copy"
    (copy / "action").mkdir(parents=True)
    (copy / "action/kvm.sh").write_text("#!/bin/sh\ntouch enabled\n")
    (copy / "action/kvm.sh").chmod(0o755)
    (copy / "action/gate.py").write_text("from pathlib import Path\nPath('measured').touch()\n")
    (copy / ".venv").symlink_to(REPOSITORY / ".venv")
    job.environment["GITHUB_ACTION_PATH"] = str(copy)
    job.run(**inputs)
    traces = {path.name: path.stat().st_mtime_ns for path in job.workspace.iterdir()}
    assert traces.keys() == ({"enabled", "measured"} if enabled else {"measured"})
    assert traces.get("enabled", 0) <= traces["measured"]


# The comment.


class GitHub(ThreadingHTTPServer):
    """Keeps comments. answer: the status of whatever writes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.comments: list[dict[str, Any]] = []
        self.answer = 200
        self.page: bytes | None = None
        """Bytes to send instead of a page of comments."""


class _Requests(BaseHTTPRequestHandler):
    server: GitHub

    def do_GET(self) -> None:
        assert urlsplit(self.path).path == "/repos/you/yours/issues/7/comments"
        asked = {name: int(values[0]) for name, values in parse_qs(urlsplit(self.path).query).items()}
        start = (asked["page"] - 1) * asked["per_page"]
        self._say(200, self.server.comments[start : start + asked["per_page"]], self.server.page)

    def do_POST(self) -> None:
        assert self.path == "/repos/you/yours/issues/7/comments"
        self._write(lambda content: self.server.comments.append({"id": len(self.server.comments), **content}))

    def do_PATCH(self) -> None:
        number = int(self.path.removeprefix("/repos/you/yours/issues/comments/"))
        self._write(self.server.comments[number].update)

    def _write(self, write: Any) -> None:
        assert self.headers["Authorization"] == "Bearer secret"
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.answer == 200:
            write(content)
        self._say(self.server.answer, {})

    def _say(self, status: int, content: Any, raw: bytes | None = None) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode() if raw is None else raw)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def github(job: Job) -> Iterator[GitHub]:
    with GitHub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        job.environment["GITHUB_API_URL"] = f"http://127.0.0.1:{server.server_port}"
        job.event = "pull_request"
        yield server
        server.shutdown()
        thread.join()


ASKED = {"comment": "true", "token": "secret"}


def test_a_pull_request_has_one_comment_that_is_brought_up_to_date(job: Job, github: GitHub) -> None:
    github.comments += [{"id": number, "body": "somebody's"} for number in range(comment.PER_PAGE + 1)]
    assert job.run(result=str(RECORDED), **ASKED) == 1
    assert job.run(result=str(RECORDED), fail="memory.pss:900%", **ASKED) == 0
    written = [each["body"] for each in github.comments if each["body"] != "somebody's"]
    assert len(written) == 1
    mark, first, *_ = written[0].splitlines()
    assert mark == "<!-- weighbridge: weighbridge -->"
    assert first.startswith("**Nothing regressed")
    assert "https://github.example/you/yours/actions/runs/11" in written[0]


def test_who_may_not_comment_is_warned_and_the_verdict_stands(job: Job, github: GitHub) -> None:
    github.answer = 403
    assert job.run(result=str(RECORDED), **ASKED) == 1
    assert "::warning title=weighbridge::no comment could be written: HTTP Error 403" in job.log
    assert github.comments == []


@pytest.mark.parametrize("page", [b"<html>busy</html>", b"\xff", b"[" * 100_000 + b"]" * 100_000])
def test_an_answer_that_is_not_usable_json_is_warned_and_the_verdict_stands(
    job: Job, github: GitHub, page: bytes
) -> None:
    github.page = page
    assert job.run(result=str(RECORDED), **ASKED) == 1
    assert "::warning title=weighbridge::no comment could be written: " in job.log
    assert github.comments == []


@pytest.mark.parametrize(("event", "asked"), [("push", "true"), ("pull_request", "false")])
def test_nobody_is_asked_where_there_is_nothing_to_comment_on(job: Job, github: GitHub, event: str, asked: str) -> None:
    job.event = event
    assert job.run(result=str(RECORDED), comment=asked, token="secret") == 1
    assert github.comments == []


def test_a_comment_that_would_be_too_long_keeps_its_first_lines() -> None:
    row = "| a row |\n"
    told = comment.body(f"**first**\n\n{row * 9000}<details>{row * 9000}</details>\n", "name", "https://run")
    assert len(told) <= comment.LONGEST
    assert told.splitlines()[1] == "**first**"
    assert set(told.splitlines()[3:-2]) == {row.strip()}
    assert told.endswith("(https://run)\n")


# All of it.


WORKLOAD = """\
held={blocks}
for double in 1 2 3 4 5 6 7 8 9 10 11 12; do held=$held$held; done
(sleep 86400; :) &
"""


@pytest.fixture
def stage() -> Iterator[Ground]:
    with ground() as place:
        yield place


def worker(folder: Path, size: int) -> str:
    """A workload that holds so much times 4 KiB, in this folder of the workspace."""
    folder.mkdir(parents=True)
    (folder / "workload.toml").write_text('packages = ["busybox-static"]\nstart = "start"\n')
    (folder / "start").write_text(WORKLOAD.format(blocks="x" * size))
    return f"{folder.parent.name}/{folder.name}"


@pytest.mark.engine
def test_it_measures_two_checkouts_of_a_workload_and_fails_for_the_larger_one(job: Job, stage: Ground) -> None:
    job.environment |= stage.environment
    base, head = (worker(job.workspace / side / "worker", size) for side, size in (("base", 64), ("head", 1024)))
    sides = {"base": f"workloads={base}", "head": f"workloads={head}"}
    code = job.run(targets="namespace", rounds="6", fail="memory.pss:5%", confirm="true", **sides)
    assert code == 1, job.log
    assert job.summary.startswith(f"**{FIRST}memory.pss of namespace with worker +")
    assert (job.workspace / job.outputs["result"]).exists()
    assert "Measured again" in job.summary


@pytest.mark.engine
def test_it_measures_for_the_baseline_and_against_it(job: Job, stage: Ground) -> None:
    job.environment |= stage.environment
    measured = {"targets": "namespace", "workloads": worker(job.workspace / "head/worker", 64), "rounds": "1"}
    assert job.run(mode="keep", **measured) == 0, job.log
    assert job.outputs["verdict"].startswith("Kept: campaigns of this kind of host in the baseline: 1;")
    assert job.run(mode="baseline", **measured) == 0, job.log
    assert job.outputs["verdict"] == "Nothing regressed: 4 undecided"
