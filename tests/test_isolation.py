"""What FACTS say about isolation: of instances as they were, and of whatever an instance may say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.meters import isolation

# What instances said on a machine with Linux 6.18.
BOOT_ID = "d4bb301e-dbf7-4324-9012-302dc1ea78e8"
INODES = {
    "cgroup": 4026531835, "ipc": 4026531839, "mnt": 4026531832, "net": 4026531833, "pid": 4026531836,
    "time": 4026531834, "user": 4026531837, "uts": 4026531838,
}  # fmt: skip
HOST = {
    "boot_id": BOOT_ID, "kernel": "6.18.44", "namespaces": INODES, "uid_map": "0 0 4294967295",
    "capabilities": {"effective": "000001fffeffffff", "bounding": "000001fffeffffff"}, "seccomp": 0, "no_new_privs": 0,
    "cpus": 2, "memory": 25276502016, "processes": 87, "cgroup": None,
}  # fmt: skip
CONTAINER = HOST | {
    "namespaces": INODES | dict.fromkeys(("mnt", "uts", "ipc", "pid", "net"), 4026532180),
    "capabilities": {"effective": "00000000a80425fb"}, "seccomp": 2, "processes": 3,
}  # fmt: skip
SANDBOX = CONTAINER | {
    "namespaces": {kind: inode + 345 * (kind != "time") for kind, inode in INODES.items()},
    "uid_map": "0 1770000 1", "capabilities": {"effective": "000001ffffffffff"}, "seccomp": 0, "no_new_privs": 1,
}  # fmt: skip
MACHINE = HOST | {"boot_id": "83ab3c58-cdae-4791-854b-9e8f146f18cc", "kernel": "6.1.0-56-cloud-amd64", "cpus": 1}


def own(found: isolation.Isolation) -> set[str]:
    assert set(found.namespaces) == set(INODES)
    assert None not in found.namespaces.values()
    return {kind for kind, whose in found.namespaces.items() if whose == "own"}


def test_the_host_is_separated_from_by_nothing() -> None:
    found = isolation.read(HOST, BOOT_ID, INODES)
    assert own(found) == set()
    assert (found.kernel, found.kernel_version, found.root) == ("host's", "6.18.44", 0)
    assert found.capabilities == tuple(name for name in isolation.CAPABILITIES if name != "sys_resource")
    assert (found.seccomp, found.no_new_privileges) == ("none", False)
    assert (found.cpus, found.memory, found.processes) == (2, 25276502016, 87)


def test_a_container() -> None:
    found = isolation.read(CONTAINER, BOOT_ID, INODES)
    assert own(found) == {"mnt", "uts", "ipc", "pid", "net"}
    assert (found.kernel, found.root, found.seccomp) == ("host's", 0, "filter")
    # Docker's documented default: "Runtime privilege and Linux capabilities", docker run.
    assert set(found.capabilities or ()) == {
        "chown", "dac_override", "fsetid", "fowner", "mknod", "net_raw", "setgid", "setuid", "setfcap", "setpcap",
        "net_bind_service", "sys_chroot", "kill", "audit_write",
    }  # fmt: skip


def test_a_sandbox_whose_root_is_nobody_outside() -> None:
    found = isolation.read(SANDBOX, BOOT_ID, INODES)
    assert own(found) == set(INODES) - {"time"}
    assert (found.kernel, found.root, found.no_new_privileges) == ("host's", 1770000, True)
    assert found.capabilities == isolation.CAPABILITIES


def test_a_machine_has_all_of_its_own() -> None:
    """Though its initial namespaces have the host's numbers, and its user map names the host's uids."""
    found = isolation.read(MACHINE, BOOT_ID, INODES)
    assert own(found) == set(INODES)
    assert (found.kernel, found.kernel_version, found.root) == ("own", "6.1.0-56-cloud-amd64", None)


NOTHING = isolation.Isolation(None, None, dict.fromkeys(INODES), None, None, None, None, None, None, None)


def test_nothing_is_told_of_nothing() -> None:
    assert isolation.read({}, BOOT_ID, INODES) == NOTHING


def test_without_the_hosts_side_no_namespace_is_told() -> None:
    assert set(isolation.read(HOST, None, INODES).namespaces.values()) == {None}
    assert isolation.read(HOST, None, INODES).kernel is None
    assert set(isolation.read(HOST, BOOT_ID, {}).namespaces.values()) == {None}


@pytest.mark.parametrize(
    "wrong",
    [None, True, -1, 1.5, 2**70, "", "yes", "-3", "g" * 16, "1" * 17, "9" * 5000, [], [1], {}, {"effective": 7}],
    ids=lambda wrong: repr(wrong)[:20],
)
def test_what_is_of_the_wrong_type_is_not_told(wrong: object) -> None:
    kept = {"kernel", "boot_id"} if isinstance(wrong, str) and wrong else set()
    counts = {"cpus", "memory", "processes"} if type(wrong) is int and wrong >= 0 else set()
    facts = {field: wrong for field in HOST if field not in kept | counts}
    assert isolation.read(facts, BOOT_ID, INODES) == NOTHING


@pytest.mark.parametrize("mask", [7, None, "", "0x1f", "-1", "1f ", "+1", "1" * 17, "zz", ["1"]])
def test_a_mask_that_is_none(mask: object) -> None:
    assert isolation.read({"capabilities": {"effective": mask}}, BOOT_ID, INODES) == NOTHING


@pytest.mark.parametrize(
    ("uid_map", "root"),
    [
        ("0 100000 65536", 100000),
        ("1 100001 65535; 0 1000 1", 1000),
        ("1 100000 65536", None),
        ("10 5 1", None),
        ("0", None),
        ("0 -5 1", None),
        ("0 ² 1", None),
        ("0 " + "9" * 5000 + " 1", None),
    ],
    ids=lambda field: str(field)[:20],
)
def test_who_root_is(uid_map: str, root: int | None) -> None:
    assert isolation.read(HOST | {"uid_map": uid_map}, BOOT_ID, INODES).root == root


def test_bits_by_name() -> None:
    """linux/capability.h: CAP_CHOWN is 0, CAP_SYS_ADMIN 21, CAP_CHECKPOINT_RESTORE 40; what comes after has none."""
    mask = f"{1 << 0 | 1 << 21 | 1 << 40 | 1 << 41 | 1 << 63:x}"
    found = isolation.read({"capabilities": {"effective": mask}}, BOOT_ID, INODES)
    assert found.capabilities == ("chown", "sys_admin", "checkpoint_restore", "#41", "#63")
    none = isolation.read({"capabilities": {"effective": "0000000000000000"}}, BOOT_ID, INODES)
    assert none.capabilities == ()


def test_the_names_are_those_of_this_machines_header() -> None:
    header = Path("/usr/include/linux/capability.h")
    if not header.exists():
        pytest.skip("the kernel's headers are not installed")
    named = re.findall(r"^#define CAP_(\w+)\s+(\d+)$", header.read_text(), re.MULTILINE)
    assert len(named) > 35
    assert [isolation.CAPABILITIES[int(bit)] for _, bit in named] == [name.lower() for name, _ in named]


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.from_regex(r"[0-9a-f -;]{0,20}")
anything = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
fields = st.dictionaries(st.sampled_from(sorted(HOST)), anything)
broken = st.builds(
    lambda facts, inner, mask: HOST | facts | {"namespaces": inner, "capabilities": mask},
    fields,
    st.dictionaries(st.sampled_from(sorted(INODES)), anything),
    st.dictionaries(st.just("effective"), anything),
)


@pytest.mark.long
@given(fields | broken)
def test_whatever_an_instance_says_nothing_is_raised(facts: dict[str, Any]) -> None:
    found = isolation.read(facts, BOOT_ID, INODES)
    assert set(found.namespaces.values()) <= {"own", "host's", None}
    assert all(count is None or count >= 0 for count in (found.root, found.cpus, found.memory, found.processes))
    assert found.seccomp in {"none", "strict", "filter", None}
