"""The pod network: look at a namespace, plan pure lists of operations, apply them."""
