"""`apiflux process`: a file of calls in, a file of results out."""
