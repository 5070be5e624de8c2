"""What the user can mend: errors whose message is one clear line, and says what to do."""

__all__ = ["ThroughlineError"]


class ThroughlineError(Exception):
    """Something the user can mend; the command line prints its message alone, without a traceback."""

    exit_code = 2
