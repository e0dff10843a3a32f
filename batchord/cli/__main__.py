"""`python -m batchord.cli`: the same as `batchord`."""

from batchord.cli import main

main()
