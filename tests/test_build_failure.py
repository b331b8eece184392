"""Each release of mmdebstrap unpacks packages; a failure names the tool, the cause and a fitting remedy."""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import build_failure, bundle, command, debian, limiting, remedies, sandbox, workloads
from harness.build_failure import CAUSES, MIRROR, explain
from harness.command import CommandFailed
from harness.errors import BadInput, EngineError, Unavailable, as_unavailable
from harness.workloads import Workload

REFUSED = "E: running chrootless mode as root without fakeroot might damage the host system if not run inside a chroot"
"""mmdebstrap 1.4.1 and newer, as root, word for word; its exit status is then 25."""
STUB = """\
#!/bin/sh
case "$*" in *--version*) echo "mmdebstrap {version}"; exit ;; esac
{does}
for word; do
    case $word in */root)
        mkdir -p "$word/var/cache/apt/archives" "$word/etc/apt" "$word/dev"
        touch "$word/var/cache/apt/archives/busybox-static_1%3a1.35.0-4+deb12u1+b1_amd64.deb" ;;
    esac
done
"""
REFUSES = f"""\
case "$*" in *--skip=*check/chrootless*) ;; *) echo "{REFUSED}" >&2; exit 25 ;; esac
"""
FETCH = "E: Failed to fetch http://deb.debian.org/debian/dists/bookworm/InRelease  "
NO_KEY = "NO_PUBKEY 6ED0E7B82643E131 NO_PUBKEY 78DBA3BC47EF2265"
SQV = 'Sub-process /usr/bin/sqv returned an error code (1), error message is: Error: Failed to parse keyring "/no.gpg"'
UNSIGNED = "E: The repository 'http://deb.debian.org/debian bookworm InRelease' is not signed."
UPDATE_FAILED = "E: apt-get update --error-on=any -oAPT::Status-Fd=<$fd> -oDpkg::Use-Pty=false failed"
NOISE = """\
W: running chrootless mode as root might damage the host system
W: gpg --version failed: cannot infer signed-by value
W: Download is performed unsandboxed as root as file '/x/InRelease' is closed to user '_apt'. - pkgAcquire::Run \
(13: Permission denied)
I: running apt-get update...
W: hooklistener errored out: E: received eof on socket
I: main() received signal PIPE: waiting for setup..."""
OF_NETWORK = "sudo apt-get update"
OF_KEYS = "sudo apt-get install debian-archive-keyring"
OF_CLOCK = "sudo timedatectl set-ntp true"
OF_FOLDER = "ls -ld {cache}"
OF_MIRROR = "the archive does not have this package"
UNKNOWN = "run the command shown below by itself"


