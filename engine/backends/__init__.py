"""What runs the UNet and the decoder: torch, ONNX Runtime, OpenVINO, TensorRT."""
