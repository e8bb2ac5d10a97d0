"""Logging for the commands: the adapter's configuration, under the name that the command line may import."""

from apiflux_grpc.adapters.observe_logs import configure

__all__ = ["configure"]
