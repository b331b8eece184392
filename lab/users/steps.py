"""The steps on the users' machine, in their order: which user runs which command there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

USERS = ("alice", "bob", "root")
MACHINES: Mapping[str, tuple[str, ...]] = {"alice": ("alice",), "root": ("root", "bob")}
"""Whose steps each machine runs, by its name. Both have all users; root installs the packages that bob cannot."""
DAEMON = {"alice": "qemu:///session", "bob": "qemu:///session", "root": "qemu:///system"}
PROFILES = "libvirt/pc,libvirt/q35,libvirt/firmware,libvirt/direct,libvirt/snapshot"
JOINING: Mapping[str, str] = {"alice-groups": "alice", "bob-groups": "bob"}
"""The steps that add a user to groups: alice by the command that set-up printed, bob by his administrator to kvm alone.
It takes effect at the next login."""
CONFORMANCE = (
    "cd weighbridge && .venv/bin/uv pip install --quiet --python .venv/bin/python hypothesis"
    " && WEIGHBRIDGE_ACCELERATOR=kvm WEIGHBRIDGE_CONFORM=host,userns-chroot,namespace,docker,libvirt/pc"
    " WEIGHBRIDGE_SHARED=kernels,bundles,grub TMPDIR=/var/tmp"
    " .venv/bin/pytest -p no:cacheprovider -v --durations=0 tests/test_backends.py tests/test_cgroup.py"
)
"""Tests every available engine. `make run` installs all that it needs but Hypothesis.

TMPDIR: the folders that pytest keeps there are no remnants of a campaign (see inventory.PASSING).
"""


@dataclass(frozen=True)
class Step:
    """One command of a user's, run by a login shell in the user's home folder.

    timeout: seconds. results: the result files that it writes, relative to the home folder.
    """

    name: str
    user: str
    command: str
    timeout: float
    results: tuple[str, ...] = ()


def steps(users: Sequence[str]) -> list[Step]:
    """Return these users' steps in order. The steps of a user depend on that user's earlier steps."""
    return [step for user in users for step in LISTED[user]()]


def all_steps() -> list[Step]:
    return [step for users in MACHINES.values() for step in steps(users)]


def _list_alice() -> list[Step]:
    line = r"sed -n 's/^setup: .*\(sudo usermod -aG [a-z,]* [a-z]*\).*/\1/p' run.txt | tail -n 1"
    again = 'cd weighbridge && make run ARGS="--workloads hello --rounds 1 -o ../again.jsonl"'
    return [
        _clone("alice"),
        _run("alice"),
        Step("alice-groups", "alice", f'command="$({line})" && echo "$command" && [ "$command" ] && $command', 60),
        Step("alice-again", "alice", again, 1200, ("again.jsonl",)),
        _doctor("alice", "alice-doctor"),
        *_list_rest("alice"),
    ]


def _list_bob() -> list[Step]:
    set_up = "cd weighbridge && ./setup.sh --no-dev 2>&1 | tee ../run.txt && .venv/bin/weighbridge doctor"
    return [
        _clone("bob"),
        Step("bob-refused", "bob", set_up, 1200),
        Step("bob-groups", "root", "usermod -aG kvm bob", 60),
        _run("bob"),
        *_list_rest("bob"),
    ]


def _list_root() -> list[Step]:
    return [
        _clone("root"),
        _run("root"),
        _doctor("root", "root-doctor", f" --engines user --targets docker,{PROFILES}"),
        *_list_rest("root"),
    ]


LISTED: Mapping[str, Callable[[], list[Step]]] = {"alice": _list_alice, "bob": _list_bob, "root": _list_root}


def _clone(user: str) -> Step:
    return Step(f"{user}-clone", user, "git clone --quiet --branch main /srv/weighbridge.bundle weighbridge", 300)


def _run(user: str) -> Step:
    """Return the step of README's quick start, with fewer launches; those in software take longer than the budget."""
    arguments = 'ARGS="--workloads hello --rounds 1 --budget none"'
    run = f"cd weighbridge && set -o pipefail && make run {arguments} 2>&1 | tee ../run.txt"
    return Step(f"{user}-run", user, run, 2400, ("weighbridge/results/runs/*.jsonl",))


def _doctor(user: str, name: str, options: str = "") -> Step:
    return Step(name, user, f"cd weighbridge && .venv/bin/weighbridge doctor{options}", 900)


def _list_rest(user: str) -> list[Step]:
    """Return the steps after set-up. The first campaign has already used the embedded libvirt driver."""
    weighbridge = "cd weighbridge && .venv/bin/weighbridge"
    python = "cd weighbridge && .venv/bin/python -m lab.users"
    short = "--workloads hello --rounds 1 --progress lines"
    measured = [
        Step(f"{user}-{whose}", user, f"{weighbridge} run {options} -o ../{whose}.jsonl", 1200, (f"{whose}.jsonl",))
        for whose, options in (
            ("user", f"--engines user --targets docker,libvirt/pc {short}"),
            ("private", f"--engines private --targets namespace,docker {short}"),
        )
    ]
    return [
        *measured,
        Step(f"{user}-idle", user, f"{python}.idle {DAEMON[user]}", 600),
        Step(f"{user}-interrupt", user, f"{python}.cut SIGINT ../interrupted.jsonl", 900, ("interrupted.jsonl",)),
        Step(f"{user}-kill", user, f"{python}.cut SIGKILL ../killed.jsonl", 900, ("killed.jsonl",)),
        Step(f"{user}-conformance", user, CONFORMANCE, 1500),
    ]
