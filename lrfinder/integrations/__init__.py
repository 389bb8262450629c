"""Frameworks that people train with: each file imports its own, and drives the same parts."""
