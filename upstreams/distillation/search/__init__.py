"""Searches after a training: subnets of a supernet, and weights of a mixture of assistants."""
