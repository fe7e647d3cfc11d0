"""Depth against width: students of equal size, and what a layer or a unit of width is worth."""
