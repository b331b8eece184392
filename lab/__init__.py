"""The lab: a machine that has KVM, for machines that have none. `make lab` runs it; docs/LAB.md tells how to read it.

A Debian guest (L1) under QEMU's software emulation, whose emulated CPU has AMD's virtualization (SVM): in it Linux's
KVM is the real one, and carries guests (L2). system.py makes that Debian, carried.py what is brought along, machine.py
runs it, inside.py is what is done in there, proof.py holds what came out against what was claimed.
"""
