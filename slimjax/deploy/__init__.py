"""What ships: one width as a network of its own, and networks whose batch norms are folded for inference."""

from slimjax.deploy.folding import fold_batch_norm
from slimjax.deploy.subnets import Network, extract_subnet

__all__ = ["Network", "extract_subnet", "fold_batch_norm"]
