"""Pacers and upstreams: the only places that know aiolimiter and aiohttp."""
