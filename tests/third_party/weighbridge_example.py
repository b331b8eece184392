"""example: chroot in a copy of the bundle's tree, in a user namespace, so that it needs no root."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.backends import API, DOORBELL, Backend, Image, Instance, Part, environment
from harness.bundle import Bundle
from harness.doorbell import Doorbell, Mark
from harness.model import Applied, Group, Limits, TargetRecord
from harness.process import Child, sharing_mounts, spawn, tail

ENTER = """
    set -e
    mount -o bind "$2" "$1/run/doorbell"
    mount -o rbind /proc "$1/proc"
    exec chroot "$1" /init
"""
NO_BACKEND = 42


@dataclass(frozen=True)
class TreeImage(Image):
    tree: Path


class Copy(Instance):
    def __init__(self, child: Child, root: Path, limits: Limits) -> None:
        self._child = child
        self._root = root
        self._asked = {"cpus": limits.cpus, "memory": limits.memory}

    def processes(self) -> Mapping[Group, list[int]]:
        return {"workload": sharing_mounts(self._child.pid)}

    def cgroups(self) -> Mapping[str, Path]:
        return {}

    def limits(self) -> Mapping[str, Applied]:
        return {name: Applied(value, None, reason="this engine knows no limits") for name, value in self._asked.items()}

    def parts(self) -> tuple[Part, ...]:
        return (Part("copy", (self._root,)),)

    def log(self) -> str:
        return tail(self._child.log)


class Example(Backend):
    name = "example"

    def probe(self) -> TargetRecord:
        return TargetRecord(self.options.target, "Example", platform.release(), "system")

    @contextmanager
    def prepare(self, bundle: Bundle, limits: Limits) -> Iterator[TreeImage]:
        tree = bundle.tree(None)
        yield TreeImage(bundle, limits, (Part("tree", (tree,)),), tree)

    @contextmanager
    def launch(self, image: TreeImage, doorbell: Doorbell, mark: Mark) -> Iterator[Instance]:
        name = self.ledger.name()
        with self.ledger.holding_folder() as folder:
            root = folder / "root"
            shutil.copytree(image.tree, root, symlinks=True)
            mark("copied")
            argv = ["unshare", "--map-root-user", "--mount", "sh", "-c", ENTER, "sh", str(root), str(doorbell.fifo)]
            with spawn(self.ledger, name, argv, folder / "log", environment(DOORBELL)) as child:
                doorbell.watch(child.pidfd)
                yield Copy(child, root, image.limits)


class OfTheFuture(Example):
    api = API + 1


class Unready(Example):
    def probe(self) -> TargetRecord:
        raise KeyError("whatever")
