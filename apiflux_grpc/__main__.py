"""`python -m apiflux_grpc` is `apiflux`."""

from apiflux_grpc.cli import main

main()
