"""`apiflux plan`: the engine on virtual time."""
