"""Weights to vectors to neighbours: embed into a store, then match exactly."""
