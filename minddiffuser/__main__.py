"""`python -m minddiffuser` is the command `minddiffuser`."""

from minddiffuser.cli import main

if __name__ == "__main__":
    main()
