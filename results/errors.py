"""Every error that Heapgate raises on purpose, and the exit code each one means.

HeapgateError
├── UserError            2    the input is wrong; the text says where and what would be right
├── RunIncomplete        3    trials are missing or invalid; what was measured is kept
├── EnvironmentLacks     4    this machine lacks something; the text says what to do about it
├── ObjectiveFailed      1    an objective failed or a regression was found
└── Interrupted        130    stopped by the user; resumable
    └── ReaderGone            stopped because nobody reads what is printed

Exceptions never cross a process boundary: send `str(error)` and `error.exit_code` instead.
"""

from __future__ import annotations


class HeapgateError(Exception):
    """Base of all expected errors; its text is written for the person who must act."""

    exit_code = 2


class UserError(HeapgateError):
    """Something that the user wrote or asked for is wrong."""

    exit_code = 2


class RunIncomplete(HeapgateError):
    """The run ended without every planned trial being valid."""

    exit_code = 3


class EnvironmentLacks(HeapgateError):
    """This machine can't do what was asked: a tool, a permission, space or a port is missing."""

    exit_code = 4


class ObjectiveFailed(HeapgateError):
    """An objective failed or a regression was found."""

    exit_code = 1


class Interrupted(HeapgateError):
    """The user stopped the run; what was measured is kept and the run can be resumed."""

    exit_code = 130


class ReaderGone(Interrupted):
    """The other end of standard output was closed, as by `| head`."""
