"""The control plane of a worker node; `parts` is the one place where concrete classes meet."""
