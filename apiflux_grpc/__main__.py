"""`python -m apiflux_grpc` is `apiflux`. Ctrl-C while modules are loaded ends it as it does later: exit code 4."""

import sys

try:
    from apiflux_grpc.cli.app import main
except KeyboardInterrupt:
    sys.exit(4)

main()
