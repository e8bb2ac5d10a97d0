"""The outside world behind the engine's ports: pacers and ways upstream. Each library is known by one file here."""
