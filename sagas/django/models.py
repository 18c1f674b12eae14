"""No models: `sagas.storage` has the tables. Django sends `post_migrate` only to applications with this module."""
