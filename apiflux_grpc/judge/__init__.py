"""The judge: an upstream that enforces limits itself and remembers every arrival. Needs nothing of the rest."""
