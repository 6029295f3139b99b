"""Networks that ship with Prunus, and `ModelFactory`, by which a recipe names any network."""
