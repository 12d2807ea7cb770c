"""``python -m selfdistill`` is the command line."""

from selfdistill.cli import main

if __name__ == "__main__":
    main()
