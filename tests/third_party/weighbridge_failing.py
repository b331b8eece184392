"""A module that cannot be imported, and not for want of another one."""

raise RuntimeError("this module was never finished")
