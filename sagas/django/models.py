"""No models: the tables are those of `sagas.storage`. Django sends `post_migrate` only where this is."""