@dataclass(frozen=True)
class Stub:
    """A program that stands in for an mmdebstrap which is not installed here."""

    folder: Path

    def unpack(self, version: str, does: str) -> dict[str, str]:
        program = self.folder / "mmdebstrap"
        program.write_text(STUB.format(version=version, does=does))
        program.chmod(0o755)
        return debian.unpack(["busybox-static"], self.folder / "root")

    def build(self, monkeypatch: pytest.MonkeyPatch, workload: Workload, does: str) -> None:
        (self.folder / "mmdebstrap").write_text(STUB.format(version="1.5.7", does=does))
        (self.folder / "mmdebstrap").chmod(0o755)
        own_folders(monkeypatch, self.folder)
        monkeypatch.setattr(bundle, "_key_of", lambda workload: "0" * 64)
        bundle.build(workload)


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    """As an ordinary user, for whom it runs without a sandbox around it."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv(MIRROR, "deb http://deb.debian.org/debian bookworm main")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return Stub(tmp_path)


@pytest.mark.parametrize(("version", "does"), [("1.3.5", ""), ("1.4.3", REFUSES), ("1.5.7", REFUSES)])
def test_unpack_each_release_of_mmdebstrap_is_allowed_chrootless_mode(stub: Stub, version: str, does: str) -> None:
    assert stub.unpack(version, does) == {"busybox-static": "1:1.35.0-4+deb12u1+b1"}


@pytest.mark.engine
@pytest.mark.skipif(os.geteuid() != 0, reason="the sandbox is root's")
def test_unpack_as_root_runs_mmdebstrap_in_the_sandbox(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", "/var/tmp")
    temporary = 'touch "${TMPDIR:-/tmp}/gpghome" || exit 1\n'
    assert stub.unpack("1.5.7", temporary + REFUSES) == {"busybox-static": "1:1.35.0-4+deb12u1+b1"}


def test_unpack_failure_reports_tool_version_command_status_and_output(stub: Stub, tmp_path: Path) -> None:
    does = f"echo 'I: running apt-get update...' >&2; echo '{FETCH}Connection refused' >&2; exit 25"
    with pytest.raises(Unavailable) as failed:
        stub.unpack("1.5.7", does)
    reason, (shown, *output, status) = failed.value.reason, failed.value.detail.splitlines()
    assert reason.startswith("mmdebstrap 1.5.7 could not unpack Debian's packages: Failed to fetch http://deb.debian")
    assert reason.endswith("(exit status 25)") and "\n" not in reason
    assert shown == (
        f"$ {tmp_path}/mmdebstrap --mode=chrootless --variant=extract --format=directory "
        "--skip=cleanup/apt,check/chrootless --include=busybox-static,usr-is-merged bookworm "
        f"{tmp_path}/root 'deb http://deb.debian.org/debian bookworm main'"
    )
    assert output == ["I: running apt-get update...", f"{FETCH}Connection refused"]
    assert status == "exit status 25"
    assert as_unavailable(failed.value) is failed.value


@pytest.mark.parametrize(
    ("printed", "remedy"),
    [
        (REFUSED, "install a tested release of mmdebstrap: mmdebstrap 1.3.5"),
        ("E: invalid mode. Choose from auto, root, unshare, fakechroot, chrootless", "install a tested release"),
        (f"Unknown option: skip\nUsage:\n{'    a line of the manual' * 80}", "install a tested release of mmdebstrap"),
        (f"{FETCH}Could not connect to 127.0.0.1:9 (127.0.0.1). - connect (111: Connection refused)", OF_NETWORK),
        (f"{FETCH}Unable to connect to deb.debian.org:80:", OF_NETWORK),
        (f"{FETCH}Could not resolve 'deb.debian.org'", OF_NETWORK),
        (f"{FETCH}Temporary failure resolving 'deb.debian.org'", OF_NETWORK),
        (f"{FETCH}Cannot initiate the connection to x:80. - connect (101: Network is unreachable)", OF_NETWORK),
        (f"{FETCH}Connection timed out [IP: 203.0.113.80 80]", OF_NETWORK),
        (f"{FETCH}404  Not Found [IP: 203.0.113.80 80]", "the archive does not have this suite or file"),
        ("E: The repository 'http://x/debian bookworm Release' does not have a Release file.", "the archive does not"),
        (f"{FETCH}400  Bad Request [IP: 203.0.113.80 80]\n{UNSIGNED}", "the archive does not"),
        (f"{FETCH}File has unexpected size (1 != 2). Mirror sync in progress?", "try again later"),
        (f"{FETCH}SSL connection failed: error:0A000086:SSL routines::certificate verify failed", "ca-cert"),
        (f"{FETCH}Certificate verification failed: The certificate is NOT trusted. Could not", "ca-cert"),
        ("E: Release file for http://x/InRelease is not valid yet (invalid for another 1d 2h).", OF_CLOCK),
        (f"W: OpenPGP signature verification failed: Not live until 2025-08-09T00:00:00Z\n{UNSIGNED}", OF_CLOCK),
        ("E: Release file for http://x/InRelease is expired (invalid since 9d 1h).", OF_CLOCK),
        (f"W: GPG error: http://x InRelease: the public key is not available: {NO_KEY}\n{UNSIGNED}", OF_KEYS),
        (f"W: OpenPGP signature verification failed: http://x InRelease: {SQV}\n{UNSIGNED}\n{UPDATE_FAILED}", OF_KEYS),
        (f"{FETCH}Error writing to file - write (28: No space left on device) [IP: 203.0.113.80 80]", "df -h {cache}"),
        ("E: You don't have enough free space in {cache}/.hello.draft/root/var/cache/apt/archives/.", "df -h {cache}"),
        ("dpkg-deb: error: failed to write: Disk quota exceeded", "df -h {cache}"),
        ("E: cannot create {cache}/bundles/.hello.draft/root: Permission denied", OF_FOLDER),
        ("E: cannot create {state}/x: Permission denied", "ls -ld {state}"),
        ("E: cannot create {cache}-of-others/x: Permission denied", UNKNOWN),
        ("E: failed to open /etc/apt/keys.gpg: Permission denied", UNKNOWN),
        ("mount: Operation not permitted", UNKNOWN),
        ("E: Unable to locate package busybox-static", OF_MIRROR),
        ("E: Unable to locate package nix\nW: http://x: Could not resolve host: deb.debian.org", OF_NETWORK),
        ("mkdir: cannot create directory '{cache}/x': Read-only file system", OF_FOLDER),
        ("bwrap: setting up uid map: Permission denied", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
        ("unshare: unshare failed: Operation not permitted", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
        ("E: fork failed: Cannot allocate memory", "free -h"),
        ("E: something that apt 4 will say", UNKNOWN),
        ("", UNKNOWN),
    ],
)  # fmt: skip
def test_explain_names_the_remedy_that_fits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, printed: str, remedy: str
) -> None:
    """Each text is among lines of a failed download. Only network failures get the remedy for the network."""
    forbid_by_apparmor(monkeypatch, tmp_path)
    monkeypatch.setattr(build_failure, "_describe_version", lambda inside, tool: f"{tool} 1.3.5")  # tested elsewhere
    own = own_folders(monkeypatch, tmp_path)
    output = f"{NOISE}\n{fill(printed, own)}\nE: mmdebstrap failed to run\n"
    found = explain(CommandFailed(["mmdebstrap", "bookworm"], 25, output))
    assert fill(remedy, own) in found.hint and "{" not in found.hint and "draft" not in found.hint
    assert (OF_NETWORK in found.hint) == (remedy == OF_NETWORK)
    assert "\n" not in found.reason and "(exit status 25)" in found.reason
    assert found.detail.splitlines()[0] == "$ mmdebstrap bookworm"
    assert all(len(line) <= command.DETAIL_WIDTH for line in found.detail.splitlines())


def test_explain_no_two_causes_share_a_remedy() -> None:
    assert len({cause.remedy for cause in CAUSES}) == len(CAUSES)


def test_explain_a_download_without_end_and_a_killed_tool() -> None:
    late = explain(CommandFailed(["mmdebstrap"], None, "Get:1 x\n", 3600))
    assert "it did not end within 3600 s" in late.reason and MIRROR in late.hint
    assert late.detail.splitlines()[-1] == "timed out after 3600 s"
    killed = explain(CommandFailed(["mmdebstrap"], -signal.SIGKILL, ""))
    assert "it was killed by SIGKILL" in killed.reason and "dmesg" in killed.hint


@pytest.mark.parametrize("said", ["E: Unable to locate package nix", "E: Package 'nix' has no installation candidate"])
def test_build_unknown_package_is_bad_input_only_of_a_users_workload(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    mine, ours = workload(stub.folder / "mine", "nix"), workload(workloads.HERE / "mine", "nix")
    does = f'echo "{said}" >&2; exit 25'
    with pytest.raises(BadInput, match=r"^the workload mine: Debian bookworm has no package nix$"):
        stub.build(monkeypatch, mine, does)
    with pytest.raises(Unavailable) as absent:
        stub.build(monkeypatch, ours, does)
    assert MIRROR in absent.value.hint and said.removeprefix("E: ") in absent.value.detail
    with pytest.raises(Unavailable):  # the archive lacks more than the user's package
        stub.build(monkeypatch, mine, f'echo "E: Unable to locate package usr-is-merged" >&2; {does}')
    with pytest.raises(Unavailable) as cut:
        stub.build(monkeypatch, mine, f"echo 'W: Could not resolve host: deb.debian.org' >&2; {does}")
    assert OF_NETWORK in cut.value.hint and cut.value.detail


def test_sources_apt_that_fails_is_not_called_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(MIRROR, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    apt = tmp_path / "apt-get"
    malformed = "E: Malformed entry 1 in list file /etc/apt/sources.list.d/own.list (URI)"
    fails = f"echo '{malformed}' >&2; echo 'E: The list of sources could not be read.' >&2; exit 100"
    apt.write_text(f"#!/bin/sh\ncase $1 in --version) echo 'apt 2.6.1 (amd64)'; exit ;; esac\n{fails}\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(
        Unavailable, match=r"^apt 2\.6\.1 \(amd64\) could not list this machine's archives: Malf"
    ) as failed:
        debian.sources()
    assert failed.value.hint.startswith("correct /etc/apt/sources.list.d/own.list (`sudo apt-get update` shows")
    assert MIRROR in failed.value.hint
    shown, *output = failed.value.detail.splitlines()
    assert shown.startswith("$ apt-get indextargets --format") and malformed in output
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(Unavailable, match="there is no apt here") as absent:
        debian.sources()
    assert absent.value.hint == "build on Debian or Ubuntu"


@pytest.mark.parametrize(
    ("argv", "reason", "hint"),
    [
        (("dd", "if=/dev/zero", "of=/dev/full", "count=1"), r"dd \(coreutils\) \d", "df -h {cache}"),
        (("mke2fs", "-q", "-F", "{state}/none/disk", "8M"), r"mke2fs \d+\.\d+", UNKNOWN),
        (("sh", "-c", "echo '{state}/x: No space left on device'; exit 1"), "sh of unknown", "WEIGHBRIDGE_STATE"),
        (("sh", "-c", "exit 137"), "it was killed by SIGKILL", "dmesg"),
        (("sh", "-c", "echo 'E: Failed to fetch: Connection refused'; exit 1"), "sh of unknown version", UNKNOWN),
    ],
)  # fmt: skip
def test_as_unavailable_explains_any_failed_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, argv: tuple[str, ...], reason: str, hint: str
) -> None:
    own = own_folders(monkeypatch, tmp_path)
    program, *arguments = (fill(word, own) for word in argv)
    with pytest.raises(CommandFailed) as failed:
        command.run([command.find(program, "the package"), *arguments])
    found = as_unavailable(failed.value)
    assert re.search(reason, found.reason) and fill(hint, own) in found.hint
    assert found.detail.splitlines()[0].endswith(shlex.join(arguments))
    assert "doctor" not in found.hint


def test_explain_shows_the_tool_that_unshare_and_bwrap_start() -> None:
    cases = {
        "dd: fine": ("dd", 1),
        "bwrap: Can't mkdir /x: Permission denied": ("bubblewrap", 1),
        "bwrap: execvp dd: No such file or directory": ("dd", 1),
    }
    for printed, (tool, status) in cases.items():
        argv = ["bwrap", "--die-with-parent", "--ro-bind", "/", "/", "--", "dd", "of=/x"]
        assert explain(CommandFailed(argv, status, printed)).reason.startswith(tool), printed
    mapped = explain(CommandFailed(["/usr/bin/unshare", "--map-root-user", "mke2fs", "/x"], 1, "mke2fs: no"))
    assert re.match(r"mke2fs [\d.]+ .*failed: mke2fs: no \(exit status 1\)", mapped.reason)
    absent = explain(CommandFailed(argv, 1, "bwrap: execvp dd: No such file or directory"))
    assert "dpkg -S '*/dd'" in absent.hint


@pytest.mark.engine
def test_explain_asks_the_root_folder_of_the_tool_for_its_version(tmp_path: Path) -> None:
    """A tool of a bundle is another one than this machine's."""
    root = tmp_path / "root"
    for name in ("usr/bin", "dev", "proc"):
        (root / name).mkdir(parents=True)
    busybox = bundle.build(workloads.load("hello")).root / "usr/bin/busybox"
    shutil.copy(busybox, root / "usr/bin/busybox")
    with pytest.raises(CommandFailed) as failed:
        sandbox.within(root, ["/usr/bin/busybox", "cat", "/nowhere"])
    found = as_unavailable(failed.value)
    assert re.match(r"BusyBox v[\d.]+ .*failed: cat: can't open '/nowhere'", found.reason)
    assert found.detail.startswith("$ ") and "bwrap --unshare-pid" in found.detail


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "df -h {cache}"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "{cache}/bundles/x"), "ls -ld {cache}"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/elsewhere"), "weighbridge --version"),
        (KeyError("Driver"), "weighbridge --version"),
        (EngineError("the engine refused", "its log"), "weighbridge --version"),
    ],
)  # fmt: skip
def test_as_unavailable_never_points_to_doctor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, hint: str
) -> None:
    own = own_folders(monkeypatch, tmp_path)
    if isinstance(error, OSError) and error.filename:
        error.filename = fill(error.filename, own)
    found = as_unavailable(error)
    assert fill(hint, own) in found.hint and "doctor" not in found.hint
    assert found.detail == getattr(error, "log", "")


