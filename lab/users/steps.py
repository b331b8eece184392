"""The steps on the users' machine, in their order: which user runs which command there."""

from __future__ import annotations

from dataclasses import dataclass

USERS = ("alice", "bob", "root")
ACCELERATORS = {"alice": "kvm", "bob": "tcg", "root": "kvm"}
"""The accelerator of each user's machines: alice joins the group kvm in the step JOINING, bob cannot."""
DAEMON = {"alice": "qemu:///session", "bob": "qemu:///session", "root": "qemu:///system"}
PROFILES = "libvirt/pc,libvirt/q35,libvirt/firmware,libvirt/direct,libvirt/snapshot"
JOINING = "alice-groups"
"""The step that runs the `usermod` command that set-up printed; it takes effect at the next login."""


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


def steps() -> list[Step]:
    """Return all steps in order. The steps of a user depend on that user's earlier steps."""
    alice = [*_list_first("alice", "--workloads hello --rounds 1"), *_list_joining(), *_list_rest("alice")]
    bob = [*_list_first("bob", "--workloads hello --rounds 1"), *_list_rest("bob")]
    return [*alice, *bob, *_list_first("root", "--rounds 1"), *_list_rest("root")]


def _list_first(user: str, arguments: str) -> list[Step]:
    """Return the steps of README's quick start."""
    run = f'cd weighbridge && set -o pipefail && make run ARGS="{arguments}" 2>&1 | tee ../run.txt'
    return [
        Step(f"{user}-clone", user, "git clone --quiet --branch main /srv/weighbridge.bundle weighbridge", 300),
        Step(f"{user}-run", user, run, 2400, ("weighbridge/results/runs/*.jsonl",)),
    ]


def _list_joining() -> list[Step]:
    line = r"sed -n 's/^setup: .*\(sudo usermod -aG [a-z,]* [a-z]*\).*/\1/p' run.txt | tail -n 1"
    again = 'cd weighbridge && make run ARGS="--workloads hello --rounds 1 -o ../again.jsonl"'
    return [
        Step(JOINING, "alice", f'command="$({line})" && echo "$command" && [ "$command" ] && $command', 60),
        Step("alice-again", "alice", again, 1200, ("again.jsonl",)),
    ]


def _list_rest(user: str) -> list[Step]:
    """Return the steps after set-up. The first campaign has already used the embedded libvirt driver."""
    weighbridge = "cd weighbridge && .venv/bin/weighbridge"
    python = "cd weighbridge && .venv/bin/python -m lab.users"
    machines = PROFILES if user == "root" else "libvirt/pc"
    short = "--workloads hello --rounds 1 --progress lines"
    measured = [
        Step(f"{user}-{whose}", user, f"{weighbridge} run {options} -o ../{whose}.jsonl", 1200, (f"{whose}.jsonl",))
        for whose, options in (
            ("user", f"--engines user --targets docker,{machines} {short}"),
            ("private", f"--engines private --targets namespace,docker {short}"),
        )
    ]
    return [
        Step(f"{user}-doctor", user, f"{weighbridge} doctor", 600),
        *measured,
        Step(f"{user}-idle", user, f"{python}.idle {DAEMON[user]}", 600),
        Step(f"{user}-interrupt", user, f"{python}.cut SIGINT ../interrupted.jsonl", 900, ("interrupted.jsonl",)),
        Step(f"{user}-kill", user, f"{python}.cut SIGKILL ../killed.jsonl", 900, ("killed.jsonl",)),
        Step(f"{user}-conformance", user, _format_conformance(ACCELERATORS[user]), 1500),
    ]


def _format_conformance(accelerator: str) -> str:
    """Return the command that tests every available engine; `make run` installs all it needs but Hypothesis."""
    variables = {
        "WEIGHBRIDGE_ACCELERATOR": accelerator,
        "WEIGHBRIDGE_CONFORM": "host,userns-chroot,namespace,docker,libvirt/pc",
        "WEIGHBRIDGE_SHARED": "kernels,bundles,grub",
    }
    environment = " ".join(f"{name}={value}" for name, value in variables.items())
    pytest = f"{environment} .venv/bin/pytest -p no:cacheprovider -v --durations=0"
    install = ".venv/bin/uv pip install --quiet --python .venv/bin/python hypothesis"
    return f"cd weighbridge && {install} && {pytest} tests/test_backends.py tests/test_cgroup.py"
