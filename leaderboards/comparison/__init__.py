"""Upstreams compared in pairs, on the same test items."""
