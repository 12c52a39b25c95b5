"""`python -m batcli`, and what `accelerate launch -m batcli` and `torchrun -m batcli` start."""

from batcli.cli import main

if __name__ == "__main__":
    main()
