"""`python -m harness`: the command line, for who has the package and no script of it on the path."""

from harness.cli import main

main()
