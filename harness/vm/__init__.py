"""Virtual machines, whatever starts them: what one is made of, what boots in it, and whether KVM can run it."""
