"""The command `apiflux`, also as `python -m apiflux_grpc`.

Rule: signals have their owner before anything else is imported, and keep it until the interpreter is gone.
"""

import sys

try:
    import signal

    from apiflux_grpc.cli.signals import CUT_SHORT, SIGNALS
except KeyboardInterrupt:
    sys.exit(4)  # CUT_SHORT, which isn't there yet


def main() -> None:
    """Run it, and exit."""
    # SIGTERM as well for `process`, which promises its exit code for both. A server that is ended before it serves
    # is best ended by the signal itself: a service manager knows that for a clean end.
    SIGNALS.arm(signal.SIGINT, *([signal.SIGTERM] if "process" in sys.argv else []))
    code = 1
    try:
        from apiflux_grpc.cli.start import run

        code = run()
    except KeyboardInterrupt:
        code = CUT_SHORT
    except Exception:
        sys.excepthook(*sys.exc_info())
    sys.exit(SIGNALS.decided(code))


if __name__ == "__main__":
    main()
