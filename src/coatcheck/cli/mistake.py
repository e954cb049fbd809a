"""What the caller of a command got wrong, beyond what the parser of the command line sees."""

from __future__ import annotations


class Mistake(Exception):
    """A command cannot work with what it was given; the message is one line that says what to write."""
