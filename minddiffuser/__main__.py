"""`python -m minddiffuser` is the command `minddiffuser`."""

from minddiffuser.cli.entry import main

if __name__ == "__main__":
    main()
