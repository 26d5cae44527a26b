"""Waypoints in Envoy's words: the only room that knows them. Pure."""