def test_apt_settings_for_reaching_a_mirror_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    used = [
        'Acquire::http::Proxy "http://proxy.example:3142/";',
        'Acquire::HTTPS::Proxy::mirror.example "DIRECT";',
        'Acquire::https::CAInfo "/etc/ssl/own.pem";',
        'Acquire::Retries "5";',
        'Acquire::ForceIPv4 "true";',
    ]
    unused = [
        'Acquire "";',
        'Acquire::http "";',
        'Acquire::CompressionTypes::xz "xz";',
        'Acquire::cdrom::mount "/media";',
    ]
    monkeypatch.setattr(command, "run", lambda argv: "\n".join([*unused, *used]))
    assert debian.access_options() == used

    def fail(argv: Sequence[str]) -> str:
        raise CommandFailed(argv, 100, "E: Syntax error /etc/apt/apt.conf:1")

    monkeypatch.setattr(command, "run", fail)
    assert debian.access_options() == []


def test_sources_name_the_key_of_each_archive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of deb822 sources: a file of keys, none, and a key that is written out, whose lines are no archives."""
    listed = [
        "Debian|http://deb.debian.org/debian/ bookworm main|/usr/share/keyrings/debian-archive-keyring.pgp",
        "Debian|http://mirror.example/debian/ bookworm main|",
        "Debian|http://security.debian.org/ bookworm-security main|-----BEGIN PGP PUBLIC KEY BLOCK-----",
        "mQINBGPL0BUBEADmW5NdOOHwPIJlgPu6JDcKw/NZJPR8lsD3K87ZM18gzyQZJD+w",
        "Ubuntu|http://archive.ubuntu.com/ubuntu/ noble main|/usr/share/keyrings/ubuntu-archive-keyring.gpg",
    ]
    monkeypatch.delenv(MIRROR, raising=False)
    monkeypatch.setattr(command, "run", lambda argv: "\n".join(listed))
    assert debian.sources() == [
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.pgp] http://deb.debian.org/debian/ bookworm main",
        "deb http://mirror.example/debian/ bookworm main",
        "deb http://security.debian.org/ bookworm-security main",
    ]
    monkeypatch.setattr(command, "run", lambda argv: listed[-1])
    monkeypatch.setattr(debian, "KEYRING", tmp_path / "keys.gpg")
    assert debian.sources()[0] == "deb http://deb.debian.org/debian bookworm main"
    (tmp_path / "keys.gpg").touch()
    assert debian.sources() == [
        f"deb [signed-by={tmp_path}/keys.gpg] http://deb.debian.org/debian bookworm main",
        f"deb [signed-by={tmp_path}/keys.gpg] http://deb.debian.org/debian bookworm-updates main",
        f"deb [signed-by={tmp_path}/keys.gpg] http://deb.debian.org/debian-security bookworm-security main",
    ]


def test_sandbox_refused_by_the_kernel_makes_the_target_unavailable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ubuntu's AppArmor lets an ordinary user's bwrap have no namespaces; the script itself never runs."""
    forbid_by_apparmor(monkeypatch, tmp_path)
    bwrap = tmp_path / "bwrap"
    bwrap.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    bwrap.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(Unavailable, match="no sandbox can be made: bwrap failed with status 1") as refused:
        sandbox.within(tmp_path, ["/bin/true"])
    sysctl = "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    assert refused.value.hint == f"run `{sysctl}`, or as root `{limiting.format_root_command()}`"
    bwrap.write_text("#!/bin/sh\necho 'make: unshare: not found' >&2\nexit 2\n")
    with pytest.raises(CommandFailed, match="unshare: not found"):
        sandbox.within(tmp_path, ["/bin/true"])


def workload(folder: Path, *packages: str) -> Workload:
    """A workload in this folder, which need not exist."""
    return Workload("mine", ("busybox-static", *packages), (), folder / "start")


def own_folders(monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, str]:
    """The cache and the state of this program, in a folder."""
    for name in ("cache", "state"):
        monkeypatch.setenv(f"WEIGHBRIDGE_{name.upper()}", str(folder / name))
    return {name: str(folder / name) for name in ("cache", "state")}


def fill(text: str, own: dict[str, str]) -> str:
    return text.replace("{cache}", own["cache"]).replace("{state}", own["state"])


def forbid_by_apparmor(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """An ordinary user on Ubuntu 24.04."""
    (folder / "sys/kernel").mkdir(parents=True)
    (folder / "sys/kernel/apparmor_restrict_unprivileged_userns").write_text("1\n")
    monkeypatch.setattr(remedies, "SYSCTLS", folder / "sys")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
