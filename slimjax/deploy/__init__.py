"""What ships: one width as a network of its own, folded batch norms, bundles and the runtime that switches widths.

Nothing is imported here: `bundle`, `controller`, `backends` and `runtime` are for devices that have neither Flax nor
the networks' code.
"""
