"""The demo: one pod from CreateVM to nothing left, in namespaces of its own; also run by the tests."""
