"""`python -m jobrota` is the command `jobrota`."""

from jobrota.cli import main

if __name__ == "__main__":
    main()
