"""host: the zero line. chroot(8) as a vforked child in the bundle's tree, with no isolation at all."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness import cgroup, limiting, mounts
from harness.backends import DOORBELL, Backend, Image, Instance, Part, environment
from harness.bundle import DEVICES, Bundle
from harness.cgroup import ControlGroup
from harness.command import find, version_of
from harness.doorbell import Doorbell, Mark
from harness.errors import Unavailable
from harness.ledger import Ledger, remove_folder
from harness.model import Applied, Group, Limits, TargetRecord
from harness.process import Child, end_all, rooted, spawn, tail


class Ground:
    """Where instances run, made new for each: an overlay over the tree with /proc and /dev, and a control group."""

    def __init__(self, ledger: Ledger, tree: Path, folder: Path, limits: Limits) -> None:
        self.tree = tree
        self.folder = folder
        self.group = ControlGroup(limits)
        self._ledger = ledger
        self._limits = limits
        self._group_held = ExitStack()

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def fifo(self) -> Path:
        """The doorbell, outside of the overlay: an open file in it would keep it mounted."""
        return self.folder / "doorbell"

    def renew(self) -> None:
        """No run sees what another wrote, nor what another left running, nor is charged for it."""
        self.close()
        self.group = self._group_held.enter_context(cgroup.limited(self._ledger, self._ledger.name(), self._limits))
        mounts.unmount_below(str(self.folder))
        for name in ("upper", "work", "root"):
            remove_folder(str(self.folder / name))
        for name in ("upper", "work", "root"):
            (self.folder / name).mkdir()
        layers = (f"lowerdir={self.tree}", f"upperdir={self.folder}/upper", f"workdir={self.folder}/work")
        mounts.mount("overlay", "overlay", self.root, *layers)
        mounts.mount("proc", "proc", self.root / "proc")
        for device in DEVICES:
            mounts.mount("bind", f"/dev/{device}", self.root / "dev" / device)
        mounts.mount("bind", self.fifo, self.root / DOORBELL.lstrip("/"))

    def close(self) -> None:
        end_all(lambda: rooted(self.root))
        self._group_held.close()


@dataclass(frozen=True)
class HostImage(Image):
    ground: Ground


class HostInstance(Instance):
    def __init__(self, child: Child, ground: Ground) -> None:
        self._child = child
        self._ground = ground

    def processes(self) -> Mapping[Group, list[int]]:
        if folder := self._ground.group.folders.get("memory"):
            return {"workload": cgroup.members(folder)}
        return {"workload": rooted(self._ground.root)}

    def cgroups(self) -> Mapping[str, Path]:
        return self._ground.group.folders

    def limits(self) -> Mapping[str, Applied]:
        return self._ground.group.applied()

    def parts(self) -> tuple[Part, ...]:
        folder = self._ground.folder
        return (
            Part("upper", (folder / "upper",)),
            Part("overlay work", (folder / "work",)),
            Part("log", (self._child.log,)),
        )

    def log(self) -> str:
        return tail(self._child.log)

    def status(self) -> int | None:
        return self._child.status()


class Host(Backend):
    name = "host"

    def probe(self) -> TargetRecord:
        if os.geteuid() != 0:
            raise Unavailable(
                "chroot(8) needs root",
                f"{limiting.format_root_command()}, or take the target userns-chroot for the zero line",
            )
        mounts.check_layers(self.ledger.folder)
        return TargetRecord(
            target=self.options.target,
            engine="Linux",
            version=platform.release(),
            whose="system",
            profile={"chroot": version_of(self._chroot), "isolation": "none"},
        )

    @contextmanager
    def prepare(self, bundle: Bundle, limits: Limits) -> Iterator[HostImage]:
        tree = bundle.tree(None)
        with (
            self.ledger.holding_folder() as folder,
            self.ledger.holding(mounts.unmount_below, path=str(folder)),
            closing(Ground(self.ledger, tree, folder, limits)) as ground,
        ):
            os.mkfifo(ground.fifo)
            yield HostImage(bundle, limits, (Part("tree", (tree,)),), ground)

    def refresh(self, image: HostImage) -> None:
        image.ground.renew()

    @contextmanager
    def launch(self, image: HostImage, doorbell: Doorbell, mark: Mark) -> Iterator[Instance]:
        name = self.ledger.name()
        ground = image.ground
        log = ground.folder / f"{name}.log"
        argv = self.argv(ground)
        doorbell.ring_from(ground.fifo)
        with spawn(self.ledger, name, argv, log, environment(DOORBELL)) as child:
            doorbell.watch(child.pidfd)
            yield HostInstance(child, ground)

    def argv(self, ground: Ground) -> list[str]:
        """What is started on this ground."""
        return ground.group.joining(ground.tree, [self._chroot, str(ground.root), "/init"])

    @cached_property
    def _chroot(self) -> str:
        return find("chroot", "coreutils")
