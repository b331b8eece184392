"""namespace: a sandbox made of nothing but Linux's namespaces, by unshare(1), with pivot_root and no daemon.

Source: namespaces(7), user_namespaces(7), pivot_root(2), and Linux, Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from harness import cgroup, mounts, remedies
from harness.backends import DOORBELL, Backend, Image, Instance, Options, Part, environment
from harness.bundle import DEVICES, Bundle
from harness.cgroup import ControlGroup
from harness.command import CommandFailed, find, run, version_of
from harness.doorbell import Doorbell, Mark
from harness.errors import Unavailable
from harness.model import Applied, Group, Limits, TargetRecord
from harness.process import Child, end_all, sharing_mounts, spawn, tail

SEVEN = ("mount", "uts", "ipc", "net", "pid", "user", "cgroup")
KINDS = (*SEVEN, "time")
SCRIPT = Path(__file__).with_suffix(".sh").read_text()
"""By its text: the uid that the sandbox runs as may not be able to read this checkout."""
UNPRIVILEGED = 1_770_000
"""The host's uid and gid that root inside is mapped to when root starts us: nobody's, and in no passwd file."""


@dataclass(frozen=True)
class SandboxImage(Image):
    tree: Path


class Sandbox(Instance):
    def __init__(self, child: Child, group: ControlGroup, layer: Path, supervised: bool) -> None:
        self._child = child
        self._group = group
        self._layer = layer
        self._supervised = supervised

    def processes(self) -> Mapping[Group, list[int]]:
        """With a PID namespace unshare(1) stays outside as the parent of its init; without one it becomes it."""
        mine = self._child.pid
        folder = self._group.folders.get("memory")
        pids = cgroup.members(folder) if folder else sharing_mounts(mine)
        if not self._supervised:
            return {"workload": pids}
        return {"workload": [pid for pid in pids if pid != mine], "supervisor": [mine]}

    def cgroups(self) -> Mapping[str, Path]:
        return self._group.folders

    def limits(self) -> Mapping[str, Applied]:
        return self._group.applied()

    def parts(self) -> tuple[Part, ...]:
        return (
            Part("upper", (self._layer / "upper",)),
            Part("overlay work", (self._layer / "work",)),
            Part("log", (self._child.log,)),
        )

    def log(self) -> str:
        return tail(self._child.log)

    def status(self) -> int | None:
        return self._child.status()


class Namespace(Backend):
    name = "namespace"
    root_by: ClassVar[str] = "pivot_root"

    @classmethod
    def check(cls, options: Options) -> None:
        options.only(*KINDS, "all")

    @cached_property
    def kinds(self) -> list[str]:
        """The namespaces this target starts: those asked for, a mount namespace, and a user one where not root."""
        asked = set(self.options.words())
        if not asked or "all" in asked:
            asked |= set(SEVEN)
        asked |= {"mount"} if os.geteuid() == 0 else {"mount", "user"}
        return [kind for kind in KINDS if kind in asked]

    @cached_property
    def uid(self) -> int | None:
        """The host's uid that becomes root inside; None where that is whoever runs us."""
        return UNPRIVILEGED if os.geteuid() == 0 and "user" in self.kinds else None

    def probe(self) -> TargetRecord:
        mounts.check_layers(self.ledger.folder)
        try:
            run([*self.entry, find("true", "coreutils")])
        except CommandFailed as error:
            reason = f"the kernel refuses new {', '.join(self.kinds)} namespaces: {error}"
            raise Unavailable(reason, remedies.allow_user_namespaces(), error.detail) from error
        profile = {
            "namespaces": self.kinds,
            "root": self.root_by,
            "root mapped to uid": (self.uid or os.geteuid()) if "user" in self.kinds else 0,
            "network": "loopback only" if "net" in self.kinds else "the host's",
            "no new privileges": self.root_by == "pivot_root",
            "argv": " ".join(self.entry),
        }
        return TargetRecord(self.options.target, "util-linux", version_of("unshare"), "system", profile=profile)

    @contextmanager
    def prepare(self, bundle: Bundle, limits: Limits) -> Iterator[SandboxImage]:
        tree = bundle.tree(self.uid)
        yield SandboxImage(bundle, limits, (Part("tree", (tree,)),), tree)

    @contextmanager
    def launch(self, image: SandboxImage, doorbell: Doorbell, mark: Mark) -> Iterator[Instance]:
        name = self.ledger.name()
        with ExitStack() as stack:
            layer = stack.enter_context(self.ledger.holding_folder())
            self.lay(image.tree, layer, doorbell.fifo)
            group = stack.enter_context(cgroup.limited(self.ledger, name, image.limits))
            mark("created")
            argv = self.argv(image.tree, layer, group)
            child = stack.enter_context(spawn(self.ledger, name, argv, layer / "log", environment(DOORBELL)))
            doorbell.watch(child.pidfd)
            if "pid" not in self.kinds:  # nothing else would end what the instance's first process leaves behind
                stack.callback(end_all, lambda: [pid for pid in sharing_mounts(child.pid) if pid != child.pid])
            yield Sandbox(child, group, layer, supervised="pid" in self.kinds)

    def lay(self, tree: Path, layer: Path, bell: Path) -> None:
        """Makes in an empty folder what an instance needs there: an overlay's folders, its root, its mounts."""
        for part in ("upper", "work", "root"):
            (layer / part).mkdir()
            if self.uid is not None:
                os.chown(layer / part, self.uid, self.uid)
        (layer / "fstab").write_text(self._mounts(tree, layer, bell))

    def argv(self, tree: Path, layer: Path, group: ControlGroup, script: str = SCRIPT) -> list[str]:
        """What is started, and becomes /init on this layer by this script."""
        shell = [f"{tree}/bin/busybox", "sh", "-c", script, "enter"]
        return group.joining(tree, [*self.entry, *shell, f"{layer}/fstab", f"{layer}/root", self._words()])

    @property
    def entry(self) -> list[str]:
        """Runs the argv that follows it in new namespaces, as whoever becomes root there."""
        return [*self.setpriv, *self.unshare]

    @cached_property
    def setpriv(self) -> list[str]:
        # Most sandboxes thereby die with a killed harness at once; `clean` finds the rest.
        argv = [find("setpriv", "util-linux"), "--pdeathsig", "KILL"]
        if self.root_by == "pivot_root":
            argv += ["--nnp"]  # from here on: nothing that follows is setuid
        if self.uid is not None:
            argv += ["--reuid", str(self.uid), "--regid", str(self.uid), "--clear-groups"]
        return argv

    @cached_property
    def unshare(self) -> list[str]:
        argv = [find("unshare", "util-linux"), *(f"--{kind}" for kind in self.kinds)]
        if "user" in self.kinds:
            argv += ["--map-root-user"]
        if "pid" in self.kinds:
            argv += ["--fork", "--kill-child"]
        return argv

    def _mounts(self, tree: Path, layer: Path, bell: Path) -> str:
        """The mounts of an instance, as an fstab(5)."""
        root = _escaped(f"{layer}/root")
        overlay = f"lowerdir={tree},upperdir={layer}/upper,workdir={layer}/work"
        # An unprivileged overlay keeps its marks in user.* attributes: trusted.* ones need privileges.
        overlay = _escaped(overlay + (",userxattr" if "user" in self.kinds else ""))
        lines = [f"overlay {root} overlay {overlay} 0 0"]
        lines += [f"/dev/{device} {root}/dev/{device} none bind 0 0" for device in DEVICES]
        lines += [f"{_escaped(str(bell))} {root}{DOORBELL} none bind 0 0"]
        # /proc of a PID namespace that is not ours cannot be mounted anew, only shown.
        anew = "pid" in self.kinds or "user" not in self.kinds
        lines += [f"proc {root}/proc proc defaults 0 0" if anew else f"/proc {root}/proc none rbind 0 0"]
        return "\n".join(lines) + "\n"

    def _words(self) -> str:
        """What namespace.sh is asked for."""
        words = {"net": "net" in self.kinds, "chroot": self.root_by == "chroot"}
        return " ".join(word for word, asked in words.items() if asked)


def _escaped(field: str) -> str:
    """A field of an fstab(5), in which blanks are written as octal numbers."""
    return field.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")


class UsernsChroot(Namespace):
    """userns-chroot: the zero line of an ordinary user, who may call chroot only in a user namespace of his own."""

    name = "userns-chroot"
    root_by = "chroot"

    @classmethod
    def check(cls, options: Options) -> None:
        options.only()

    @cached_property
    def kinds(self) -> list[str]:
        return ["mount", "user"]
