"""host: the zero line. chroot(8) as a vforked child in the bundle's tree, with no isolation at all."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness import cgroup, mounts
from harness.backends import DOORBELL, Backend, Image, Instance, Part, environment
from harness.bundle import DEVICES, Bundle
from harness.cgroup import ControlGroup
from harness.command import find, version_of
from harness.doorbell import Doorbell, Mark
from harness.errors import Unavailable
from harness.ledger import remove_folder
from harness.model import Group, Limits, TargetRecord
from harness.process import Child, end_all, rooted, spawn, tail


@dataclass(frozen=True)
class HostImage(Image):
    """The tree under an overlay whose upper layer is emptied after every run; /proc and /dev are mounted in it."""

    tree: Path
    folder: Path
    group: ControlGroup

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def fifo(self) -> Path:
        """The doorbell, outside of the overlay: an open file in it would keep it mounted."""
        return self.folder / "doorbell"

    def renew(self) -> None:
        """Makes the layer as new: no run sees what another wrote, nor what another left running."""
        end_all(lambda: rooted(self.root))
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


class HostInstance(Instance):
    def __init__(self, child: Child, image: HostImage) -> None:
        self._child = child
        self._image = image
        self.limits = image.group.applied

    def processes(self) -> Mapping[Group, list[int]]:
        if folder := self._image.group.folders.get("memory"):
            return {"workload": cgroup.members(folder)}
        return {"workload": rooted(self._image.root)}

    def cgroups(self) -> Mapping[str, Path]:
        return self._image.group.folders

    def parts(self) -> tuple[Part, ...]:
        folder = self._image.folder
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
            raise Unavailable("chroot(8) needs root", "run as root, or take the target userns-chroot for the zero line")
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
            cgroup.limited(self.ledger, self.ledger.name(), limits) as group,
        ):
            image = HostImage(bundle, limits, (Part("tree", (tree,)),), tree, folder, group)
            os.mkfifo(image.fifo)
            image.renew()
            try:
                yield image
            finally:
                end_all(lambda: rooted(image.root))

    def refresh(self, image: HostImage) -> None:
        image.renew()

    @contextmanager
    def launch(self, image: HostImage, doorbell: Doorbell, mark: Mark) -> Iterator[Instance]:
        name = self.ledger.name()
        log = image.folder / f"{name}.log"
        argv = image.group.joining(image.tree, [self._chroot, str(image.root), "/init"])
        doorbell.ring_from(image.fifo)
        with spawn(self.ledger, name, argv, log, environment(DOORBELL)) as child:
            doorbell.watch(child.pidfd)
            yield HostInstance(child, image)

    @cached_property
    def _chroot(self) -> str:
        return find("chroot", "coreutils")
