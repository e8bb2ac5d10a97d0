"""APIFlux: batches of calls over a pool of rate-limited API keys, over gRPC."""

__version__ = "0.1.0"
