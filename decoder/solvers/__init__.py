"""Linear algebra of decoders: ridge, kernels, ranks, covariances."""
