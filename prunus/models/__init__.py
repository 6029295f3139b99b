"""Networks that ship with Prunus; `ModelFactory` is how a recipe names any network."""
