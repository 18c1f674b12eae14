"""`sagas demo`: a shop's orders survive the worker that is killed while it works on them."""
