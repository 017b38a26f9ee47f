"""The control plane of a worker node; `daemon` is the one place where concrete classes meet."""
