"""Networks of the diffusion pipeline and their folders."""
