"""The users' machine: Debian with systemd, cgroup v2, AppArmor, Docker's and libvirt's daemons, and three users.

`make lab SYSTEM=debian13` builds it, boots it under QEMU's software emulation, and has root, alice (who may use sudo)
and bob (who may not) follow README there. image.py makes its disk, session.py starts it from outside, inside.py runs in
it, steps.py lists the steps, inventory.py lists a machine's leftovers, and judge.py checks the records.
docs/LAB.md describes it.
"""
