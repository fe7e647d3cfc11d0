"""Procedures: what a training step does besides taking the loss of terms, such as pruning or drawing a subnet."""

from upstreams.distillation.procedures.base import KINDS, Procedure, build

__all__ = ["KINDS", "Procedure", "build"]
