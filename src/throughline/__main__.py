"""Where the command `throughline` starts: whatever Ctrl-C cuts short, were it an import, ends with the same code."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    try:
        from throughline import cli

        cli.main(prog_name="throughline")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(3)


if __name__ == "__main__":
    main()
