"""The learning-rate range test for PyTorch that leaves nothing behind."""
