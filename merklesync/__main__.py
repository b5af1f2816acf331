"""``python -m merklesync``: the command line without an installed script."""

from merklesync.cli import main

main(prog_name="merklesync")
