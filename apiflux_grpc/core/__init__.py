"""The decisions: pure, synchronous, on integer nanoseconds that the caller hands in."""
