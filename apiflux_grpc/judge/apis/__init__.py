"""The APIs that the judge speaks, one per file: their paths, answers and errors, as their documentation has them."""
