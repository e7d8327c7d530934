"""ONNX in fp32 -> typed ONNX in fp16, bf16 or int8: islands, their search, and an executor that rounds as declared."""
