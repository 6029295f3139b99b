"""Prunus: grow wide, ship narrow."""
