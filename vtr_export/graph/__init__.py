"""From a PyTorch tower to a checked ONNX file."""
