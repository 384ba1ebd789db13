"""One module a revision, named and ordered by its number."""
