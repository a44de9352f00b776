"""What a network costs: parameters and multiply-adds, per width."""
