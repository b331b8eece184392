"""The steps on the users' machine, in their order: which user runs which command there."""

from __future__ import annotations

from dataclasses import dataclass

USERS = ("alice", "bob", "root")
ACCELERATORS = {"alice": "kvm", "bob": "tcg", "root": "kvm"}
"""Alice has joined the group kvm by the time that this matters; bob cannot."""
DAEMON = {"alice": "qemu:///session", "bob": "qemu:///session", "root": "qemu:///system"}
PROFILES = "libvirt/pc,libvirt/q35,libvirt/firmware,libvirt/direct,libvirt/snapshot"
JOINING = "alice-groups"
"""The step that runs the command which set-up printed. Its effect needs a new login."""


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
    """All steps. A later step of a user needs what the earlier ones left."""
    return [*_first("alice", ""), *_joined(), *_rest("alice"), *_of("bob", 1), *_of("root", 2)]


def _first(user: str, arguments: str) -> list[Step]:
    """What README tells a newcomer."""
    make = f'make run ARGS="{arguments}"' if arguments else "make run"
    run = f"cd weighbridge && set -o pipefail && {make} 2>&1 | tee ../run.txt"
    return [
        Step(f"{user}-clone", user, "git clone --quiet --branch main /srv/weighbridge.bundle weighbridge", 300),
        Step(f"{user}-run", user, run, 3600, ("weighbridge/results/runs/*.jsonl",)),
    ]


def _joined() -> list[Step]:
    line = r"sed -n 's/.*\(sudo usermod -aG [a-z,]* [a-z]*\).*/\1/p' run.txt | tail -n 1"
    again = 'cd weighbridge && make run ARGS="--workloads hello --rounds 2 -o ../again.jsonl"'
    return [
        Step(JOINING, "alice", f'command="$({line})" && echo "$command" && [ "$command" ] && $command', 60),
        Step("alice-again", "alice", again, 1800, ("again.jsonl",)),
    ]


def _of(user: str, rounds: int) -> list[Step]:
    return [*_first(user, f"--workloads hello --rounds {rounds}"), *_rest(user)]


def _rest(user: str) -> list[Step]:
    weighbridge = "cd weighbridge && .venv/bin/weighbridge"
    python = "cd weighbridge && .venv/bin/python -m lab.users"
    machines = PROFILES if user == "root" else "libvirt/pc"
    short = "--workloads hello --rounds 1 --progress lines"
    variables = {
        "WEIGHBRIDGE_ACCELERATOR": ACCELERATORS[user],
        "WEIGHBRIDGE_CONFORM": "host,userns-chroot,namespace,docker,libvirt/pc",
        "WEIGHBRIDGE_SHARED": "kernels,bundles,grub",
    }
    environment = " ".join(f"{name}={value}" for name, value in variables.items())
    pytest = f"{environment} .venv/bin/pytest -p no:cacheprovider -v --durations=0"
    measured = [
        Step(f"{user}-{whose}", user, f"{weighbridge} run {options} -o ../{whose}.jsonl", 1800, (f"{whose}.jsonl",))
        for whose, options in (
            ("user", f"--engines user --targets docker,{machines} {short}"),
            ("private", f"--engines private --targets docker,libvirt/pc {short}"),
        )
    ]
    conformance = f"cd weighbridge && {pytest} tests/test_backends.py tests/test_cgroup.py"
    return [
        Step(f"{user}-doctor", user, f"{weighbridge} doctor", 600),
        *measured,
        Step(f"{user}-idle", user, f"{python}.idle {DAEMON[user]}", 600),
        Step(f"{user}-interrupt", user, f"{python}.cut SIGINT ../interrupted.jsonl", 900, ("interrupted.jsonl",)),
        Step(f"{user}-kill", user, f"{python}.cut SIGKILL ../killed.jsonl", 900, ("killed.jsonl",)),
        Step(f"{user}-conformance", user, conformance, 1800),
    ]
