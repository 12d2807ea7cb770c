"""Commands in this process, images and a finished run, as for the tests of the command line."""

from tests.cli.conftest import finished, pictures, run

__all__ = ["finished", "pictures", "run"]
