"""`python -m tokenadapt`, which is also how torchrun starts a command."""

from tokenadapt.cli import main

if __name__ == "__main__":
    main()
