"""`python -m tokenworks.cli`: the same command line where the console script is not on the path."""

from tokenworks.cli.root import main

main()
