"""What a network costs: parameters, multiply-adds, activations and latency, per width and layer."""
