"""`apiflux stress`: many requests at once, and the verdict."""
